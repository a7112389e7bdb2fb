"""Parked rows: lists them, and puts them back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from listener.adapters.postgres.statements import query
from listener.domain.faults import StoreUnavailableError

# Names of sessions; with a hyphen, because those are no replicas.
PARKED, REQUEUE = "listener-parked", "listener-requeue"


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A row that is set aside: its failures in a row, and why and when the last came."""

    library_id: int
    reason: str | None
    detail: str | None
    attempts: int
    last_failed_at: datetime | None


def list_parked(
    connection: psycopg.Connection[Any], backend: str, at_most: int | None = None
) -> list[ParkedRow]:
    """Return the parked rows, the longest parked first: all of them, or `at_most` so many."""
    with connection.cursor(row_factory=class_row(ParkedRow)) as cursor:
        return cursor.execute(query("list_parked", backend), {"at_most": at_most}).fetchall()


def requeue_parked(
    connection: psycopg.Connection[Any], backend: str, library_ids: Collection[int] | None
) -> frozenset[int]:
    """Have these rows asked at once, or all that are parked; returns those that were parked.

    The connection must be outside of a transaction. Raises `StoreUnavailableError` if another
    transaction keeps the rows locked.
    """
    ids = None if library_ids is None else list(library_ids)
    try:
        with connection.transaction():
            cursor = connection.execute(query("requeue_parked", backend), {"library_ids": ids})
            return frozenset(library_id for library_id, _ in cursor.fetchall())
    except errors.LockNotAvailable as error:
        message = "another transaction keeps the rows locked; nothing was put back, try again"
        raise StoreUnavailableError(message) from error
