"""How every session of ours is set up, whatever the server, the database or the role is set to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.abc import Params
from psycopg.rows import class_row

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
