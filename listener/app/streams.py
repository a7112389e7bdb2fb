"""Joins the parts that ask about a stream: its changes, its due rows, and its failed rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from listener.app.parts import BATCHES_ASIDE, REFRESH_CALLS, Parts, consumer_limits, refresh_limits
from listener.domain.change import Stream
from listener.domain.due import RunKind, Scope
from listener.domain.question import IncludeTracks
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP, RotationTally
from listener.domain.retrying import TOGETHER, Failure
from listener.domain.tally import Tally
from listener.domain.verdict import VerdictBatch, Written
from listener.engine.circuit import Priority
from listener.engine.consumer import Consumer
from listener.engine.reconciler import Reconciler
from listener.engine.refresher import Refresher
from listener.engine.resolver import Resolver
from listener.engine.retrier import Retrier, note_release, watch_releases
from listener.engine.walker import Walker
from listener.engine.warmer import Warmer


@dataclass(frozen=True, slots=True)
class LibraryParts:
    """Joins the parts that ask about the library."""

    parts: Parts

    @property
    def scope(self) -> Scope:
        """The rows that a daemon searches for: one daemon searches for all, without shares."""
        return Scope(include_null_canonical=self.parts.settings.include_null_canonical)

    @property
    def batch_size(self) -> int:
        """How many rows other than compilations are asked about in one call."""
        with_tracks = self.parts.settings.include_tracks is IncludeTracks.ALL
        return self.parts.settings.va_batch_size if with_tracks else self.parts.settings.batch_size

    def resolver(self, priority: Priority = Priority.CHANGE) -> Resolver:
        """Make a resolver for changed or previously failed rows."""
        resolver = self._resolver(priority, dry=False)
        resolver.latest = self.parts.latest
        return resolver

    def retriers(self, tally: Tally) -> list[Retrier]:
        """Make the retriers of failed releases, which count in `tally`.

        Releases that may interrupt calls have a separate one, so that no others wait for such a
        call.
        """
        due = self.parts.store.due()
        retriers = []
        for suspicion, size in {0: self.parts.settings.batch_size, **TOGETHER}.items():
            resolver = self.resolver(Priority.SEARCH if suspicion else Priority.RETRY)
            resolver.tally = tally
            find = partial(due.retries, suspicion=suspicion)
            circuit = self.parts.circuits[Stream.LIBRARY]
            retriers.append(Retrier(find, resolver.handle, circuit, batch_size=size))
        return retriers

    async def note_release(self) -> None:
        """Have rows that failed asked again if another release of LML was deployed."""
        await note_release(self.parts.lml.release, self.parts.store.due().note_release)

    async def watch_releases(self) -> None:
        """Do that at once and every minute until cancelled."""
        await watch_releases(self.parts.lml.release, self.parts.store.due().note_release)

    def reconciler(self, *, dry: bool = False, insisting: bool = False) -> Reconciler:
        """Make the search for due rows; a dry one asks LML but writes nothing.

        An insisting one asks about the rows it finds although the last answer may still hold.
        """
        settings = self.parts.settings
        return Reconciler(
            self.parts.store.due(),
            _DryRuns() if dry else self.parts.store.runs(),
            lambda: self._resolver(Priority.SEARCH, dry=dry, insisting=insisting),
            batch_size=self.batch_size,
            compilation_batch_size=settings.va_batch_size,
            batches=settings.lml_max_concurrent + BATCHES_ASIDE,
            circuit=self.parts.circuits[Stream.LIBRARY],
            telemetry=self.parts.telemetry,
        )

    def consumer(self, resolver: Resolver) -> Consumer:
        """Make the consumer of the library."""
        in_flight = self.parts.settings.lml_max_concurrent + BATCHES_ASIDE
        limits = consumer_limits(self.parts.settings, self.parts.settings.batch_size, in_flight)
        return Consumer(
            Stream.LIBRARY,
            self.parts.store.outbox(),
            resolver.handle,
            limits,
            telemetry=self.parts.telemetry,
            calls=self.parts.permits.for_changes,
            circuit=self.parts.circuits[Stream.LIBRARY],
            well=self.parts.lml.well,
        )

    def _resolver(self, priority: Priority, *, dry: bool, insisting: bool = False) -> Resolver:
        settings, store = self.parts.settings, self.parts.store
        verdicts = store.verdicts(withdraw_on_change=settings.withdraw_on_change)
        # Changes and retries never wait to be read until a call of a search has ended.
        ahead = partial(self.parts.ahead.hold, priority)
        return Resolver(
            library=store.library(dry=dry, insisting=insisting),
            lml=self.parts.lml,
            verdicts=_DryVerdicts() if dry else verdicts,
            outbox=self.parts.store.outbox(),
            permit=partial(self.parts.permits.hold, priority),
            ahead=ahead if priority is Priority.SEARCH else nullcontext,
            reading=partial(self.parts.reading.hold, priority),
            writing=partial(self.parts.writing.hold, priority),
            compilation_batch_size=settings.va_batch_size,
            policy=self.parts.policy,
            include_tracks=settings.include_tracks,
            # A search groups its rows by itself.
            defer_compilations=priority is Priority.CHANGE,
            telemetry=self.parts.telemetry,
            circuit=self.parts.circuits[Stream.LIBRARY],
        )


@dataclass(frozen=True, slots=True)
class RotationParts:
    """Joins the parts that follow and walk the rotation."""

    parts: Parts

    def warmer(self) -> Warmer:
        """Make the warmer of rotation rows."""
        return Warmer(
            rotation=self.parts.store.rotation(),
            warming=self.parts.lml,
            refresher=self._refresher(),
            circuit=self.parts.circuits[Stream.ROTATION],
            policy=self.parts.policy,
            latest=self.parts.latest,
        )

    def walker(self) -> Walker:
        """Make the walker over the rotation."""
        return Walker(
            played=self.parts.store.rotation(),
            refresher=self._refresher(),
            runs=self.parts.store.runs(),
            min_coverage=self.parts.settings.rotation_min_coverage,
            circuit=self.parts.circuits[Stream.ROTATION],
            telemetry=self.parts.telemetry,
        )

    def consumer(self, warmer: Warmer) -> Consumer:
        """Make the consumer of the rotation."""
        limits = consumer_limits(self.parts.settings, LML_REFRESH_BATCH_CAP, REFRESH_CALLS)
        return Consumer(
            Stream.ROTATION,
            self.parts.store.outbox(),
            warmer.handle,
            limits,
            telemetry=self.parts.telemetry,
            circuit=self.parts.circuits[Stream.ROTATION],
            well=self.parts.lml.well,
        )

    def retrier(self, warmer: Warmer) -> Retrier:
        """Make the retrier of failed rotation rows."""
        circuit, size = self.parts.circuits[Stream.ROTATION], LML_REFRESH_BATCH_CAP
        return Retrier(self.parts.store.rotation().retries, warmer.handle, circuit, batch_size=size)

    def _refresher(self) -> Refresher:
        book = self.parts.store.refreshes(refresh_limits(self.parts.settings))
        return Refresher(self.parts.lml, book, self.parts.telemetry, self.parts.refreshed)


class _DryVerdicts:
    """Pretends that every verdict was written."""

    async def write(self, batch: VerdictBatch) -> Written:
        """Return all rows of the batch."""
        return Written(frozenset(verdict.library_id for verdict in batch.verdicts))

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        """Record nothing, and pretend that every row was recorded."""
        return frozenset(failure.library_id for failure in failures)


class _DryRuns:
    """Records no run and excludes no other: a dry run writes nothing twice."""

    @asynccontextmanager
    async def enter(
        self,
        kind: RunKind,
        scope: Scope,
        cause: str,
        tally: Tally | RotationTally,
        *,
        wait: bool = True,
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Yield a function that records nothing."""
        yield _nothing


async def _nothing() -> None:
    pass
