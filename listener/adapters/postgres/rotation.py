"""The backend's rotation rows, and how warm their identities are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from psycopg import errors

from listener.adapters.postgres.arrays import Int4s, Int8s, Texts
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.library import failing_of
from listener.adapters.postgres.refreshes import RECENT
from listener.adapters.postgres.sessions import only_row, read
from listener.adapters.postgres.statements import query, times_of
from listener.domain.due import AskAgain
from listener.domain.faults import StatementRefusedError
from listener.domain.refreshing import (
    Played,
    RefreshStatus,
    RotationCoverage,
    RotationFailure,
    Standing,
)


class PostgresRotation:
    """Reads what is being played, and fills in identities that were minted."""

    def __init__(self, pool: Pool, backend: str, ask_again: AskAgain) -> None:
        self._pool = pool
        self._ask_again = ask_again
        self._read = query("read_rotation", backend)
        self._fill = query("fill_identities", backend)
        self._settle = query("settle_rotation", backend)
        self._fail = query("record_rotation_failures", backend)
        self._failed = query("find_failed_rotation", backend)
        self._find = query("find_identities", backend)
        self._count = query("count_rotation", backend)
        self._raise_releases = query("raise_due_releases", backend)
        self._raise_unminted = query("raise_unminted", backend)

    async def read(self, row_ids: Sequence[int]) -> list[Played]:
        async with session(self._pool) as connection:
            parameters = {"row_ids": Int4s(row_ids), "recent": RECENT}
            rows = await (await connection.execute(self._read, parameters)).fetchall()
        return [
            Played(row_id, identity, release, album, known, failing_of(*failing), artist, title)
            for row_id, identity, release, album, artist, title, known, *failing in rows
        ]

    async def settle(self, entries: Sequence[tuple[int, int]], row_ids: Sequence[int]) -> None:
        parameters = {"seqs": Int8s([seq for seq, _ in entries]), "row_ids": Int4s(row_ids)}
        async with session(self._pool) as connection:
            await connection.execute(self._settle, parameters)

    async def fail(
        self, failures: Sequence[RotationFailure], entries: Sequence[tuple[int, int]]
    ) -> None:
        parameters = {
            "row_ids": Int4s([failure.row_id for failure in failures]),
            "failure_counts": Int4s([failure.retry.failures for failure in failures]),
            "ask_agains": [failure.retry.after.total_seconds() for failure in failures],
            "details": Texts([failure.detail for failure in failures]),
            "seqs": Int8s([seq for seq, _ in entries]),
        }
        async with session(self._pool) as connection:
            await connection.execute(self._fail, parameters)

    async def retries(self, limit: int) -> list[int]:
        """Return up to `limit` rows whose time to be tried again has come."""
        async with session(self._pool) as connection:
            rows = await (await connection.execute(self._failed, {"limit": limit})).fetchall()
        return [row[0] for row in rows]

    async def fill(self, minted: Mapping[int, int], rows: Sequence[Played]) -> dict[int, bool]:
        """Skip locked rows instead of waiting for them."""
        releases = [(row.row_id, row.discogs_release_id or 0) for row in rows]
        parameters = {
            "row_ids": Int4s([row_id for row_id, _ in releases]),
            "release_ids": Int4s([release for _, release in releases]),
            "identity_ids": Int4s([minted[release] for _, release in releases]),
        }
        async with session(self._pool, StatementRefusedError) as connection:
            try:
                return dict(await (await connection.execute(self._fill, parameters)).fetchall())
            except errors.LockNotAvailable:
                # A trigger of the backend updates a row that a long import of its own keeps locked.
                return {}

    async def identities(self, since: datetime) -> dict[int, Standing]:
        async with session(self._pool) as connection:
            parameters = {"since": since, "recent": RECENT}
            found = await (await connection.execute(self._find, parameters)).fetchall()
        return {
            identity: Standing(known, None if answered is None else RefreshStatus(answered))
            for identity, known, answered in found
        }

    async def coverage(self) -> RotationCoverage:
        async with session(self._pool) as connection:
            (coverage,) = await read(connection, RotationCoverage, self._count)
        return coverage

    async def raise_releases(self, library_ids: Sequence[int]) -> int:
        parameters = {"library_ids": Int4s(library_ids)} | times_of(self._ask_again)
        async with session(self._pool) as connection:
            row = await (await connection.execute(self._raise_releases, parameters)).fetchone()
        return row[0] if row else 0

    async def raise_unminted(self) -> int:
        """Have identities minted for rows that lack one though they could have it."""
        async with session(self._pool) as connection:
            row = await (await connection.execute(self._raise_unminted)).fetchone()
        return row[0] if row else 0

    async def now(self) -> datetime:
        """Return the database's time."""
        async with session(self._pool) as connection:
            moment: datetime
            (moment,) = await only_row(await connection.execute("SELECT clock_timestamp()"))
        return moment
