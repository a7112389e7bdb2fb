"""Everything that PostgreSQL keeps for the engine, behind one pool of connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.housekeeping import PostgresHousekeeping
from listener.adapters.postgres.library import PostgresDue, PostgresLibrary
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.rotation import PostgresRefreshes, PostgresRotation
from listener.adapters.postgres.runs import PostgresRuns, PostgresSlots
from listener.adapters.postgres.samples import PostgresSamples
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.budget import RefreshLimits
from listener.domain.due import AskAgain
from listener.domain.tally import Duty

# With this, no answer is fresh.
_AT_ONCE = AskAgain(resolved=timedelta(0), unresolved=timedelta(0))


@dataclass(frozen=True, slots=True)
class Store:
    """Makes the adapters that share a pool. `neglected` counts failures to keep tables small."""

    database: Database
    pool: Pool
    ask_again: AskAgain
    neglected: Counter[Duty] = field(default_factory=Counter)

    def outbox(self) -> PostgresOutbox:
        """Make the outbox."""
        return PostgresOutbox(self.pool, self.database.backend)

    def library(self, *, dry: bool = False, insisting: bool = False) -> PostgresLibrary:
        """Make the reader of questions; for an insisting one, no answer is fresh."""
        ask_again = _AT_ONCE if insisting else self.ask_again
        return PostgresLibrary(self.pool, self.database.backend, ask_again, dry=dry)

    def verdicts(self, *, withdraw_on_change: bool) -> PostgresVerdicts:
        """Make the writer of verdicts."""
        return PostgresVerdicts(
            self.pool,
            self.database.backend,
            self.ask_again,
            withdraw_on_change=withdraw_on_change,
        )

    def due(self) -> PostgresDue:
        """Make the searches for due rows."""
        return PostgresDue(self.pool, self.database.backend, self.ask_again)

    def runs(self) -> PostgresRuns:
        """Make the record of runs."""
        return PostgresRuns(self.database)

    def rotation(self) -> PostgresRotation:
        """Make the reader and writer of the backend's rotation rows."""
        return PostgresRotation(self.pool, self.database.backend, self.ask_again)

    def refreshes(self, limits: RefreshLimits) -> PostgresRefreshes:
        """Make the record of refreshes."""
        return PostgresRefreshes(self.pool, self.database, limits)

    def housekeeping(self) -> PostgresHousekeeping:
        """Make the housekeeping, which keeps our tables small."""
        return PostgresHousekeeping(self.pool, self.database.backend, self.neglected)

    def slots(self) -> PostgresSlots:
        """Make the scheduled times of jobs."""
        return PostgresSlots(self.pool, self.database.backend, self.database.holder)

    def samples(self) -> PostgresSamples:
        """Make the samples for the charts."""
        return PostgresSamples(self.pool, self.database.backend)


@asynccontextmanager
async def open_store(database: Database, size: int, ask_again: AskAgain) -> AsyncIterator[Store]:
    """Open a pool of up to `size` connections; the database may be down."""
    async with open_pool(database, size) as pool:
        yield Store(database, pool, ask_again)
