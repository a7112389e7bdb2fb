"""The health check of the image against a server that answers this or that."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread

import pytest

from listener.ready import ask, main, runs_daemon


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """Answer one request; yields the address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked = connection.recv(1000)
                assert asked.startswith(b"GET /readyz HTTP/1.0\r\n")
                connection.sendall(reply)

        thread = Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready\n", ("200", "ready")),
        (b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nno look", ("503", "no look")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ("204", "")),
    ],
)
def test_answer_is_read(reply: bytes, answer: tuple[str, str]) -> None:
    with answering(reply) as address:
        assert ask(address) == answer


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready\n", 0, "200 ready"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nlost", 1, "503 lost"),
        (b"SSH-2.0-OpenSSH\r\n", 1, "does not speak HTTP"),
        (b"", 1, "does not speak HTTP"),
    ],
)
def test_container_is_healthy_if_the_daemon_is_ready(
    reply: bytes,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("listener.ready.runs_daemon", lambda _: True)
    with answering(reply) as address:
        monkeypatch.setenv("HTTP_BIND", address)
        assert main() == code
    assert words in capsys.readouterr().out


def test_server_that_listens_everywhere_is_asked_on_this_host() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as address:
        assert ask(address.replace("127.0.0.1", "0.0.0.0")) == ("200", "")  # noqa: S104


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "127.0.0.1:none", "nothing"])
def test_container_without_an_answer_is_not_healthy(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("listener.ready.runs_daemon", lambda _: True)
    monkeypatch.setenv("HTTP_BIND", address)
    assert main() == 1
    assert f"no answer from {address}" in capsys.readouterr().out


def test_container_without_a_server_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.ready.runs_daemon", lambda _: True)
    monkeypatch.setenv("HTTP_BIND", " ")
    assert main() == 0


@pytest.mark.parametrize(
    ("command_line", "is_daemon"),
    [
        (b"/opt/listener/bin/python\0/opt/listener/bin/listener\0run\0", True),
        (b"/sbin/docker-init\0--\0listener\0run\0", True),
        (b"sh\0-c\0listener migrate && listener run\0", True),
        (b"/opt/listener/bin/python\0/opt/listener/bin/listener\0sweep\0--dry-run\0", False),
    ],
)
def test_only_a_daemon_is_asked(command_line: bytes, is_daemon: bool) -> None:
    assert runs_daemon(command_line) is is_daemon
