"""Sessions: their settings, whatever the server's are, and the statements that run in them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Params
from psycopg.rows import class_row

from listener import shipped
from listener.domain.due import AskAgain
from listener.domain.faults import InstallationError, first_of

Connection = psycopg.AsyncConnection[Any]
_Row = TypeVar("_Row")

# What our statements, and psycopg's reading of their results, rely on. Nothing depends on
# lc_messages, which only a superuser may set: errors are distinguished by their SQLSTATE.
_ALWAYS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    # A policy that hides rows becomes an error: a hidden row would count as deleted.
    "row_security": "off",
    # Otherwise the context of every error quotes parameters, which contain row contents. Without
    # it, a context shows that a function of the backend failed.
    "log_parameter_max_length_on_error": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
_SET_UP: LiteralString = (
    "SELECT set_config(name, value, %s) FROM unnest(%s::text[], %s::text[]) AS s (name, value)"
)

# A fifth of the time after which the server checks for deadlocks: 200 ms of its default of 1 s.
_YIELD: LiteralString = (
    "SELECT set_config('lock_timeout', least(%s, greatest(1, round("
    "extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000 / 5)))::text, %s)"
)
_PATIENCE = timedelta(milliseconds=200)
# A pooler without another server process makes us wait for the one that is in use.
_BACKEND_WITHIN = timedelta(seconds=1)
# Often enough that the pooler may give the other session a free server process, and us our own.
_LOOKS = 5


def arguments(name: str) -> dict[str, Any]:
    """Return the arguments with which every connection is opened; `name` is the session's."""
    return {
        "autocommit": True,
        "application_name": name,
        "connect_timeout": 5,
        # Otherwise a network that drops everything would keep us waiting for hours.
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        # Set before the first statement: psycopg cannot even send one in some encodings.
        "client_encoding": "UTF8",
    }


def set_up(
    limits: Mapping[str, str], *, local: bool = False
) -> tuple[LiteralString, tuple[bool, list[str], list[str]]]:
    """Return the first statement of a session, or of a transaction if `local`.

    It is one statement rather than start-up options, which connection poolers refuse.
    """
    settings = _ALWAYS | dict(limits)
    return _SET_UP, (local, list(settings), list(settings.values()))


def yield_locks(*, local: bool = False) -> tuple[LiteralString, tuple[int, bool]]:
    """Return the setting that makes us wait for locks so briefly that no deadlock is broken up.

    In any conflict we give up first: the server would end the session that checks first.
    """
    return _YIELD, (round(_PATIENCE.total_seconds() * 1000), local)


async def read(
    connection: Connection, kind: type[_Row], statement: bytes, parameters: Params | None = None
) -> list[_Row]:
    """Return the rows of a statement, whose columns are the fields of `kind`."""
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()


async def only_row(cursor: psycopg.AsyncCursor[_Row]) -> _Row:
    """Return the one row of a statement that always returns one."""
    row = await cursor.fetchone()
    if row is None:
        raise AssertionError("a statement that always returns a row returned none")
    return row


async def database_now(connection: Connection) -> datetime:
    """Return the database's time; within a transaction, the time of its start."""
    now: datetime
    (now,) = await only_row(await connection.execute("SELECT now()"))
    return now


def text_of(part: str, name: str) -> str:
    """Return the text of `sql/<part>/<name>.sql`."""
    return (shipped("sql") / part / f"{name}.sql").read_text(encoding="utf-8")


def compose(text: str, backend: str) -> sql.Composed:
    """Insert the name of the backend's schema into one of our statements."""
    # Called only with the contents of our own files.
    return sql.SQL(text).format(backend=sql.Identifier(backend))


@cache
def query(name: str, backend: str) -> bytes:
    """Return `sql/queries/<name>.sql` for the backend schema, as psycopg takes it."""
    return compose(text_of("queries", name), backend).as_bytes(None)


def times_of(ask_again: AskAgain) -> dict[str, timedelta]:
    """Return the two times as the parameters of our statements."""
    return {"stale_after": ask_again.resolved, "retry_after": ask_again.unresolved}


async def refuse_pooler(connection: Connection) -> None:
    """Raise `InstallationError` if our session settings and locks would reach other clients.

    Call this before setting or locking anything; it leaves nothing behind itself.
    """
    # A pooler at first answers instead of the server, with a process id of its own.
    if await _backend(connection) == connection.info.backend_pid:
        return
    if not await keeps_backend(connection):
        message = (
            "a pooler in between hands our backend to other clients after each transaction, with "
            "what we set and lock in it; point DATABASE_URL at PostgreSQL itself, or at a pooler "
            "in session mode"
        )
        raise InstallationError(message)


async def keeps_backend(connection: Connection) -> bool:
    """Return whether a session keeps its server process while another session is at work."""
    async with await Connection.connect(
        connection.info.dsn,
        password=connection.info.password,
        autocommit=True,
        prepare_threshold=None,
    ) as other:
        for _ in range(_LOOKS):
            if not await _kept_from(other, connection):
                return False
    return True


async def _kept_from(other: Connection, connection: Connection) -> bool:
    first = await _backend(connection)
    try:
        # The transaction keeps the server process that a pooler would have given us again.
        async with asyncio.TaskGroup() as tasks, other.transaction():
            if await _backend(other) == first:
                return False
            again = tasks.create_task(_backend(connection))
            in_time, _ = await asyncio.wait((again,), timeout=_BACKEND_WITHIN.total_seconds())
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return bool(in_time) and again.result() == first


async def _backend(connection: Connection) -> int:
    (pid,) = await only_row(await connection.execute("SELECT pg_backend_pid()"))
    return int(pid)
