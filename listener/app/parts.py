"""What every command that asks LML is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from listener.adapters.lml.client import LmlClient, open_lml
from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.due import PostgresDue
from listener.adapters.postgres.housekeeping import PostgresHousekeeping
from listener.adapters.postgres.ledger import PostgresLedger
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.refreshes import PostgresRefreshes
from listener.adapters.postgres.rotation import PostgresRotation
from listener.adapters.postgres.runs import PostgresRuns
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.app.dry import DryRuns, DryVerdicts
from listener.app.identity import session_name
from listener.app.limits import lml_limits, refresh_limits
from listener.domain.asking import IncludeTracks
from listener.domain.change import Stream
from listener.domain.due import AskAgain, Scope
from listener.domain.latest import LatestAnswers
from listener.domain.pacing import LML_BACKOFF, Backoff
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP
from listener.domain.retrying import TOGETHER, RetryPolicy
from listener.domain.room import RoomLimits
from listener.domain.tally import Duty, Tally
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.permits import Permits, Priority
from listener.engine.reconciler import Reconciler, ReconcilerLimits
from listener.engine.refresher import Refresher
from listener.engine.resolver import Resolver, ResolverLimits
from listener.engine.retrier import ReleaseWatch, Retrier
from listener.engine.telemetry import Telemetry, TelemetryFanOut
from listener.engine.tenure import ConsumerLimits
from listener.engine.walker import Walker
from listener.engine.warmer import Warmer
from listener.settings import Settings

# Beside the batches that LML is asked about, those being read and written: no call waits for them.
_BATCHES_ASIDE = 3
# Batches waiting to be handled at all.
_BATCHES_WAITING = 4
_REFRESH_CALLS = 1
# However many calls are in flight: more would wait for the server's cores, and hold memory.
_READING, _WRITING = 4, 8
# Beside those of the batches: one for each feeder, one for each of changes, retries, searches and
# the walk, one for readings and samples.
_OTHER_SESSIONS = 8
# By this no answer holds.
_AT_ONCE = AskAgain(resolved=timedelta(0), unresolved=timedelta(0))


@dataclass(frozen=True, slots=True)
class Parts:
    """Adapters and limits, ready to be joined.

    All that asks LML about one stream shares that stream's circuit. `refreshed` counts identities
    by what LML said of them, `neglected` failures to clear out what nobody needs. `latest`
    keeps what became of changes and retries.
    """

    settings: Settings
    database: Database
    pool: Pool
    lml: LmlClient
    permits: Permits
    reading: Permits
    writing: Permits
    circuits: Mapping[Stream, Circuit]
    refreshed: Counter[str]
    neglected: Counter[Duty]
    outbox: PostgresOutbox
    ask_again: AskAgain
    telemetry: Telemetry
    latest: LatestAnswers = field(default_factory=LatestAnswers)

    @property
    def scope(self) -> Scope:
        """The rows that a daemon searches for: one does it for all, so there are no shares."""
        return Scope(include_null_canonical=self.settings.include_null_canonical)

    @property
    def batch_size(self) -> int:
        """How many rows that are no compilations are asked in one call."""
        with_tracks = self.settings.include_tracks is IncludeTracks.ALL
        return self.settings.va_batch_size if with_tracks else self.settings.batch_size

    @property
    def policy(self) -> RetryPolicy:
        """When a row that failed is tried again."""
        settings = self.settings
        return RetryPolicy(settings.max_attempts, timedelta(days=settings.stale_threshold_days))

    def resolver(self, priority: Priority = Priority.CHANGE) -> Resolver:
        """Make a resolver for what changed, or for what failed before."""
        resolver = self._resolver(priority, dry=False)
        resolver.latest = self.latest
        return resolver

    def library_retriers(self, tally: Tally) -> list[Retrier]:
        """Make what tries again releases that failed, counted in `tally`.

        Those that may interrupt calls have one of their own: nobody else waits for such a call.
        """
        due = PostgresDue(self.pool, self.database.backend, self.ask_again)
        retriers = []
        for suspicion, size in {0: self.settings.batch_size, **TOGETHER}.items():
            resolver = self.resolver(Priority.SEARCH if suspicion else Priority.RETRY)
            resolver.tally = tally
            find = partial(due.retries, suspicion=suspicion)
            circuit = self.circuits[Stream.LIBRARY]
            retriers.append(Retrier(find, resolver.handle, circuit, batch_size=size))
        return retriers

    def rotation_retrier(self, warmer: Warmer) -> Retrier:
        """Make what tries again rotation rows that failed."""
        circuit, size = self.circuits[Stream.ROTATION], LML_REFRESH_BATCH_CAP
        return Retrier(self.rotation().retries, warmer.handle, circuit, batch_size=size)

    def release_watch(self) -> ReleaseWatch:
        """Make what asks again what failed once another release of LML is deployed."""
        ledger = PostgresLedger(self.pool, self.database.backend)
        return ReleaseWatch(self.lml.release, ledger.note_release)

    def reconciler(self, *, dry: bool = False, insisting: bool = False) -> Reconciler:
        """Make what searches for due rows; a dry one asks LML and writes nothing.

        An insisting one asks about what it finds though the last answer may still hold.
        """
        settings = self.settings
        limits = ReconcilerLimits(
            batch_size=self.batch_size,
            compilation_batch_size=settings.va_batch_size,
            batches=settings.lml_max_concurrent + _BATCHES_ASIDE,
        )
        return Reconciler(
            PostgresDue(self.pool, self.database.backend, self.ask_again),
            DryRuns() if dry else PostgresRuns(self.database),
            lambda: self._resolver(Priority.SEARCH, dry=dry, insisting=insisting),
            limits,
            circuit=self.circuits[Stream.LIBRARY],
            telemetry=self.telemetry,
        )

    def library_consumer(self, resolver: Resolver) -> Consumer:
        """Make what follows the library."""
        in_flight = self.settings.lml_max_concurrent + _BATCHES_ASIDE
        limits = self._consumer_limits(self.settings.batch_size, in_flight)
        return Consumer(
            Stream.LIBRARY,
            self.outbox,
            resolver.handle,
            limits,
            telemetry=self.telemetry,
            calls=self.permits.for_changes,
            circuit=self.circuits[Stream.LIBRARY],
            well=self.lml.well,
        )

    def rotation_consumer(self, warmer: Warmer) -> Consumer:
        """Make what follows the rotation."""
        limits = self._consumer_limits(LML_REFRESH_BATCH_CAP, _REFRESH_CALLS)
        return Consumer(
            Stream.ROTATION,
            self.outbox,
            warmer.handle,
            limits,
            telemetry=self.telemetry,
            circuit=self.circuits[Stream.ROTATION],
            well=self.lml.well,
        )

    def warmer(self) -> Warmer:
        """Make what warms the identities of rotation rows."""
        return Warmer(
            rotation=self.rotation(),
            warming=self.lml,
            refresher=self._refresher(),
            circuit=self.circuits[Stream.ROTATION],
            policy=self.policy,
            latest=self.latest,
        )

    def walker(self) -> Walker:
        """Make what walks over all that is being played."""
        return Walker(
            played=self.rotation(),
            refresher=self._refresher(),
            runs=PostgresRuns(self.database),
            min_coverage=self.settings.rotation_min_coverage,
            circuit=self.circuits[Stream.ROTATION],
            telemetry=self.telemetry,
        )

    def rotation(self) -> PostgresRotation:
        """Make what reads and fills the backend's rotation rows."""
        return PostgresRotation(self.pool, self.database.backend, self.ask_again)

    def housekeeping(self) -> PostgresHousekeeping:
        """Make what clears out what nobody needs any more."""
        return PostgresHousekeeping(self.pool, self.database.backend, self.neglected)

    def _refresher(self) -> Refresher:
        limits = refresh_limits(self.settings)
        book = PostgresRefreshes(self.pool, self.database, limits)
        return Refresher(self.lml, book, self.telemetry, self.refreshed)

    def _resolver(self, priority: Priority, *, dry: bool, insisting: bool = False) -> Resolver:
        settings, backend = self.settings, self.database.backend
        ask_again = _AT_ONCE if insisting else self.ask_again
        verdicts = PostgresVerdicts(
            self.pool,
            backend,
            self.ask_again,
            withdraw_on_change=settings.withdraw_on_change,
        )
        return Resolver(
            library=PostgresLibrary(self.pool, backend, ask_again, dry=dry),
            lml=self.lml,
            verdicts=DryVerdicts() if dry else verdicts,
            outbox=self.outbox,
            permit=partial(self.permits.hold, priority),
            reading=partial(self.reading.hold, priority),
            writing=partial(self.writing.hold, priority),
            limits=ResolverLimits(
                settings.va_batch_size,
                self.policy,
                settings.include_tracks,
                # A search groups its rows by itself.
                defer_compilations=priority is Priority.CHANGE,
            ),
            telemetry=self.telemetry,
            circuit=self.circuits[Stream.LIBRARY],
        )

    def _consumer_limits(self, batch_size: int, in_flight: int) -> ConsumerLimits:
        room = RoomLimits(
            capacity=batch_size * (in_flight + _BATCHES_WAITING),
            batch_size=batch_size,
            linger=self.settings.linger,
            cool_down=self.settings.reask_after,
            deferred_size=self.settings.va_batch_size,
        )
        return ConsumerLimits(room, in_flight, self.settings.poll_interval)


