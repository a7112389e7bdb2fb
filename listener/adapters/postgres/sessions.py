"""Sessions: what each is set up with, whatever the server is set to, and what runs in it."""

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

# What our statements, and psycopg's reading of their results, take for granted. Nothing depends on
# lc_messages, which only a superuser may set: errors are distinguished by their SQLSTATE.
_ALWAYS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    # A policy that hides rows becomes an error: a row that is not seen would count as deleted.
    "row_security": "off",
    # Else the context of every error quotes parameters, which hold the contents of rows; without
    # it, a context shows that a function of the backend's failed.
    "log_parameter_max_length_on_error": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
_SET_UP: LiteralString = (
    "SELECT set_config(name, value, %s) FROM unnest(%s::text[], %s::text[]) AS s (name, value)"
)

# A fifth of the time after which the server looks for deadlocks: 200 ms of its default of 1 s.
_YIELD: LiteralString = (
    "SELECT set_config('lock_timeout', least(%s, greatest(1, round("
    "extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000 / 5)))::text, %s)"
)
_PATIENCE = timedelta(milliseconds=200)
# A pooler that has no other backend to hand out makes us wait for the one that is kept.
_BACKEND_WITHIN = timedelta(seconds=1)
# Once the pooler may give the other session another backend that is free, and ours back to us.
_LOOKS = 5


def arguments(name: str) -> dict[str, Any]:
    """Return what every connection is opened with; `name` is the session's."""
    return {
        "autocommit": True,
        "application_name": name,
        "connect_timeout": 5,
        # Or a network that drops everything would keep us waiting for hours.
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
    """Return the first statement of a session, or with `local` of a transaction.

    One statement of ours, not start-up options: connection poolers refuse those.
    """
    settings = _ALWAYS | dict(limits)
    return _SET_UP, (local, list(settings), list(settings.values()))


def yield_locks(*, local: bool = False) -> tuple[LiteralString, tuple[int, bool]]:
    """Return what lets us wait for a lock so briefly that a deadlock never ends a transaction.

    In any conflict we give up first: the server would end the session that looks first.
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
    """Return the database's time, in a transaction that of its start."""
    now: datetime
    (now,) = await only_row(await connection.execute("SELECT now()"))
    return now


def text_of(part: str, name: str) -> str:
    """Return the text of `sql/<part>/<name>.sql`."""
    return (shipped("sql") / part / f"{name}.sql").read_text(encoding="utf-8")


def compose(text: str, backend: str) -> sql.Composed:
    """Put the name of the backend's schema into a statement of ours."""
    # Only ever called with the contents of our own files.
    return sql.SQL(text).format(backend=sql.Identifier(backend))


@cache
def query(name: str, backend: str) -> bytes:
    """Return `sql/queries/<name>.sql` for the backend schema, as psycopg takes it."""
    return compose(text_of("queries", name), backend).as_bytes(None)


def times_of(ask_again: AskAgain) -> dict[str, timedelta]:
    """Return what our statements call the two times."""
    return {"stale_after": ask_again.resolved, "retry_after": ask_again.unresolved}


async def refuse_pooler(connection: Connection) -> None:
    """Raise `InstallationError` if what we set or lock in a session would reach other clients.

    To be called before anything is: it leaves nothing there itself.
    """
    # A pooler answers for the server at first, with a number of its own.
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
    """Return whether a session stays with one backend while another session is at work."""
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
        # The transaction keeps the backend that a pooler would have handed to us again.
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
