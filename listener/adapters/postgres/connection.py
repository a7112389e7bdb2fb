"""Connections to the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import PQGen
from psycopg.types.numeric import Int8BinaryDumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from listener.adapters.postgres import sessions
from listener.adapters.postgres.arrays import register_columns
from listener.adapters.postgres.errors import Refused, spoils_others, translated
from listener.adapters.postgres.sessions import Connection, refuse_pooler
from listener.domain.faults import StatementRefusedError, StoreRefusedError, StoreUnavailableError
from listener.network import is_port

# Longer than statement_timeout: only a server that is out of reach takes this long.
_DEADLINE = timedelta(seconds=20)

_Value = TypeVar("_Value")


class Pool(AsyncConnectionPool[Connection]):
    """A pool that remembers why it could not open a connection."""

    failure: psycopg.Error | None = None


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, and as whom we connect.

    `holder` names this process in `application_name`, so that another one can end its sessions.
    """

    dsn: str
    backend: str
    holder: str
    connect_timeout: timedelta = timedelta(seconds=5)


_LIMITS = {
    "statement_timeout": "15s",
    "idle_in_transaction_session_timeout": "5s",
    # Our sessions are idle for hours, listening or kept for the next change; the lane shows that
    # they are alive.
    "idle_session_timeout": "0",
    # Every statement of ours looks rows up by key. A plan is made once a session, perhaps while the
    # ledger is still empty, and must not scan it once it has grown.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
}


async def _prepare_session(connection: Connection) -> None:
    """Set the limits of a session."""
    await connection.execute(*sessions.set_up(_LIMITS))
    await connection.execute(*sessions.yield_locks())
    # psycopg picks the integer type by value, and would prepare a statement for every mix of types.
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    register_columns(connection.adapters)


def _connection_arguments(database: Database) -> dict[str, Any]:
    """Return the arguments with which we open every connection."""
    return sessions.arguments(database.holder) | {
        "connect_timeout": max(1, round(database.connect_timeout.total_seconds())),
        "prepare_threshold": 0,
    }


class _Patient(psycopg.AsyncConnection[Any]):
    """Sleeps until its timeout; psycopg would wake ten times a second to notice Ctrl-C."""

    async def wait(
        self,
        gen: PQGen[_Value],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's own
    ) -> _Value:
        if timeout is None:
            return await super().wait(gen, interval)
        # A loop is woken by its signals.
        return await super().wait(gen, timeout or interval, timeout)


async def open_session(database: Database) -> Connection:
    """Open a separate connection, outside the pool."""
    connection = await _Patient.connect(database.dsn, **_connection_arguments(database))
    try:
        await _prepare_session(connection)
    except BaseException:
        # Even when cancelled: nothing else refers to it yet.
        await connection.close()
        raise
    return connection


@asynccontextmanager
async def connected(
    dsn: str, name: str, limits: Mapping[str, str] | None = None
) -> AsyncIterator[Connection]:
    """Open a session named `name` for the length of the block.

    Without `limits` the session keeps the server's settings: a pooler would pass ours on to other
    clients. With them, a pooler that shares sessions is refused. Raises `StoreUnavailableError` if
    the database cannot be used, its kind `StoreRefusedError` if it refuses what the block does, and
    `InstallationError` for a pooler.
    """
    with translated():
        async with await _connect(dsn, name) as connection:
            if limits is not None:
                await refuse_pooler(connection)
                await connection.execute(*sessions.set_up(limits))
            yield connection


async def _connect(dsn: str, name: str) -> Connection:
    try:
        # A pooler may run the next statement on another backend, which never saw it prepared.
        return await Connection.connect(dsn, prepare_threshold=None, **sessions.arguments(name))
    except psycopg.Error as error:
        if isinstance(error, errors.OperationalError) and not _may_reveal(dsn, str(error)):
            raise
        message = "cannot connect; are special characters in DATABASE_URL escaped?"
        raise StoreUnavailableError(message) from None


def _may_reveal(dsn: str, message: str) -> bool:
    # A password with an unescaped @, / or % is read as host or port, and quoted as such.
    try:
        read = conninfo.conninfo_to_dict(dsn)
        is_plain = urlsplit(dsn).netloc.count("@") <= 1
    except (psycopg.Error, ValueError):
        return True
    password, ports = str(read.get("password") or ""), str(read.get("port") or "1").split(",")
    return not is_plain or not all(map(is_port, ports)) or (password != "" and password in message)


@asynccontextmanager
async def open_pool(database: Database, size: int) -> AsyncIterator[Pool]:
    """Open a pool of up to `size` connections; it comes up even while the database is down."""

    class Noting(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, conninfo: str = "", **options: Any) -> Self:  # noqa: ANN401 - psycopg's
            pool.failure = None
            try:
                return await super().connect(conninfo, **options)
            except psycopg.Error as error:
                pool.failure = error
                raise

    pool = Pool(
        database.dsn,
        connection_class=Noting,
        kwargs=_connection_arguments(database),
        configure=_prepare_session,
        min_size=1,
        max_size=size,
        timeout=database.connect_timeout.total_seconds(),
        # The pool gives up this early, so that the next caller opens a connection: at once when
        # the server is back, not after a growing delay.
        reconnect_timeout=1.5,
        open=False,
    )
    await pool.open(wait=False)
    try:
        yield pool
    finally:
        await pool.close(timeout=2)


@asynccontextmanager
async def session(
    pool: Pool, refused: type[Refused] = StoreRefusedError
) -> AsyncIterator[Connection]:
    """Borrow a connection for one short piece of work.

    Raises `StoreUnavailableError` if the database cannot be used, `refused` if it refuses what the
    block does: `StatementRefusedError` where rows may be to blame.
    """
    try:
        with translated(refused):
            async with asyncio.timeout(_DEADLINE.total_seconds()), _borrowed(pool) as connection:
                _heed_cancellation()
                try:
                    yield connection
                except BaseException:
                    # After a failed pipeline, psycopg may take a statement for prepared that
                    # is not: what follows would fail for as long as the connection lives.
                    await connection.close()
                    raise
    except (StoreUnavailableError, StatementRefusedError) as fault:
        if isinstance(fault, StoreUnavailableError) or spoils_others(fault.__cause__):
            # One cut or outdated connection seldom comes alone. The others are replaced without a
            # check: behind a proxy that is still up, the answer might never come.
            await pool.drain()
        raise


@asynccontextmanager
async def _borrowed(pool: Pool) -> AsyncIterator[Connection]:
    try:
        async with pool.connection() as connection:
            yield connection
    except PoolTimeout as timeout:
        # If the server refuses a connection, the pool reports only that none was available.
        raise pool.failure or timeout from timeout


def _heed_cancellation() -> None:
    # The pool waits by wait_for, which before Python 3.12 loses a cancellation that meets the
    # connection: the task would go on, and what cancelled it would wait for ever.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
