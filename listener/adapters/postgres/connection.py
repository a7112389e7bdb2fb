"""Connections to the database, and what their errors mean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from psycopg import conninfo, errors
from psycopg.types.numeric import Int8BinaryDumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from listener.adapters.postgres import sessions
from listener.adapters.postgres.arrays import register_columns
from listener.adapters.postgres.pooler import refuse_pooler
from listener.adapters.postgres.sessions import Connection
from listener.domain.faults import StatementRefusedError, StoreRefusedError, StoreUnavailableError
from listener.network import is_port

# Longer than statement_timeout: only a server that cannot be heard any more takes this long.
_DEADLINE = timedelta(seconds=20)
CONNECT = "start PostgreSQL, or correct DATABASE_URL"

_LOGIN = "correct DATABASE_URL, or the limit of connections, or wait, as the server says"
# Of a login that is refused psycopg passes on no SQLSTATE, and the server speaks its own language.
# Only what it says itself begins with a severity and two blanks.
_SAID_AT_LOGIN = re.compile(r"(^|failed: )[^\s:][^:\n]*:  ", re.MULTILINE)
Refused = StoreUnavailableError | StatementRefusedError

# Classes of SQLSTATE that mean the database itself: connection, a server that only reads,
# resources, an operator's hand, the system. All others are about the statement.
_SERVICE_CLASSES = frozenset(("08", "25", "53", "57", "58"))
# What the statement itself, whatever the rows, cannot do: a missing right, column or index; an
# outdated plan; a table that is no longer one, or lacks the key that its publication needs.
_STATEMENT_CLASSES, _NOT_READY = frozenset(("0A", "26", "42")), "55000"
# A session's plan or catalogue is outdated; internal errors.
_SESSION_CLASSES = _STATEMENT_CLASSES | {"XX"}
# What a verdict may leave empty. Any other value that a table demands is wanted of every row.
_OPTIONAL = frozenset(
    (
        *("wikidata_qid", "spotify_id", "apple_music_id"),
        *("track_artist_id", "track_artist_link_confidence", "track_position"),
    )
)
_DATA_CLASS, _TOO_LONG = "22", "22001"


class Pool(AsyncConnectionPool[Connection]):
    """A pool that remembers why it could open no connection."""

    failure: psycopg.Error | None = None


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is and who we are there.

    `holder` names this process in `application_name`, so that another one can end its sessions.
    """

    dsn: str
    backend: str
    holder: str
    connect_timeout: timedelta = timedelta(seconds=5)


_LIMITS = {
    "statement_timeout": "15s",
    "idle_in_transaction_session_timeout": "5s",
    # Ours are idle for hours, listening or kept for the next change, and show that they live.
    "idle_session_timeout": "0",
    # Every statement of ours looks rows up by key. A plan is made once a session, perhaps while the
    # ledger is still empty, and must not scan it once it has grown.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
}


async def prepare_session(connection: Connection) -> None:
    """Set the limits of a session."""
    await connection.execute(*sessions.set_up(_LIMITS))
    await connection.execute(*sessions.yield_locks())
    # psycopg picks the integer type by value, and a statement would be prepared for every mix.
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    register_columns(connection.adapters)


def connection_arguments(database: Database) -> dict[str, Any]:
    """Return the arguments that every connection of ours is opened with."""
    return sessions.arguments(database.holder) | {
        "connect_timeout": max(1, round(database.connect_timeout.total_seconds())),
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "prepare_threshold": 0,
    }


async def open_session(database: Database) -> Connection:
    """Open a connection of its own, outside the pool."""
    connection = await Connection.connect(database.dsn, **connection_arguments(database))
    try:
        await prepare_session(connection)
    except BaseException:
        # Also when cancelled: nobody else knows of it yet.
        await connection.close()
        raise
    return connection


