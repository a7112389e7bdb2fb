"""What warms and refreshes the identities of the rotation."""

from __future__ import annotations

from dataclasses import dataclass

from listener.app.limits import REFRESH_CALLS, consumer_limits, refresh_limits
from listener.app.parts import Parts
from listener.domain.change import Stream
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP
from listener.engine.consumer import Consumer
from listener.engine.refresher import Refresher
from listener.engine.retrier import Retrier
from listener.engine.walker import Walker
from listener.engine.warmer import Warmer


@dataclass(frozen=True, slots=True)
class RotationParts:
    """Joins the parts that follow and walk the rotation."""

    parts: Parts

    def warmer(self) -> Warmer:
        """Make what warms the identities of rotation rows."""
        return Warmer(
            rotation=self.parts.store.rotation(),
            warming=self.parts.lml,
            refresher=self._refresher(),
            circuit=self.parts.circuits[Stream.ROTATION],
            policy=self.parts.policy,
            latest=self.parts.latest,
        )

    def walker(self) -> Walker:
        """Make what walks over all that is being played."""
        return Walker(
            played=self.parts.store.rotation(),
            refresher=self._refresher(),
            runs=self.parts.store.runs(),
            min_coverage=self.parts.settings.rotation_min_coverage,
            circuit=self.parts.circuits[Stream.ROTATION],
            telemetry=self.parts.telemetry,
        )

    def consumer(self, warmer: Warmer) -> Consumer:
        """Make what follows the rotation."""
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
        """Make what tries again rotation rows that failed."""
        circuit, size = self.parts.circuits[Stream.ROTATION], LML_REFRESH_BATCH_CAP
        return Retrier(self.parts.store.rotation().retries, warmer.handle, circuit, batch_size=size)

    def _refresher(self) -> Refresher:
        book = self.parts.store.refreshes(refresh_limits(self.parts.settings))
        return Refresher(self.parts.lml, book, self.parts.telemetry, self.parts.refreshed)
