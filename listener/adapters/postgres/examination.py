"""Examines for the doctor what the daemon needs in the database, without changing anything."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from listener.adapters.postgres.connection import connected
from listener.adapters.postgres.errors import translated
from listener.adapters.postgres.history import look_at_history
from listener.adapters.postgres.installation import (
    encoding_of,
    lagging_sequences,
    missing_parts,
)
from listener.adapters.postgres.inventory import list_misdirected
from listener.adapters.postgres.rehearsal import refused_statements, refused_writes
from listener.adapters.postgres.rights import list_hidden, list_rights
from listener.adapters.postgres.sessions import (
    Connection,
    keeps_backend,
    only_row,
    query,
    set_up,
    yield_locks,
)
from listener.adapters.postgres.status import Status, read_status
from listener.domain.database import HistoryTable, Rights, Server, WakeupTrial
from listener.domain.faults import StoreUnavailableError

_DOCTOR = "listener-doctor"
_LIMITS = {"statement_timeout": "5s", "lock_timeout": "2s"}
_ECHO_WITHIN = timedelta(seconds=2)
_WAKEUPS_WITHIN = timedelta(seconds=10)
_CLOCK_LOOKS = 3


@asynccontextmanager
async def examining(dsn: str) -> AsyncIterator[Connection]:
    """Connect in a read-only transaction, whose statements take seconds at most.

    Raises as `connected` does, and so does everything that reads the database here.
    """
    async with connected(dsn, _DOCTOR) as connection, connection.transaction():
        await connection.execute("SET TRANSACTION READ ONLY")
        await connection.execute(*set_up(_LIMITS, local=True))
        yield connection


@asynccontextmanager
async def rehearsing(dsn: str) -> AsyncIterator[Connection]:
    """Connect in a transaction that is rolled back; otherwise as `examining`."""
    async with connected(dsn, _DOCTOR) as connection, connection.transaction(force_rollback=True):
        await connection.execute(*set_up(_LIMITS, local=True))
        await connection.execute(*yield_locks(local=True))
        yield connection


async def read_server(connection: Connection, backend: str) -> Server:
    """Read what kind of server this is; its clock is read several times, and the fastest counts."""
    async with _looking(connection):
        looks = [await _look(connection, backend) for _ in range(_CLOCK_LOOKS)]
    _, ahead, seen = min(looks, key=lambda look: look[0])
    return Server(**seen, encoding=encoding_of(connection), clock_ahead=ahead)


async def read_rights(connection: Connection, backend: str) -> Rights:
    """Compare the role's rights with those that a daemon needs, then test each write.

    The connection must be one of `rehearsing`.
    """
    async with _looking(connection):
        rights = await list_rights(connection, backend)
        hidden = await list_hidden(connection, backend)
    found = Rights(
        absent=tuple(dict.fromkeys(right.thing for right in rights if right.granted is None)),
        lacking=tuple(right.label for right in rights if right.granted is False),
        hidden=hidden,
    )
    if found.absent or found.lacking or found.hidden:
        return found
    try:
        async with _looking(connection):
            refused = [each async for each in refused_writes(connection, backend)]
            return replace(found, refused=tuple(refused))
    except StoreUnavailableError as error:
        return replace(found, untried=str(error))


async def read_missing(
    connection: Connection, backend: str
) -> tuple[list[str], list[str], list[str]]:
    """Return the parts of our schema and triggers that differ from ours, and lagging sequences."""
    async with _looking(connection):
        missing = await missing_parts(connection, backend)
        schema = [part.label for part in missing if part.folder == "schema"]
        # Without our tables there are no rows to compare them with.
        lagging = [] if schema else await lagging_sequences(connection, backend)
    return schema, [part.label for part in missing if part.folder == "triggers"], lagging


async def read_misdirected(connection: Connection, backend: str) -> dict[str, str]:
    """Return foreign keys that refer to a replaced table, each with what repairs it."""
    async with _looking(connection):
        return await list_misdirected(connection, backend)


async def read_history(connection: Connection, backend: str) -> HistoryTable:
    """Examine whether former identities can be kept, and read."""
    async with _looking(connection):
        return await look_at_history(connection, backend)


async def read_refused(connection: Connection, backend: str) -> dict[str, list[str]]:
    """Return the reasons why the database refuses our statements, each with their names."""
    async with _looking(connection):
        return await refused_statements(connection, backend)


async def read_work(
    connection: Connection, backend: str, *, include_null_canonical: bool
) -> Status:
    """Read what the daemons are doing, and what work there is."""
    async with _looking(connection):
        return await read_status(connection, backend, include_null_canonical=include_null_canonical)


async def try_wakeups(dsn: str) -> WakeupTrial:
    """Send wake-ups on a channel of our own, from our session and from another.

    Raises `StoreUnavailableError` if LISTEN is refused, or the server keeps us waiting.
    """
    with translated():
        async with (
            asyncio.timeout(_WAKEUPS_WITHIN.total_seconds()),
            connected(dsn, _DOCTOR) as listening,
            connected(dsn, _DOCTOR) as other,
            connected(dsn, _DOCTOR) as third,
        ):
            heard = await _heard(listening, other)
            return WakeupTrial(
                from_itself="itself" in heard,
                from_another="another" in heard,
                same_backend=await keeps_backend(third),
            )


async def _heard(listening: Connection, other: Connection) -> set[str]:
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
        # Behind a pooler, the server process outlives our session.
        await listening.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
    return heard


async def _look(
    connection: Connection, backend: str
) -> tuple[timedelta, timedelta, dict[str, Any]]:
    before = datetime.now(UTC)
    async with connection.cursor(row_factory=dict_row) as cursor:
        seen = await only_row(await cursor.execute(query("read_server", backend)))
    after = datetime.now(UTC)
    return after - before, before + (after - before) / 2 - seen.pop("at"), seen


@asynccontextmanager
async def _looking(connection: Connection) -> AsyncIterator[None]:
    # A failed check must not spoil the transaction for the next one.
    with translated():
        async with connection.transaction():
            yield