@asynccontextmanager
async def connected(
    dsn: str, name: str, limits: Mapping[str, str] | None = None
) -> AsyncIterator[Connection]:
    """Open a session named `name` for the length of the block.

    Without `limits` it is left as the server sets it up: a pooler would hand our settings to other
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
        message = "no connection; does DATABASE_URL have its special characters escaped?"
        raise StoreUnavailableError(message) from None


def _may_reveal(dsn: str, message: str) -> bool:
    # A password with an @, / or % that is not escaped is read as host or port, and quoted as such.
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
        kwargs=connection_arguments(database),
        configure=prepare_session,
        min_size=1,
        max_size=size,
        timeout=database.connect_timeout.total_seconds(),
        # Given up so early, a connection is opened by the next caller that needs one: at once when
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
            async with asyncio.timeout(_DEADLINE.total_seconds()), _lent(pool) as connection:
                _heed_cancellation()
                try:
                    yield connection
                except BaseException:
                    # After a pipeline that failed psycopg may take a statement for prepared that
                    # is not: what follows would fail for as long as the connection lives.
                    await connection.close()
                    raise
    except (StoreUnavailableError, StatementRefusedError) as fault:
        if isinstance(fault, StoreUnavailableError) or _spoils_others(fault.__cause__):
            # One cut or outdated connection seldom comes alone. The others are replaced unasked:
            # behind a proxy that lives on an answer may never come.
            await pool.drain()
        raise


@asynccontextmanager
async def _lent(pool: Pool) -> AsyncIterator[Connection]:
    try:
        async with pool.connection() as connection:
            yield connection
    except PoolTimeout as timeout:
        # Of a connection that the server refuses the pool says only that none was to be had.
        raise pool.failure or timeout from timeout


def _heed_cancellation() -> None:
    # The pool waits by wait_for, which before Python 3.12 loses a cancellation that meets the
    # connection: the task would go on, and what cancelled it would wait for ever.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def translated(refused: type[Refused] = StoreRefusedError) -> Iterator[None]:
    """Turn what psycopg raises into the fault that it means.

    That is `StoreUnavailableError` if the database cannot be used at all, `StoreRefusedError` if it
    refuses the statement whatever the rows, else `refused`.
    """
    try:
        yield
    except (psycopg.Error, PoolTimeout, TimeoutError) as error:
        if _is_about_the_service(error):
            raise _unavailable(error) from error
        about_rows = not _is_about_the_statement(error)
        raise (refused if about_rows else StoreRefusedError)(reason_of(error)) from error


def _unavailable(error: Exception) -> StoreUnavailableError:
    """Return the fault of a database that cannot be used, or does not let us in."""
    return (StoreRefusedError if _is_turned_away(error) else StoreUnavailableError)(
        advice_on(error)
    )


def _is_turned_away(error: Exception) -> bool:
    if not isinstance(error, psycopg.OperationalError):
        return False
    if error.sqlstate is None:
        return _SAID_AT_LOGIN.search(str(error)) is not None
    return isinstance(error, errors.TooManyConnections)


def _is_about_the_service(error: Exception) -> bool:
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    if code is None:
        # Not from the server: a connection was lost, or none was to be had in time.
        return not isinstance(error, psycopg.ProgrammingError | psycopg.DataError)
    # A trigger of the backend may refuse a row with any code.
    return (
        code[:2] in _SERVICE_CLASSES
        and not isinstance(error, errors.QueryCanceled)
        and not _is_raised_by_a_rule(error)
    )


def _is_about_the_statement(error: Exception) -> bool:
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return False
    if error.diag.context is not None:
        # Inside a function, perhaps a trigger of the backend, which sees the row.
        return False
    if isinstance(error, errors.NotNullViolation):
        return error.diag.column_name not in _OPTIONAL
    return error.sqlstate[:2] in _STATEMENT_CLASSES or error.sqlstate == _NOT_READY


def _is_raised_by_a_rule(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and error.diag.source_function == "exec_stmt_raise"


def _spoils_others(error: BaseException | None) -> bool:
    """Return whether the same will fail in all other sessions until they are replaced."""
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    return code is not None and code[:2] in _SESSION_CLASSES


def advice_on(error: Exception) -> str:
    """Return what went wrong, and what to do about it where the server cannot be reached."""
    reason = reason_of(error)
    if _is_turned_away(error):
        return f"{reason}; {_LOGIN}"
    # What the server says itself has a code, but for what it says before the session begins.
    told = isinstance(error, psycopg.Error) and error.sqlstate is not None
    return reason if told else f"{reason}; {CONNECT}"


def _quotes_values(code: str | None) -> bool:
    """Return whether the primary message of a SQLSTATE may quote what a row holds.

    Those of data exceptions do, but for the one about a text that is too long; all others name
    tables, columns, functions and rights at most.
    """
    return code is not None and code[:2] == _DATA_CLASS and code != _TOO_LONG


def reason_of(error: Exception) -> str:
    """Return what went wrong without the contents of any row."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, psycopg.Error) and _is_raised_by_a_rule(error):
        return f"a rule of the database's own ({error.sqlstate})"
    if isinstance(error, psycopg.Error) and _quotes_values(error.sqlstate):
        return f"{type(error).__name__} ({error.sqlstate})"
    # The primary message only: the detail of a constraint violation quotes the row, and so may
    # whatever a trigger of the backend says.
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return primary or next(iter(str(error).splitlines()), type(error).__name__)
