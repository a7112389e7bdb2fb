"""What asks about the library: changes, due rows, and what failed before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from listener.app.dry import DryRuns, DryVerdicts
from listener.app.limits import BATCHES_ASIDE, consumer_limits
from listener.app.parts import Parts
from listener.domain.change import Stream
from listener.domain.due import Scope
from listener.domain.question import IncludeTracks
from listener.domain.retrying import TOGETHER
from listener.domain.tally import Tally
from listener.engine.consumer import Consumer
from listener.engine.permits import Priority
from listener.engine.reconciler import Reconciler, ReconcilerLimits
from listener.engine.resolver import Resolver, ResolverLimits
from listener.engine.retrier import ReleaseWatch, Retrier


@dataclass(frozen=True, slots=True)
class LibraryParts:
    """Joins the parts that ask about the library."""

    parts: Parts

    @property
    def scope(self) -> Scope:
        """The rows that a daemon searches for: one does it for all, so there are no shares."""
        return Scope(include_null_canonical=self.parts.settings.include_null_canonical)

    @property
    def batch_size(self) -> int:
        """How many rows that are no compilations are asked in one call."""
        with_tracks = self.parts.settings.include_tracks is IncludeTracks.ALL
        return self.parts.settings.va_batch_size if with_tracks else self.parts.settings.batch_size

    def resolver(self, priority: Priority = Priority.CHANGE) -> Resolver:
        """Make a resolver for what changed, or for what failed before."""
        resolver = self._resolver(priority, dry=False)
        resolver.latest = self.parts.latest
        return resolver

    def retriers(self, tally: Tally) -> list[Retrier]:
        """Make what tries again releases that failed, counted in `tally`.

        Those that may interrupt calls have one of their own: nobody else waits for such a call.
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

    def release_watch(self) -> ReleaseWatch:
        """Make what asks again what failed once another release of LML is deployed."""
        return ReleaseWatch(self.parts.lml.release, self.parts.store.due().note_release)

    def reconciler(self, *, dry: bool = False, insisting: bool = False) -> Reconciler:
        """Make what searches for due rows; a dry one asks LML and writes nothing.

        An insisting one asks about what it finds though the last answer may still hold.
        """
        settings = self.parts.settings
        limits = ReconcilerLimits(
            batch_size=self.batch_size,
            compilation_batch_size=settings.va_batch_size,
            batches=settings.lml_max_concurrent + BATCHES_ASIDE,
        )
        return Reconciler(
            self.parts.store.due(),
            DryRuns() if dry else self.parts.store.runs(),
            lambda: self._resolver(Priority.SEARCH, dry=dry, insisting=insisting),
            limits,
            circuit=self.parts.circuits[Stream.LIBRARY],
            telemetry=self.parts.telemetry,
        )

    def consumer(self, resolver: Resolver) -> Consumer:
        """Make what follows the library."""
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
        return Resolver(
            library=store.library(dry=dry, insisting=insisting),
            lml=self.parts.lml,
            verdicts=DryVerdicts() if dry else verdicts,
            outbox=self.parts.store.outbox(),
            permit=partial(self.parts.permits.hold, priority),
            reading=partial(self.parts.reading.hold, priority),
            writing=partial(self.parts.writing.hold, priority),
            limits=ResolverLimits(
                settings.va_batch_size,
                self.parts.policy,
                settings.include_tracks,
                # A search groups its rows by itself.
                defer_compilations=priority is Priority.CHANGE,
            ),
            telemetry=self.parts.telemetry,
            circuit=self.parts.circuits[Stream.LIBRARY],
        )
