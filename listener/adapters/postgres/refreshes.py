"""The book of refresh calls, which is the budget that all processes share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from psycopg import errors

from listener.adapters.postgres.arrays import Int4s, Texts
from listener.adapters.postgres.connection import Database, Pool, session
from listener.adapters.postgres.locks import REFRESHES
from listener.adapters.postgres.sessions import Connection, only_row, read
from listener.adapters.postgres.statements import query
from listener.domain.budget import (
    COLD_COST,
    Grant,
    RefreshCause,
    RefreshLimits,
    Spent,
    Wait,
    decide,
)
from listener.domain.refreshing import Refreshed

# What an identity said longer ago says nothing about how warm it is, nor what it costs.
RECENT = timedelta(days=7)
# So many identities, and calls at most, teach what one costs: few, so that it is learned soon.
_MEMORY = 60


class PostgresRefreshes:
    """Enters refresh calls in `listener.refresh`, and what they came to in `listener.warmth`."""

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
        """Decide in a short transaction under a lock of its own, over before anything is asked."""
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
        await connection.execute(self._lock, REFRESHES.parameters())
        (spent,) = await read(connection, Spent, self._read, parameters)
        return spent
