"""Connections to the database, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8BinaryDumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from listener.adapters.postgres.arrays import register_columns
from listener.domain.faults import StoreUnavailableError

# Longer than statement_timeout: only a server that cannot be heard any more takes this long.
_DEADLINE = timedelta(seconds=20)
_CONNECT = "start PostgreSQL, or correct DATABASE_URL"

Pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]]
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is and who we are there.

    `holder` names this process in `application_name`, so that another one can end its sessions.
    """

    dsn: str
    backend: str
    holder: str
    connect_timeout: timedelta = timedelta(seconds=5)


# A lock is waited for shorter than the server's deadlock_timeout (1 s by default): whatever we run
# into, it is us who give up, never a transaction of the backend.
_SESSION = {
    "statement_timeout": "15s",
    "lock_timeout": "200ms",
    "idle_in_transaction_session_timeout": "5s",
    # Every statement of ours looks rows up by key. A plan is made once a session, perhaps while the
    # ledger is still empty, and must not scan it once it has grown.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
    "listener.own_write": "on",
}


async def prepare_session(connection: psycopg.AsyncConnection[Any]) -> None:
    """Set the limits of a session, and mark its writes as our own for the triggers."""
    # One statement of ours, not start-up options: connection poolers refuse those.
    await connection.execute(
        "SELECT set_config(name, value, false)"
        " FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
        (list(_SESSION), list(_SESSION.values())),
    )
    # psycopg picks the integer type by value, and a statement would be prepared for every mix.
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    register_columns(connection.adapters)


def connection_arguments(database: Database) -> dict[str, Any]:
    """Return the arguments that every connection of ours is opened with."""
    return {
        "autocommit": True,
        "application_name": database.holder,
        "connect_timeout": max(1, round(database.connect_timeout.total_seconds())),
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "prepare_threshold": 1,
    }


async def open_session(database: Database) -> psycopg.AsyncConnection[Any]:
    """Open a connection of its own, outside the pool."""
    connection = await psycopg.AsyncConnection.connect(
        database.dsn, **connection_arguments(database)
    )
    try:
        await prepare_session(connection)
    except BaseException:
        # Also when cancelled: nobody else knows of it yet.
        await connection.close()
        raise
    return connection


@asynccontextmanager
async def open_pool(database: Database, size: int) -> AsyncIterator[Pool]:
    """Open a pool of up to `size` connections; it comes up even while the database is down."""
    pool: Pool = AsyncConnectionPool(
        database.dsn,
        kwargs=connection_arguments(database),
        configure=prepare_session,
        min_size=1,
        max_size=size,
        timeout=database.connect_timeout.total_seconds(),
        reconnect_timeout=30,
        open=False,
    )
    await pool.open(wait=False)
    try:
        yield pool
    finally:
        await pool.close(timeout=2)


@asynccontextmanager
async def session(pool: Pool) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Lend a connection for one short piece of work; raises `StoreUnavailableError`."""
    try:
        with translated():
            async with asyncio.timeout(_DEADLINE.total_seconds()), pool.connection() as connection:
                _heed_cancellation()
                yield connection
    except StoreUnavailableError:
        # One cut connection seldom comes alone. The others are not asked, which may take for ever
        # behind a proxy that is alive, but replaced.
        await pool.drain()
        raise


async def only_row(cursor: psycopg.AsyncCursor[_Row]) -> _Row:
    """Return the one row of a statement that always returns one."""
    row = await cursor.fetchone()
    if row is None:
        raise AssertionError("a statement that always returns a row returned none")
    return row


def _heed_cancellation() -> None:
    # The pool waits by wait_for, which before Python 3.12 loses a cancellation that meets the
    # connection; whoever asked for the task to end would wait for it in vain.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def translated() -> Iterator[None]:
    """Turn what psycopg raises when the database is not to be used into the fault that it means.

    A missing right or table is such a case, or a server that only reads: a person has to mend it,
    and until then all waits.
    """
    try:
        yield
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        errors.InsufficientPrivilege,
        errors.ReadOnlySqlTransaction,
        errors.UndefinedTable,
        PoolTimeout,
        TimeoutError,
    ) as error:
        raise StoreUnavailableError(advice_on(error)) from error


def advice_on(error: Exception) -> str:
    """Return what went wrong, and what to do about it where the server cannot be reached."""
    # What the server says itself has a code.
    told = isinstance(error, psycopg.Error) and error.sqlstate is not None
    return reason_of(error) if told else f"{reason_of(error)}; {_CONNECT}"


def reason_of(error: Exception) -> str:
    """Return what went wrong without the contents of any row."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, errors.RaiseException):
        return "a rule of the database's own"
    # The primary message only: the detail of a constraint violation quotes the row, and so may
    # whatever a trigger of the backend says.
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return primary or next(iter(str(error).splitlines()), type(error).__name__)
