"""What a host does to the process: stalled logs, networks that swallow, signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import psycopg
import pytest

from listener.demo.postgres import create_backend
from listener.simulator import Simulator
from tests.acceptance.conftest import WAIT_SECONDS, Commands, Daemon, Start, eventually
from tests.acceptance.nameless import WAITS_FOR_A_NAME
from tests.acceptance.proxy import proxy_before
from tests.catalogue import add_release, count, outbox_size
from tests.conftest import BACKEND, Connection
from tests.database import migrate
from tests.pipe import Pipe
from tests.server import Choice, running

pytestmark = pytest.mark.timeout(90)

NAMELESS = "tests.acceptance.nameless"
STALLING = "tests.acceptance.stalling"
# What hangs takes 10 s or for ever: that shows with the least that a stop may take.
SHORT = "500ms"
BOUND = 6


def ended_in_time(daemon: Daemon, number: signal.Signals = signal.SIGTERM) -> int:
    """Send a signal; return the exit code, for which what hangs is not waited."""
    daemon.process.send_signal(number)
    return daemon.process.wait(BOUND)


def never_asked(db: Connection) -> None:
    """Add a release that is found by a search only."""
    add_release(db)
    db.execute("DELETE FROM listener.change")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def stalled() -> Iterator[Pipe]:
    """Make a pipe with a reader and without room."""
    pipe = Pipe()
    pipe.fill()
    yield pipe
    pipe.close()


def test_stalled_log_delays_no_answer(db: Connection, start: Start, stalled: Pipe) -> None:
    port = free_port()
    daemon = start(
        stderr=stalled.writing,
        HTTP_BIND=f"127.0.0.1:{port}",
        LOG_LEVEL="DEBUG",
        SHUTDOWN_TIMEOUT=SHORT,
    )
    add_release(db)
    eventually(lambda: count(db, "library_identity") == 1)
    assert httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False).text == "ok\n"
    assert ended_in_time(daemon) == 0
    # None of its lines found room: the reader had stalled all the time.
    assert stalled.read() == ""


def test_log_continues_once_it_is_read_again(db: Connection, start: Start, stalled: Pipe) -> None:
    daemon = start(stderr=stalled.writing)
    add_release(db)
    eventually(lambda: count(db, "library_identity") == 1)
    written = ""

    def said() -> bool:
        nonlocal written
        written += stalled.read()
        return '"following"' in written

    eventually(said)
    assert ended_in_time(daemon) == 0


@pytest.mark.parametrize(
    ("command", "number"), [("sweep", signal.SIGTERM), ("backfill", signal.SIGINT)]
)
def test_stalled_log_does_not_keep_a_command_from_ending(
    db: Connection,
    listener: Commands,
    simulator: Simulator,
    stalled: Pipe,
    *,
    command: str,
    number: signal.Signals,
) -> None:
    never_asked(db)
    simulator.gate.shut()
    process = listener.logging_to(stalled.writing).begin(command, SHUTDOWN_TIMEOUT=SHORT)
    simulator.calls.wait_for(1, "bulk")
    process.send_signal(number)
    process.communicate(timeout=BOUND)
    assert process.returncode == 128 + number
    simulator.gate.open()
    assert listener.run(command).code == 0
    assert count(db, "library_identity") == 1


def test_network_that_drops_everything_delays_no_stop(
    db: Connection, dsn: str, start: Start, simulator: Simulator
) -> None:
    with proxy_before(dsn) as (through, proxy):
        daemon = start(DATABASE_URL=through, SHUTDOWN_TIMEOUT=SHORT).following()
        simulator.gate.shut()
        add_release(db)
        simulator.calls.wait_for(1, "bulk")
        proxy.dead.set()
        simulator.gate.open()
        assert ended_in_time(daemon) == 0
    assert count(db, "library_identity") == 0
    start()
    eventually(lambda: count(db, "library_identity") == 1, 30)
    eventually(lambda: outbox_size(db) == 0)


@pytest.mark.parametrize("command", ["sweep", "backfill"])
def test_network_that_drops_everything_does_not_keep_a_command_from_ending(
    db: Connection, dsn: str, listener: Commands, simulator: Simulator, command: str
) -> None:
    never_asked(db)
    simulator.gate.shut()
    with proxy_before(dsn) as (through, proxy):
        process = listener.begin(command, DATABASE_URL=through, SHUTDOWN_TIMEOUT=SHORT)
        simulator.calls.wait_for(1, "bulk")
        proxy.dead.set()
        simulator.gate.open()
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=BOUND)
    assert process.returncode == 128 + signal.SIGTERM
    assert stderr.endswith("listener: stopped; rows not yet asked about stay due\n")


@contextmanager
def frozen(dsn: str) -> Iterator[None]:
    """Stop all processes of a server for the length of the block."""
    with psycopg.connect(dsn) as connection:
        postmaster = psutil.Process(connection.info.backend_pid).parent()
    assert postmaster is not None
    # First the one that begets others; some of those end meanwhile.
    postmaster.suspend()
    processes = [*postmaster.children(recursive=True), postmaster]
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.suspend()
    try:
        yield
    finally:
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def test_frozen_server_delays_no_stop(start: Start) -> None:
    with running(Choice("a server that may be stopped")) as dsn:
        create_backend(dsn, BACKEND, with_triggers=False)
        migrate(dsn, BACKEND)
        daemon = start(DATABASE_URL=dsn, SHUTDOWN_TIMEOUT=SHORT).following()
        with psycopg.connect(dsn, autocommit=True) as db:
            add_release(db)
            with frozen(dsn):
                assert ended_in_time(daemon) == 0
            start(DATABASE_URL=dsn).following()
            eventually(lambda: count(db, "library_identity") == 1)


def test_hanging_name_resolution_delays_no_stop(db: Connection, lml: str, start: Start) -> None:
    by_name = lml.replace("127.0.0.1", "localhost")
    add_release(db)
    daemon = start(NAMELESS, LIBRARY_METADATA_URL=by_name, SHUTDOWN_TIMEOUT=SHORT).following()
    eventually(lambda: f"{WAITS_FOR_A_NAME}\n" in daemon.lines)
    assert ended_in_time(daemon) == 0
    start()
    eventually(lambda: count(db, "library_identity") == 1)


def test_loop_that_is_blocked_delays_no_stop(start: Start) -> None:
    daemon = start(STALLING, SHUTDOWN_TIMEOUT=SHORT).following()
    daemon.kill(signal.SIGHUP)
    assert ended_in_time(daemon) == 0
    daemon.ended()
    assert daemon.logged("did not end in time, leaving what hangs behind") == 1


@pytest.mark.parametrize(("hard", "code"), [(64, 2), (300, 2), (4096, 0)])
def test_low_limit_of_open_files_is_raised_or_reported(dsn: str, hard: int, code: int) -> None:
    environment = {"DATABASE_URL": dsn, "LIBRARY_METADATA_URL": "http://127.0.0.1:1"}
    line = f'ulimit -Sn 64 && ulimit -Hn {hard} && exec "$0" -m listener run'
    process = subprocess.Popen(
        ["/bin/sh", "-c", line, sys.executable],
        env={"PATH": os.defpath, "HTTP_BIND": "", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    assert (f"may open {hard} files" in said) == bool(code), said
    if not code:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == code


def test_closed_terminal_ends_a_command(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    never_asked(db)
    simulator.gate.shut()
    process = listener.begin("sweep")
    simulator.calls.wait_for(1, "bulk")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=BOUND)
    assert process.returncode == -signal.SIGHUP
    simulator.gate.open()


def test_stray_signals_change_nothing(db: Connection, start: Start) -> None:
    daemon = start().following()
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        daemon.kill(number)
    add_release(db)
    eventually(lambda: count(db, "library_identity") == 1)
    assert daemon.stop() == 0
    assert daemon.logged("stopping") == 1
