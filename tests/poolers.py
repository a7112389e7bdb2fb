"""Poolers between us and the database: a stand-in that is always there, and PgBouncer."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Self

import psycopg
from psycopg import conninfo, pq
from psycopg.pq.abc import PGconn

from tests.conftest import through

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin")


class _Backend:
    """One session of the server, that the pooler hands out for one exchange at a time."""

    def __init__(self, session: PGconn) -> None:
        self._session = session

    async def open(self) -> Self:
        """Take over the socket of a session that libpq has logged in."""
        end = socket.socket(fileno=os.dup(self._session.socket))
        end.setblocking(False)
        self._reader, self.writer = await asyncio.open_connection(sock=end)
        return self

    def close(self) -> None:
        """End the session."""
        self.writer.close()
        self._session.finish()

    def greeting(self) -> bytes:
        """Return what a server sends to a client that it accepts."""
        names = (b"server_version", b"server_encoding", b"client_encoding", b"TimeZone")
        known = [(name, self._session.parameter_status(name) or b"") for name in names]
        parameters = [_framed(b"S", name + b"\0" + value + b"\0") for name, value in known]
        return _framed(b"R", bytes(4)) + b"".join(parameters) + _framed(b"Z", b"I")

    async def answer(self) -> bytes:
        """Return all up to and with ReadyForQuery."""
        answer = last = await _message(self._reader)
        while last[:1] != b"Z":
            last = await _message(self._reader)
            answer += last
        return answer


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


@asynccontextmanager
async def pooler(dsn: str) -> AsyncIterator[str]:
    """Yield the address of a pooler in transaction mode, a stand-in for the real ones.

    A client that is in no transaction gets another backend for every exchange.
    """
    plain = conninfo.make_conninfo(dsn, sslmode="disable", gssencmode="disable")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        backends: list[_Backend] = []
        try:
            while True:
                startup = await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
                if int.from_bytes(startup[:4]) >> 16 == 3:
                    break
                # Neither TLS nor GSS.
                writer.write(b"N")
            backends += [await _Backend(pq.PGconn.connect(plain.encode())).open() for _ in range(2)]
            writer.write(backends[0].greeting())
            await relay(reader, writer, backends)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for backend in backends:
                backend.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    try:
        yield through(dsn, address[1])
    finally:
        server.close()


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backends: list[_Backend]
) -> None:
    turn, idle = 0, True
    while True:
        asked = await _message(reader)
        while asked[:1] not in b"QX" and not asked.endswith(b"S\x00\x00\x00\x04"):
            asked += await _message(reader)
        if asked[:1] == b"X":
            return
        turn += idle
        backend = backends[turn % len(backends)]
        backend.writer.write(asked)
        answer = await backend.answer()
        idle = answer.endswith(b"I")
        writer.write(answer)


@contextmanager
def pooler_thread(dsn: str) -> Iterator[str]:
    """Yield the address of the stand-in, served by a thread: for those who keep a loop waiting."""
    address: Future[str] = Future()
    over = threading.Event()

    async def serve() -> None:
        async with pooler(dsn) as pooled:
            address.set_result(pooled)
            await asyncio.to_thread(over.wait)

    with ThreadPoolExecutor(1) as thread:
        served = thread.submit(asyncio.run, serve())
        try:
            yield address.result()
        finally:
            over.set()
            served.result()


@contextmanager
def pgbouncer(dsn: str, folder: Path, mode: str) -> Iterator[str]:
    """Run PgBouncer in front of a database, in the mode `session` or `transaction`."""
    assert PGBOUNCER is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database = conninfo.conninfo_to_dict(dsn)
    there = {name: value for name, value in database.items() if name in _THERE}
    words = " ".join(f"{name}={value}" for name, value in there.items())
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        "\n".join(
            (
                "[databases]",
                f"{database['dbname']} = {words}",
                "[pgbouncer]",
                "listen_addr = 127.0.0.1",
                f"listen_port = {port}",
                "unix_socket_dir =",
                "auth_type = any",
                f"pool_mode = {mode}",
                "default_pool_size = 4",
                "query_wait_timeout = 10",
            )
        )
    )
    for path in (folder, Path(str(database["host"]))) if os.geteuid() == 0 else ():
        # It refuses to run as root, and what it becomes must get to its settings and the socket.
        for each in (path, *path.parents):
            if each.is_dir() and each != Path("/"):
                each.chmod(each.stat().st_mode | 0o005)
    user = ["--user", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [PGBOUNCER, *user, settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield _answering(through(dsn, port), process)
        finally:
            process.terminate()


_THERE = ("host", "port", "dbname", "user", "password")


def _answering(dsn: str, process: subprocess.Popen[str]) -> str:
    while process.poll() is None:
        with suppress(psycopg.OperationalError), psycopg.connect(dsn):
            return dsn
    raise RuntimeError(process.stderr.read() if process.stderr is not None else "")
