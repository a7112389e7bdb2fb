"""What the doctor sees of a database, directly and through a pooler."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Self
from urllib.parse import urlsplit

import pytest
from psycopg import conninfo, pq, sql
from psycopg.pq.abc import PGconn

from listener.adapters.postgres.examination import (
    Rights,
    Server,
    UnreadableError,
    Wakeups,
    examining,
    read_missing,
    read_refused,
    read_rights,
    read_server,
    try_wakeups,
)
from listener.adapters.postgres.installation import UnreachableError
from listener.adapters.postgres.statements import sql_folder
from listener.app.doctor import State, judge_rights, judge_server, judge_wakeups
from tests.catalogue import table
from tests.conftest import BACKEND, Connection, as_role, through

SERVER = Server(
    version=140022,
    version_name="14.22",
    standby=False,
    read_only=False,
    database="backend",
    encoding="UTF8",
    role="listener_daemon",
    deadlock_timeout=timedelta(seconds=1),
    clock_ahead=timedelta(0),
)


def test_every_statement_but_one_is_tried(dsn: str, db: Connection) -> None:
    with examining(dsn) as connection:
        assert read_refused(connection, BACKEND) == {}
    db.execute("ALTER SCHEMA listener RENAME TO elsewhere")
    with examining(dsn) as connection:
        refused = {name for names in read_refused(connection, BACKEND).values() for name in names}
    texts = {path.stem: path.read_text() for path in (sql_folder() / "queries").glob("*.sql")}
    ours = {
        name for name, text in texts.items() if re.search(r"(FROM|INTO|UPDATE) listener[.]", text)
    }
    assert len(ours) > 50
    assert ours <= refused


def test_short_deadlock_timeout_is_warned_about() -> None:
    server = replace(SERVER, deadlock_timeout=timedelta(milliseconds=50))
    *_, finding = judge_server(server)
    assert (finding.check, finding.state) == ("deadlocks", State.WARN)
    assert finding.finding.startswith("0.05 s until")
    assert "deadlock_timeout" in finding.advice


def test_encoding_that_cannot_hold_unicode_is_a_failure() -> None:
    finding, *_ = judge_server(replace(SERVER, encoding="SQL_ASCII"))
    assert finding.state is State.FAIL
    assert "is encoded in SQL_ASCII, which cannot hold every name" in finding.finding
    assert "UTF8" in finding.advice


def rights(dsn: str, backend: str = BACKEND) -> Rights:
    with examining(dsn) as connection:
        return read_rights(connection, backend)


def test_server_is_told_with_its_clock(dsn: str) -> None:
    with examining(dsn) as connection:
        server = read_server(connection, BACKEND)
        assert server.version == connection.info.server_version
    assert not server.standby
    assert not server.read_only
    assert abs(server.clock_ahead) < timedelta(seconds=2)


def test_examining_can_write_nothing(dsn: str) -> None:
    with (
        pytest.raises(UnreachableError, match="read-only"),
        examining(dsn) as connection,
    ):
        connection.execute("DELETE FROM listener.change")


def test_wrong_schema_of_the_backend_is_named(dsn: str) -> None:
    seen = rights(dsn, "no_such_schema")
    assert "schema no_such_schema" in seen.absent
    assert "no_such_schema.library" in seen.absent
    (finding,) = judge_rights(seen)
    assert finding.state is State.FAIL
    assert "WXYC_SCHEMA_NAME" in finding.advice


def test_schema_that_may_not_be_used_spoils_no_other_look(
    db: Connection, dsn: str, role: str
) -> None:
    db.execute(sql.SQL("REVOKE USAGE ON SCHEMA listener FROM {}").format(sql.Identifier(role)))
    with examining(as_role(dsn, role)) as connection:
        with pytest.raises(UnreadableError, match="permission denied"):
            read_missing(connection, BACKEND)
        assert read_rights(connection, BACKEND).lacking == ("USAGE on schema listener",)


def test_parts_are_told_apart(db: Connection, dsn: str) -> None:
    with examining(dsn) as connection:
        assert read_missing(connection, BACKEND) == ([], [])
    db.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table("rotation")))
    db.execute("DELETE FROM listener.installed WHERE name LIKE 'schema/0002%'")
    with examining(dsn) as connection:
        schema, triggers = read_missing(connection, BACKEND)
    assert [name.partition("_")[0] for name in schema] == ["schema/0002"]
    assert triggers == ["triggers/rotation"]


@pytest.mark.parametrize(
    ("version", "state"),
    [
        (130_022, State.FAIL),
        (140_020, State.WARN),
        (140_021, State.OK),
        (140_022, State.OK),
        (150_015, State.WARN),
        (150_016, State.OK),
        (160_011, State.WARN),
        (160_012, State.OK),
        (170_007, State.WARN),
        (170_008, State.OK),
        (180_001, State.WARN),
        (180_002, State.OK),
        (190_000, State.WARN),
    ],
)
def test_version_is_judged(version: int, state: State) -> None:
    _, finding, *_ = judge_server(replace(SERVER, version=version, version_name="some"))
    assert (finding.check, finding.state) == ("server version", state)
    assert bool(finding.advice) == (state is not State.OK)


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [
        (0.4, State.OK, "0.4 s ahead of"),
        (-1.9, State.OK, "1.9 s behind"),
        (2.1, State.WARN, "2.1 s ahead of"),
        (-3600, State.WARN, "3600.0 s behind"),
    ],
)
def test_clock_is_judged(seconds: float, state: State, words: str) -> None:
    ahead = timedelta(seconds=seconds)
    _, _, finding, _ = judge_server(replace(SERVER, clock_ahead=ahead))
    assert (finding.check, finding.state) == ("clock", state)
    assert words in finding.finding


def test_standby_is_no_place_to_work() -> None:
    finding = next(judge_server(replace(SERVER, standby=True)))
    assert (finding.check, finding.state) == ("database", State.FAIL)


async def test_wakeups_arrive_on_a_direct_connection(dsn: str) -> None:
    wakeups = await try_wakeups(dsn)
    assert wakeups == Wakeups(from_itself=True, from_another=True, same_backend=True)
    assert judge_wakeups(wakeups).state is State.OK


async def test_pooler_that_lends_each_statement_a_backend_is_found(dsn: str) -> None:
    async with pooler(dsn) as pooled:
        wakeups = await try_wakeups(pooled)
    assert not wakeups.from_another
    assert not wakeups.same_backend
    finding = judge_wakeups(wakeups)
    assert finding.state is State.WARN
    assert "the daemon polls; a pooler" in finding.finding
    assert "directly" in finding.advice


async def test_refused_listen_is_told(dsn: str) -> None:
    with pytest.raises(UnreadableError, match="not_there"):
        await try_wakeups(urlsplit(dsn)._replace(path="/not_there").geturl())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:gehe%zim@localhost:1/x",
        "postgresql://u:ge@heim@localhost:1/x",
        "postgresql://u:geheim/geheim@localhost:1/x",
        "postgresql://u:geheim@localhost:port/x",
        "postgresql://u:geheim@localhost:1/x?nonsense=geheim",
        "postgresql://localhost:1/x?password=geheim&port=geheim",
        "postgresql://u:geheim@geheim.invalid:1/x",
    ],
)
def test_failure_to_connect_shows_nothing_of_the_password(url: str) -> None:
    with pytest.raises(UnreachableError) as caught, examining(url):
        pass
    assert "heim" not in str(caught.value)
    assert "zim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_plain_failure_to_connect_says_where() -> None:
    with (
        pytest.raises(UnreachableError, match="port 1 failed"),
        examining("postgresql://u:geheim@127.0.0.1:1/x"),
    ):
        pass


def test_wrong_password_says_so(dsn: str) -> None:
    with (
        pytest.raises(UnreachableError, match="nobody_of_that_name"),
        examining(as_role(dsn, "nobody_of_that_name")),
    ):
        pass


def test_lost_connection_is_told(dsn: str, db: Connection) -> None:
    with pytest.raises(UnreachableError), examining(dsn) as connection:
        db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))


def test_look_at_a_lost_connection_is_told(dsn: str, db: Connection) -> None:
    with suppress(UnreachableError), examining(dsn) as connection:
        db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(UnreadableError):
            read_server(connection, BACKEND)


class _Backend:
    """One session of the server, that the pooler lends for one exchange at a time."""

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
        """Return what a server says to a client that it lets in."""
        names = (b"server_version", b"server_encoding", b"client_encoding", b"TimeZone")
        known = [(name, self._session.parameter_status(name) or b"") for name in names]
        told = [_framed(b"S", name + b"\0" + value + b"\0") for name, value in known]
        return _framed(b"R", bytes(4)) + b"".join(told) + _framed(b"Z", b"I")

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
