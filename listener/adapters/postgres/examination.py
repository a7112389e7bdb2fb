"""Looks at the database as a doctor does: what the daemon will need there, changing nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import conninfo, errors, sql
from psycopg.rows import class_row

from listener.adapters.postgres import sessions
from listener.adapters.postgres.connection import reason_of
from listener.adapters.postgres.history import HistoryTable, look_at_history
from listener.adapters.postgres.installation import (
    UnreachableError,
    encoding_of,
    lagging_sequences,
    missing_parts,
)
from listener.adapters.postgres.pooler import keeps_backend
from listener.adapters.postgres.rehearsal import refused_statements, refused_writes
from listener.adapters.postgres.rights import list_hidden, list_rights
from listener.adapters.postgres.statements import query
from listener.adapters.postgres.status import Status, read_status

DOCTOR = "listener-doctor"
_LIMITS = {"statement_timeout": "5s", "lock_timeout": "2s"}
_ARGUMENTS: dict[str, Any] = sessions.arguments(DOCTOR) | {
    # A pooler may run the next statement on another backend, which never saw it prepared.
    "prepare_threshold": None,
}
_ECHO_WITHIN = timedelta(seconds=2)
_WAKEUPS_WITHIN = timedelta(seconds=10)
_CLOCK_LOOKS = 3


class UnreadableError(Exception):
    """A look at the database failed; the message says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server; `version` is like 150016 for 15.16, `clock_ahead` is of this machine's clock."""

    version: int
    version_name: str
    standby: bool
    read_only: bool
    database: str
    encoding: str
    role: str
    deadlock_timeout: timedelta
    clock_ahead: timedelta


@dataclass(frozen=True, slots=True)
class Rights:
    """What is not there at all, and which rights the role lacks on what is.

    Of `hidden` tables row level security may keep rows from it. `refused` are the writes that fail
    in spite of its rights, each with the reason; `untried` says why they were not all tried.
    """

    absent: tuple[str, ...]
    lacking: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    untried: str | None = None


@dataclass(frozen=True, slots=True)
class Wakeups:
    """Whether a NOTIFY came from the session that listens, and from another one.

    `same_backend` tells whether a session stays with one backend of the server while another
    session is at work; a pooler in transaction mode hands them out.
    """

    from_itself: bool
    from_another: bool
    same_backend: bool


@dataclass(frozen=True, slots=True)
class _Reading:
    version: int
    version_name: str
    standby: bool
    read_only: bool
    database: str
    role: str
    deadlock_timeout: timedelta
    at: datetime


