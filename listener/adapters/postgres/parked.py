"""Parked rows: lists them, and puts them back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from psycopg import errors

from listener.adapters.postgres.sessions import Connection, read
from listener.adapters.postgres.statements import query
from listener.domain.faults import StoreUnavailableError


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A row that is set aside: its failures in a row, and why and when the last came."""

    library_id: int
    reason: str | None
    detail: str | None
    attempts: int
    last_failed_at: datetime | None


async def list_parked(
    connection: Connection, backend: str, at_most: int | None = None
) -> list[ParkedRow]:
    """Return the parked rows, the longest parked first: all of them, or `at_most` so many."""
    return await read(connection, ParkedRow, query("list_parked", backend), {"at_most": at_most})


async def requeue_parked(
    connection: Connection, backend: str, library_ids: Collection[int] | None
) -> frozenset[int]:
    """Have these rows asked at once, or all that are parked; returns those that were parked.

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
        message = "another transaction keeps the rows locked; nothing was put back, try again"
        raise StoreUnavailableError(message) from error