@asynccontextmanager
async def open_parts(
    settings: Settings,
    name: str = "listener",
    telemetry: Telemetry | None = None,
    backoff: Backoff = LML_BACKOFF,
) -> AsyncIterator[Parts]:
    """Open the connections to the database and to LML; both may be down.

    Our sessions are named by `session_name`. `backoff` is kept towards LML while
    it fails.
    """
    database = Database(
        dsn=settings.database_url.get_secret_value(),
        backend=settings.wxyc_schema_name,
        holder=session_name(name),
    )
    key = settings.lml_api_key.get_secret_value() if settings.lml_api_key else None
    async with (
        open_pool(database, size=_READING + _WRITING + _OTHER_SESSIONS) as pool,
        open_lml(str(settings.library_metadata_url), key, lml_limits(settings)) as lml,
    ):
        yield Parts(
            settings=settings,
            database=database,
            pool=pool,
            lml=lml,
            permits=Permits(settings.lml_max_concurrent),
            reading=Permits(_READING),
            writing=Permits(_WRITING),
            refreshed=Counter(),
            neglected=Counter(),
            circuits={stream: Circuit(stream, backoff) for stream in Stream},
            outbox=PostgresOutbox(pool, database.backend),
            ask_again=settings.ask_again,
            telemetry=telemetry or TelemetryFanOut(),
        )
