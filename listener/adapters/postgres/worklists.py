"""Worklists, and parked rows: entries that a person can do something about."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import LiteralString

from psycopg import errors
from psycopg.rows import class_row

from listener.adapters.postgres.history import look_at_history
from listener.adapters.postgres.sessions import Connection, query, read
from listener.domain.faults import InstallationError, StoreUnavailableError


class Worklist(StrEnum):
    """What to list, under the names that the command takes."""

    UNRESOLVED = "unresolved"
    LOW_CONFIDENCE = "low-confidence"
    ROTATION = "rotation"
    CREDITS = "credits"
    REPLACED = "replaced"
    PARKED = "parked"


_STATEMENTS = {
    Worklist.UNRESOLVED: "list_unresolved",
    Worklist.LOW_CONFIDENCE: "list_low_confidence",
    Worklist.ROTATION: "list_unidentified_rotation",
    Worklist.CREDITS: "list_unmatched_credits",
    Worklist.REPLACED: "list_replaced",
    Worklist.PARKED: "list_parked_releases",
}


_PART = 500
_SLOW_READER = "75s"
_IDLE: LiteralString = "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"
_EVER_IDLE: LiteralString = "SET idle_session_timeout = 0"


@dataclass(frozen=True, slots=True)
class ListedRelease:
    """One entry: `why` it is listed, and since when.

    `row_id` is the id in the library, or in the rotation on that list; `library_id` is None for a
    rotation row without a library row. Artist and title are missing if the row is gone, or was
    never named.
    """

    row_id: int
    artist_name: str | None
    album_title: str | None
    letters: str | None
    since: datetime | None
    why: str
    library_id: int | None


async def read_worklist(
    connection: Connection,
    backend: str,
    worklist: Worklist,
    *,
    below: float,
    limit: int,
    skip: int = 0,
) -> Sequence[ListedRelease]:
    """Return `limit` entries after the first `skip`, the most urgent first.

    The list of low confidence has identities with a confidence less than `below` (0..1). Raises
    `InstallationError` if former identities are requested, but the backend keeps none.
    """
    await _require(connection, backend, worklist)
    parameters = {"below": below, "limit": limit, "skip": skip}
    return await read(connection, ListedRelease, query(_STATEMENTS[worklist], backend), parameters)


async def stream_worklist(
    connection: Connection,
    backend: str,
    worklist: Worklist,
    *,
    below: float,
    part: int = _PART,
    held: bool = False,
) -> AsyncGenerator[Sequence[ListedRelease], None]:
    """Yield all entries, as of one time, in parts of `part`; otherwise like `read_worklist`.

    A caller may spend any time on the last part, and up to 75 s on each part before that; any time
    on each if the list is `held`: the server then keeps a copy of it instead of a transaction.
    """
    await _require(connection, backend, worklist)
    parameters = {"below": below, "limit": None, "skip": 0}
    rows = class_row(ListedRelease)
    async with (
        _idling(connection, held=held),
        connection.cursor("worklist", row_factory=rows, withhold=held) as cursor,
    ):
        await cursor.execute(query(_STATEMENTS[worklist], backend), parameters)
        while len(listed := await cursor.fetchmany(part)) == part:
            yield listed
    if listed:
        yield listed


@asynccontextmanager
async def _idling(connection: Connection, *, held: bool) -> AsyncIterator[None]:
    """Let the session be idle while a slow client reads: in a transaction, unless `held`."""
    if held:
        await connection.execute(_EVER_IDLE)
        yield
        return
    async with connection.transaction():
        await connection.execute(_IDLE, (_SLOW_READER,))
        yield


async def _require(connection: Connection, backend: str, worklist: Worklist) -> None:
    if worklist is Worklist.REPLACED:
        history = await look_at_history(connection, backend)
        if history.obstacle is not None:
            raise InstallationError(f"former identities are not kept: {history.obstacle}")


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A parked row: its consecutive failures, and the reason and time of the last."""

    library_id: int
    reason: str | None
    detail: str | None
    attempts: int
    last_failed_at: datetime | None


async def list_parked(
    connection: Connection, backend: str, at_most: int | None = None
) -> list[ParkedRow]:
    """Return the parked rows, the longest parked first: all of them, or `at_most`."""
    return await read(connection, ParkedRow, query("list_parked", backend), {"at_most": at_most})


async def requeue_parked(
    connection: Connection, backend: str, library_ids: Collection[int] | None
) -> frozenset[int]:
    """Requeue these rows, or all that are parked; return those that were parked.

    The connection must be outside of a transaction. Raises `StoreUnavailableError` if another
    transaction keeps the rows locked.
    """
    ids = None if library_ids is None else list(library_ids)
    try:
        async with connection.transaction():
            cursor = await connection.execute(
                query("requeue_parked", backend), {"library_ids": ids}
            )
            return frozenset(library_id for library_id, _ in await cursor.fetchall())
    except errors.LockNotAvailable as error:
        message = "another transaction keeps the rows locked; nothing was requeued, try again"
        raise StoreUnavailableError(message) from error
