"""What systemd hears from a daemon that it started."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from listener.adapters import host
from listener.adapters.host import longest_silence, notify
from tests.acceptance.conftest import WAIT_SECONDS, Start, eventually
from tests.acceptance.test_site import ANY_PORT, STALLING

pytestmark = pytest.mark.timeout(90)


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.settimeout(WAIT_SECONDS)
        ours.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        yield ours


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[str, Callable[[], set[str]]]]:
    """Yield an address for NOTIFY_SOCKET, and what reads the next message there."""
    address = f"@listener-{secrets.token_hex(4)}"
    with listening(address) as ours:
        yield address, lambda: set(ours.recv(4096).decode().splitlines())


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_message_reaches_the_socket(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "s") if kind == "path" else f"@listener-{secrets.token_hex(4)}"
    with listening(address) as ours:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1", "STATUS=at work")
        assert ours.recv(4096) == b"READY=1\nSTATUS=at work"
    # Nobody is there any more.
    notify("STOPPING=1")


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("30000000", None, 30),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        ("1" + "0" * 20, None, None),
        ("9" * 5000, None, None),
        (None, None, None),
    ],
)
def test_watchdog_is_that_of_this_process(
    microseconds: str | None,
    process: str | None,
    seconds: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", process)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    silence = longest_silence()
    assert (silence and silence.total_seconds()) == seconds


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not host.listens()
    notify("READY=1")


def test_daemon_notifies_systemd_when_ready_alive_and_stopping(
    start: Start, heard: tuple[str, Callable[[], set[str]]]
) -> None:
    address, hear = heard
    daemon = start(NOTIFY_SOCKET=address, WATCHDOG_USEC="2000000")
    assert hear() == {"READY=1"}
    assert "WATCHDOG=1" in hear()
    daemon.following()
    eventually(lambda: hear() == {"STATUS=ready", "WATCHDOG=1"})
    daemon.process.send_signal(signal.SIGTERM)
    eventually(lambda: hear() == {"STOPPING=1"})
    assert daemon.ended() == 0


def test_daemon_that_cannot_start_is_never_ready(
    start: Start, heard: tuple[str, Callable[[], set[str]]]
) -> None:
    address, hear = heard
    daemon = start(NOTIFY_SOCKET=address, DATABASE_URL="postgresql://127.0.0.1:1/x")
    daemon.wait_for("database unavailable")
    daemon.process.send_signal(signal.SIGTERM)
    assert hear() == {"STOPPING=1"}
    daemon.ended()


def test_daemon_with_a_stuck_loop_stops_notifying(
    start: Start, heard: tuple[str, Callable[[], set[str]]]
) -> None:
    address, hear = heard
    daemon = start(STALLING, HTTP_BIND=ANY_PORT, NOTIFY_SOCKET=address, WATCHDOG_USEC="2000000")
    daemon.following()
    daemon.kill(signal.SIGUSR1)
    eventually(lambda: any("have been stuck" in each for each in hear()), 40)
    assert "WATCHDOG=1" not in hear()
    assert daemon.process.poll() is None