@contextmanager
def examining(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect in a transaction that only reads, of statements that take seconds at most.

    Raises `UnreachableError`, with a message that shows nothing of a password.
    """
    with _connected(dsn) as connection, connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        _limit(connection)
        yield connection


@contextmanager
def rehearsing(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect in a transaction that is rolled back; otherwise as `examining`."""
    with _connected(dsn) as connection, connection.transaction(force_rollback=True):
        _limit(connection)
        connection.execute(*sessions.yield_locks(local=True))
        yield connection


@contextmanager
def _connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with _unrevealing(dsn):
        connection = psycopg.connect(dsn, **_ARGUMENTS)
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise UnreachableError(reason_of(error)) from error


def _limit(connection: psycopg.Connection[Any]) -> None:
    # Bound to the transaction: what a session is set to, a pooler would hand to somebody else.
    connection.execute(*sessions.set_up(_LIMITS, local=True))


def read_server(connection: psycopg.Connection[Any], backend: str) -> Server:
    """Read what kind of server this is; the clock is compared on the shortest of some ways."""
    with _looking(connection):
        looks = [_look(connection, backend) for _ in range(_CLOCK_LOOKS)]
    _, ahead, seen = min(looks, key=lambda look: look[0])
    return Server(
        version=seen.version,
        version_name=seen.version_name,
        standby=seen.standby,
        read_only=seen.read_only,
        database=seen.database,
        encoding=encoding_of(connection),
        role=seen.role,
        deadlock_timeout=seen.deadlock_timeout,
        clock_ahead=ahead,
    )


def read_rights(connection: psycopg.Connection[Any], backend: str) -> Rights:
    """Compare the rights of the role with those that a daemon needs, then try each write.

    The connection must be one of `rehearsing`.
    """
    with _looking(connection):
        rights = list_rights(connection, backend)
        hidden = list_hidden(connection, backend)
    found = Rights(
        absent=tuple(dict.fromkeys(right.thing for right in rights if right.granted is None)),
        lacking=tuple(right.label for right in rights if right.granted is False),
        hidden=hidden,
    )
    if found.absent or found.lacking or found.hidden:
        return found
    try:
        with _looking(connection):
            return replace(found, refused=tuple(refused_writes(connection, backend)))
    except UnreadableError as error:
        return replace(found, untried=str(error))


def read_missing(
    connection: psycopg.Connection[Any], backend: str
) -> tuple[list[str], list[str], list[str]]:
    """Return parts of our schema and triggers that are not as shipped, and sequences behind."""
    with _looking(connection):
        missing = missing_parts(connection, backend)
        schema = [part.label for part in missing if part.folder == "schema"]
        # Without our tables there are no rows to hold them against.
        lagging = [] if schema else lagging_sequences(connection, backend)
    return schema, [part.label for part in missing if part.folder == "triggers"], lagging


def read_misdirected(connection: psycopg.Connection[Any], backend: str) -> dict[str, str]:
    """Return foreign keys that refer to a table that was replaced, with what repairs each."""
    with _looking(connection):
        cursor = connection.execute(query("list_misdirected", backend), {"backend": backend})
        return dict(cursor.fetchall())


def read_history(connection: psycopg.Connection[Any], backend: str) -> HistoryTable:
    """Look whether former identities can be kept, and read."""
    with _looking(connection):
        return look_at_history(connection, backend)


def read_refused(connection: psycopg.Connection[Any], backend: str) -> dict[str, list[str]]:
    """Return why the database refuses statements of ours, and which."""
    with _looking(connection):
        return refused_statements(connection, backend)


def read_work(
    connection: psycopg.Connection[Any], backend: str, *, include_null_canonical: bool
) -> Status:
    """Look at what daemons do, and what there is for them to do."""
    with _looking(connection):
        return read_status(connection, backend, include_null_canonical=include_null_canonical)


async def try_wakeups(dsn: str) -> Wakeups:
    """Send wake-ups on a channel of our own, to ourselves and from another session.

    Raises `UnreadableError` if LISTEN is refused, or the server keeps us waiting.
    """
    try:
        async with (
            asyncio.timeout(_WAKEUPS_WITHIN.total_seconds()),
            _session(dsn) as listening,
            _session(dsn) as other,
        ):
            heard = await _heard(listening, other)
            return Wakeups(
                from_itself="itself" in heard,
                from_another="another" in heard,
                same_backend=await asyncio.to_thread(_keeps_its_backend, dsn),
            )
    except (psycopg.Error, UnreachableError, TimeoutError) as error:
        raise UnreadableError(reason_of(error)) from error


@asynccontextmanager
async def _session(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    with _unrevealing(dsn):
        connection = await psycopg.AsyncConnection.connect(dsn, **_ARGUMENTS)
    async with connection:
        yield connection


async def _heard(
    listening: psycopg.AsyncConnection[Any], other: psycopg.AsyncConnection[Any]
) -> set[str]:
    channel = f"listener_doctor_{secrets.token_hex(8)}"
    heard: set[str] = set()
    await listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    try:
        for sender, payload in ((listening, "itself"), (other, "another")):
            await sender.execute("SELECT pg_notify(%s, %s)", (channel, payload))
        loop = asyncio.get_running_loop()
        until = loop.time() + _ECHO_WITHIN.total_seconds()
        while len(heard) < 2 and loop.time() < until:  # noqa: PLR2004 - the two senders
            async for notify in listening.notifies(timeout=until - loop.time(), stop_after=1):
                if notify.channel == channel:
                    heard.add(notify.payload)
    finally:
        # Behind a pooler the backend outlives us.
        await listening.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
    return heard


def _keeps_its_backend(dsn: str) -> bool:
    with _unrevealing(dsn):
        connection = psycopg.connect(dsn, **_ARGUMENTS)
    with connection:
        return keeps_backend(connection)


def _look(
    connection: psycopg.Connection[Any], backend: str
) -> tuple[timedelta, timedelta, _Reading]:
    with connection.cursor(row_factory=class_row(_Reading)) as cursor:
        before = datetime.now(UTC)
        seen = cursor.execute(query("read_server", backend)).fetchall()[0]
        after = datetime.now(UTC)
    return after - before, before + (after - before) / 2 - seen.at, seen


@contextmanager
def _looking(connection: psycopg.Connection[Any]) -> Iterator[None]:
    try:
        # A look that fails must not spoil the transaction for the next one.
        with connection.transaction():
            yield
    except psycopg.Error as error:
        raise UnreadableError(reason_of(error)) from error


@contextmanager
def _unrevealing(dsn: str) -> Iterator[None]:
    """Turn a failure to connect into `UnreachableError` without any part of the password."""
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, errors.OperationalError) and not _may_reveal(dsn, str(error)):
            raise UnreachableError(reason_of(error)) from None
        message = "no connection; does DATABASE_URL have its special characters escaped?"
        raise UnreachableError(message) from None


def _may_reveal(dsn: str, message: str) -> bool:
    # A password with an @, / or % that is not escaped is read as host or port, and quoted as such.
    try:
        conninfo.conninfo_to_dict(dsn)
        parts = urlsplit(dsn)
        password = unquote(parts.password or "")
        plain = parts.netloc.count("@") <= 1 and (parts.port or 1) > 0
    except (psycopg.Error, ValueError):
        return True
    return not plain or (password != "" and password in message)
