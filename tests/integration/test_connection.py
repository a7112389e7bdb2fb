"""Connections that are taken from the pool for short pieces of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors, sql
from psycopg_pool import PoolTimeout

from listener.adapters.postgres import connection as connections
from listener.adapters.postgres.arrays import Int4s
from listener.adapters.postgres.connection import (
    Database,
    Pool,
    connected,
    open_pool,
    open_session,
    session,
)
from listener.adapters.postgres.errors import translated
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.sessions import query, times_of
from listener.domain.faults import StatementRefusedError, StoreRefusedError, StoreUnavailableError
from tests.catalogue import add_release, table
from tests.conftest import BACKEND, Connection, as_role
from tests.integration.conftest import ASK_AGAIN, until
from tests.integration.proxy import proxy_before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            psycopg.OperationalError("lost\nline 2"),
            "lost; start PostgreSQL, or correct DATABASE_URL",
        ),
        (TimeoutError(), "no answer in time; start PostgreSQL, or correct DATABASE_URL"),
        (errors.UndefinedTable("there is none"), "there is none"),
        (errors.InsufficientPrivilege(), "InsufficientPrivilege"),
    ],
)
def test_fault_of_the_database_is_reported_in_words(error: Exception, said: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught, translated():
        raise error
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "code", ["08006", "08P01", "25006", "25P03", "53100", "53300", "57P01", "57P03", "58030"]
)
def test_outage_of_the_database_is_blamed_on_no_row(code: str) -> None:
    for refused in (StoreUnavailableError, StatementRefusedError):
        with pytest.raises(StoreUnavailableError), translated(refused):
            raise errors.lookup(code)("x")


@pytest.mark.parametrize(
    "code",
    [
        *("22001", "22021", "23505", "40001", "40P01", "54000", "55P03", "57014", "P0001"),
        *("XX000", "XX001"),
    ],
)
def test_other_database_errors_concern_the_rows(code: str) -> None:
    with pytest.raises(StatementRefusedError), translated(StatementRefusedError):
        raise errors.lookup(code)("x")
    with pytest.raises(StoreUnavailableError), translated():
        raise errors.lookup(code)("x")


@pytest.mark.parametrize(
    "code", ["0A000", "23502", "26000", "42501", "42703", "42883", "42P01", "42P10", "55000"]
)
def test_statement_that_fails_whatever_the_rows_is_blamed_on_no_row(code: str) -> None:
    with pytest.raises(StoreRefusedError), translated(StatementRefusedError):
        raise errors.lookup(code)("x")


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.InterfaceError("the connection is closed"),
        PoolTimeout("couldn't get a connection"),
        TimeoutError(),
    ],
)
def test_lost_or_unavailable_connection_is_blamed_on_no_row(error: Exception) -> None:
    with pytest.raises(StoreUnavailableError), translated(StatementRefusedError):
        raise error


@pytest.mark.parametrize(
    "error", [psycopg.ProgrammingError("no such parameter"), psycopg.DataError("NUL in a text")]
)
def test_error_of_psycopg_itself_concerns_the_statement(error: Exception) -> None:
    with pytest.raises(StatementRefusedError), translated(StatementRefusedError):
        raise error


@pytest.mark.parametrize(
    ("deadlock_timeout", "lock_timeout"),
    [("1s", "200ms"), ("1min", "200ms"), ("500ms", "100ms"), ("50ms", "10ms"), ("1ms", "1ms")],
)
async def test_lock_timeout_is_shorter_than_deadlock_timeout(
    db: Connection, database: Database, deadlock_timeout: str, lock_timeout: str
) -> None:
    altered = sql.SQL("ALTER DATABASE {} SET deadlock_timeout = {}")
    db.execute(altered.format(sql.Identifier(db.info.dbname), deadlock_timeout))
    async with await open_session(database) as opened, open_pool(database, size=1) as pool:
        for connection in (opened, await pool.getconn()):
            cursor = await connection.execute("SELECT current_setting('lock_timeout')")
            assert await cursor.fetchone() == (lock_timeout,)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT 'geheim'::int", r"InvalidTextRepresentation (22P02)"),
        ("SELECT '9999-geheim'::date", r"InvalidDatetimeFormat (22007)"),
        ("SELECT '99999999999'::int", r"NumericValueOutOfRange (22003)"),
        ("SELECT nobody FROM pg_class", 'column "nobody" does not exist'),
        ("SELECT nothing(1)", "function nothing(integer) does not exist"),
        ("SELECT 1 FROM nowhere", 'relation "nowhere" does not exist'),
    ],
)
async def test_reason_names_schema_objects_but_no_values(
    pool: Pool, statement: LiteralString, said: str
) -> None:
    with pytest.raises((StatementRefusedError, StoreRefusedError)) as caught:
        async with session(pool, StatementRefusedError) as connection:
            await connection.execute(statement)
    assert str(caught.value) == said


async def test_limit_of_connections_is_named(db: Connection, database: Database, role: str) -> None:
    name = sql.Identifier(role)
    db.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 1").format(name))
    try:
        there = replace(
            database, dsn=as_role(database.dsn, role), connect_timeout=timedelta(seconds=2)
        )
        async with open_pool(there, size=2) as pool, session(pool):
            with pytest.raises(StoreRefusedError) as caught:
                async with session(pool):
                    pass
            with pytest.raises(StoreRefusedError), translated():
                await open_session(there)
    finally:
        db.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(name))
    assert f'too many connections for role "{role}"; correct' in str(caught.value)
    assert "start PostgreSQL" not in str(caught.value)


@pytest.mark.parametrize(
    ("severity", "said"),
    [
        ("FATAL", "zu viele Verbindungen von Rolle »lim«"),
        ("ВАЖНО", 'слишком много подключений для роли "lim"'),
        ("致命的エラー", 'ロール"lim"からの接続が多すぎます'),
        ("ÖLÜMCÜL (FATAL)", 'rol "lim" için çok fazla bağlantı'),
    ],
)
async def test_login_that_is_refused_in_another_language_is_not_an_outage(
    database: Database, tmp_path: Path, severity: str, said: str
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        fields = (f"S{severity}", "VFATAL", "C53300", f"M{said}", "")
        body = b"".join(field.encode() + b"\0" for field in fields)
        writer.write(b"E" + (len(body) + 4).to_bytes(4, "big") + body)
        await writer.drain()
        writer.close()

    folder = str(tmp_path)
    server = await asyncio.start_unix_server(refuse, f"{folder}/.s.PGSQL.5432")
    async with server:
        there = replace(database, dsn=f"postgresql://u@/x?host={folder}&port=5432")
        with pytest.raises(StoreRefusedError) as caught, translated():
            await open_session(there)
    assert f"{said}; correct" in str(caught.value)


async def test_server_that_is_not_there_is_an_outage(database: Database, tmp_path: Path) -> None:
    for where in (f"postgresql://u@/x?host={tmp_path}", "postgresql://u@127.0.0.1:1/x"):
        with pytest.raises(StoreUnavailableError) as caught, translated():
            await open_session(replace(database, dsn=where))
        assert not isinstance(caught.value, StoreRefusedError)


async def test_session_that_is_idle_is_not_ended(db: Connection, database: Database) -> None:
    altered = sql.SQL("ALTER DATABASE {} SET idle_session_timeout = '100ms'")
    db.execute(altered.format(sql.Identifier(db.info.dbname)))
    async with open_pool(database, size=1) as pool:
        first = await pid_of(pool)
        await asyncio.sleep(0.5)
        assert await pid_of(pool) == first


async def test_statement_that_takes_too_long_is_blamed_on_its_rows(pool: Pool) -> None:
    async def sleep() -> None:
        async with session(pool, StatementRefusedError) as connection:
            await connection.execute("SET statement_timeout = 1")
            await connection.execute("SELECT pg_sleep(9)")

    with pytest.raises(StatementRefusedError, match="statement timeout"):
        await sleep()


async def test_connection_is_reused_after_success(database: Database) -> None:
    async with open_pool(database, size=1) as pool:
        assert len({await pid_of(pool) for _ in range(3)}) == 1


async def statement(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute("SELECT 1 / %s", (0,))


async def pipeline(connection: psycopg.AsyncConnection[Any]) -> None:
    async with connection.pipeline():
        for divisor in (1, 0, 1):
            await connection.execute("SELECT 1 / %s", (divisor,))


async def transaction(connection: psycopg.AsyncConnection[Any]) -> None:
    async with connection.transaction(), connection.pipeline():
        await connection.execute("SELECT 1 / %s", (0,))


async def program(_connection: psycopg.AsyncConnection[Any]) -> None:
    raise ValueError("unforeseen")


@pytest.mark.parametrize("fail", [statement, pipeline, transaction, program])
async def test_connection_is_not_reused_after_a_failure(
    db: Connection,
    database: Database,
    fail: Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]],
) -> None:
    async with open_pool(database, size=1) as pool:
        before = await pid_of(pool)
        with pytest.raises((StatementRefusedError, ValueError)):
            async with session(pool, StatementRefusedError) as connection:
                await fail(connection)
        assert connection.closed
        assert await pid_of(pool) != before
        same = "SELECT FROM pg_stat_activity WHERE pid = %s"
        await until(lambda: not db.execute(same, (before,)).rowcount)


@pytest.mark.parametrize(
    ("failing", "all_replaced"),
    [
        ("SELECT 1 / 0", False),
        ("SELECT * FROM no_such_table", True),
        ("EXECUTE no_such_statement", True),
    ],
)
async def test_error_that_other_connections_would_share_replaces_them_all(
    database: Database, failing: LiteralString, all_replaced: bool
) -> None:
    async with open_pool(database, size=2) as pool:
        async with session(pool) as first, session(pool) as second:
            before = {first.info.backend_pid, second.info.backend_pid}
        with pytest.raises((StatementRefusedError, StoreRefusedError)):
            async with session(pool, StatementRefusedError) as connection:
                await connection.execute(failing)
        async with session(pool) as first, session(pool) as second:
            after = {first.info.backend_pid, second.info.backend_pid}
        assert len(before & after) == (0 if all_replaced else 1)


async def test_retyped_column_fails_at_most_one_batch(db: Connection, database: Database) -> None:
    row = add_release(db)
    statement, parameters = query("read_questions", BACKEND), {"row_ids": Int4s([row])}
    async with open_pool(database, size=4) as pool, AsyncExitStack() as held:
        library = PostgresLibrary(pool, BACKEND, ASK_AGAIN)
        for _ in range(4):
            connection = await held.enter_async_context(session(pool))
            await connection.execute(statement, parameters | times_of(ASK_AGAIN), binary=True)
        await held.aclose()
        widen_artist_name(db)
        outcomes = [await outcome_of(library, row) for _ in range(6)]
    assert outcomes == ["cached plan must not change result type", *["asked"] * 5]


def widen_artist_name(db: Connection) -> None:
    """Give library.artist_name another type, without all that depends on the column."""
    named = "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
    for (name,) in db.execute(named, (f"{BACKEND}.library",)).fetchall():
        db.execute(
            sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(str(name)), table("library"))
        )
    for change in ("DROP search_doc", "ALTER artist_name TYPE varchar(256)"):
        db.execute(sql.SQL(f"ALTER TABLE {{}} {change}").format(table("library")))


async def outcome_of(library: PostgresLibrary, row: int) -> str:
    try:
        asking = await library.read([row])
    except StoreRefusedError as refused:
        return str(refused)
    assert [question.library_id for question in asking.questions] == [row]
    return "asked"


async def pid_of(pool: Pool) -> int:
    async with session(pool) as connection:
        return connection.info.backend_pid


@pytest.mark.parametrize("ticks", range(8))
async def test_cancellation_that_meets_the_connection_is_not_lost(
    database: Database, ticks: int
) -> None:
    entered: list[object] = []

    async def work() -> None:
        async with session(pool) as connection:
            entered.append(connection)
            await asyncio.Event().wait()

    async with open_pool(database, size=1) as pool:
        async with session(pool):
            waiting = asyncio.get_running_loop().create_task(work())
            await asyncio.sleep(0.01)
        for _ in range(ticks):
            await asyncio.sleep(0)
        waiting.cancel()
        done, _ = await asyncio.wait((waiting,), timeout=10)
        assert done, "the cancellation was lost"
        assert waiting.cancelled()


async def test_every_session_notices_a_network_that_drops_everything(database: Database) -> None:
    async with connected(database.dsn, "test") as short, await open_session(database) as lasting:
        for opened in (short, lasting):
            given = opened.info.get_parameters()
            assert given["tcp_user_timeout"] == "15000"
            assert given["keepalives_idle"] == "10"


async def test_session_whose_opening_is_cancelled_is_closed(
    db: Connection, database: Database
) -> None:
    for half_milliseconds in range(24):
        opening = asyncio.get_running_loop().create_task(open_session(database))
        await asyncio.sleep(half_milliseconds / 2000)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).close()
    await until(lambda: not _sessions(db, database.holder))


@pytest.mark.timeout(60)
async def test_silent_connections_do_not_delay_new_ones(
    db: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        proxy_before(database.dsn) as (dsn, proxy),
        open_pool(replace(database, dsn=dsn), size=2) as pool,
    ):
        async with session(pool), session(pool):
            pass
        proxy.freeze()
        with monkeypatch.context() as brief:
            brief.setattr(connections, "_DEADLINE", timedelta(seconds=0.2))
            with pytest.raises(StoreUnavailableError):
                async with session(pool) as connection:
                    await connection.execute("SELECT 1")
        async with asyncio.timeout(20), session(pool) as connection:
            await connection.execute("SELECT 1")


def _sessions(db: Connection, name: str) -> bool:
    return db.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %s)", (name,)
    ).fetchone() == (True,)


async def test_session_that_waits_does_not_keep_waking_the_loop(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_later = loop.call_later

    def counting(delay: float, *arguments: Any) -> asyncio.TimerHandle:  # noqa: ANN401
        timers.append(delay)
        return call_later(delay, *arguments)

    connection = await open_session(database)
    try:
        monkeypatch.setattr(loop, "call_later", counting)
        assert [each async for each in connection.notifies(timeout=0.5)] == []
        monkeypatch.undo()
        assert len(timers) == 1
        await connection.execute("LISTEN here")
        await connection.execute("NOTIFY here")
        assert [each.channel async for each in connection.notifies(timeout=30, stop_after=1)] == [
            "here"
        ]
    finally:
        await connection.close()
