"""The backend's rotation rows, how warm their identities are, and their recorded refreshes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import errors

from listener.adapters.postgres.arrays import Int4s, Int8s, Texts
from listener.adapters.postgres.connection import Database, Pool, session
from listener.adapters.postgres.library import failing_of
from listener.adapters.postgres.locks import REFRESHES
from listener.adapters.postgres.sessions import Connection, only_row, query, read, times_of
from listener.domain.budget import (
    COLD_COST,
    Grant,
    RefreshCause,
    RefreshLimits,
    Spent,
    Wait,
    decide,
)
from listener.domain.change import Stream
from listener.domain.due import AskAgain
from listener.domain.faults import StatementRefusedError
from listener.domain.refreshing import (
    Played,
    Refreshed,
    RefreshStatus,
    RotationCoverage,
    RotationFailure,
    Standing,
)

# An older answer says nothing about how warm an identity is, nor what it costs.
RECENT = timedelta(days=7)
# The cost of an identity is learned from this many identities and calls: few, to learn it soon.
_MEMORY = 60


class PostgresRefreshes:
    """Records refresh calls in `listener.refresh`, and LML's answers in `listener.warmth`."""

    def __init__(self, pool: Pool, database: Database, limits: RefreshLimits) -> None:
        self.limits = limits
        self._pool = pool
        self._holder = database.holder
        self._lock = query("lock_refreshes", database.backend)
        self._read = query("read_refreshes", database.backend)
        self._begin = query("begin_refresh", database.backend)
        self._end = query("end_refresh", database.backend)
        self._note = query("note_warmth", database.backend)

    async def take(self, cause: RefreshCause, *, known: bool, wanted: int) -> Grant | Wait:
        """Decide in a short transaction under a separate lock, which ends before the call."""
        async with session(self._pool) as connection:
            try:
                async with connection.pipeline(), connection.transaction():
                    spent = await self._spent(connection, known=known)
                    decision = decide(self.limits, spent, cause, known=known)
                    if isinstance(decision, Wait):
                        return decision
                    identities = min(decision.identities, wanted)
                    parameters = {
                        "errand": str(cause),
                        "known": known,
                        "holder": self._holder,
                        "identities": identities,
                        # Rounded up.
                        "cost": -(-decision.cost * identities // decision.identities),
                    }
                    entered = await connection.execute(self._begin, parameters)
                (refresh_id,) = await only_row(entered)
            except errors.LockNotAvailable:
                return Wait(self.limits.look_again)
        return Grant(refresh_id, identities)

    async def end(
        self, grant: Grant, *, cost: int, answered: int, refreshed: Mapping[int, Refreshed]
    ) -> None:
        parameters = {"refresh_id": grant.refresh_id, "cost": cost, "answered": answered}
        said = {
            "identity_ids": Int4s(list(refreshed)),
            "statuses": Texts([str(each.status) for each in refreshed.values()]),
        }
        async with session(self._pool) as connection, connection.pipeline():
            await connection.execute(self._end, parameters)
            if refreshed:
                await connection.execute(self._note, said)

    async def _spent(self, connection: Connection, *, known: bool) -> Spent:
        parameters = {
            "known": known,
            "window": self.limits.window,
            "timeout": self.limits.call_timeout,
            "recent": RECENT,
            "memory": _MEMORY,
            "cold_cost": COLD_COST,
        }
        await connection.execute(self._lock, REFRESHES)
        (spent,) = await read(connection, Spent, self._read, parameters)
        return spent


class PostgresRotation:
    """Reads the rows in rotation, and fills in minted identities."""

    def __init__(self, pool: Pool, backend: str, ask_again: AskAgain) -> None:
        self._pool = pool
        self._ask_again = ask_again
        self._read = query("read_rotation", backend)
        self._fill = query("fill_identities", backend)
        self._settle = query("settle_changes", backend)
        self._forget = query("forget_rotation_failures", backend)
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
        await self._handled(self._forget, {"row_ids": Int4s(row_ids)}, entries)

    async def fail(
        self, failures: Sequence[RotationFailure], entries: Sequence[tuple[int, int]]
    ) -> None:
        parameters = {
            "row_ids": Int4s([failure.row_id for failure in failures]),
            "failure_counts": Int4s([failure.retry.failures for failure in failures]),
            "ask_agains": [failure.retry.after.total_seconds() for failure in failures],
            "details": Texts([failure.detail for failure in failures]),
        }
        await self._handled(self._fail, parameters, entries)

    async def _handled(
        self, record: bytes, parameters: dict[str, Any], entries: Sequence[tuple[int, int]]
    ) -> None:
        """Record what became of rows, and settle their changes in the same transaction."""
        settled = {"stream": Stream.ROTATION, "seqs": Int8s([seq for seq, _ in entries])}
        # Statements of one pipeline are one transaction.
        async with session(self._pool) as connection, connection.pipeline():
            await connection.execute(record, parameters)
            await connection.execute(self._settle, settled)

    async def retries(self, limit: int) -> list[int]:
        """Return up to `limit` rows that are due for a retry."""
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
        """Have identities minted for rows that lack one although they could have it."""
        async with session(self._pool) as connection:
            row = await (await connection.execute(self._raise_unminted)).fetchone()
        return row[0] if row else 0

    async def now(self) -> datetime:
        """Return the database's time."""
        async with session(self._pool) as connection:
            moment: datetime
            (moment,) = await only_row(await connection.execute("SELECT clock_timestamp()"))
        return moment
