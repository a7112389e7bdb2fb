"""What a daemon knows about itself: pulses, readings, samples and numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from listener.app.limits import refresh_limits
from listener.app.parts import Parts
from listener.domain.change import Stream
from listener.domain.health import unready
from listener.domain.pulse import Pulse, Reading
from listener.engine.capture import CaptureWatch
from listener.engine.consumer import Consumer
from listener.engine.recorder import Recorder
from listener.engine.resolver import Resolver
from listener.engine.supervisor import in_background
from listener.engine.telemetry import TelemetryFanOut
from listener.engine.watch import Watch


@dataclass(slots=True)
class Workers:
    """The objects that do the work and can report on it."""

    parts: Parts
    resolver: Resolver
    capture: CaptureWatch
    consumers: Mapping[Stream, Consumer]


class DaemonState:
    """Reports the state of this daemon; before it starts, most of it is unknown."""

    def __init__(self, max_lag: timedelta, stop: asyncio.Event) -> None:
        self.max_lag = max_lag
        self.workers: Workers | None = None
        self._stop = stop
        self._watch: Watch | None = None

    @property
    def reading(self) -> Reading | None:
        """What was last read from the database."""
        return None if self._watch is None else self._watch.reading

    def pulses(self) -> Sequence[Pulse]:
        """Return how this daemon follows each of its streams."""
        if self.workers is None:
            return ()
        pulses = (consumer.pulse() for consumer in self.workers.consumers.values())
        return [pulse for pulse in pulses if pulse is not None]

    def claimed(self) -> dict[Stream, int]:
        """Return how many changes were claimed since the start."""
        consumers = self.workers.consumers if self.workers is not None else {}
        return {stream: each.claim_lag.count for stream, each in consumers.items()}

    def captured(self) -> dict[Stream, int]:
        """Return how many changes were recorded while this daemon followed them."""
        known = self._watch.captured if self._watch is not None else {}
        return {s: max(claimed, known.get(s, 0)) for s, claimed in self.claimed().items()}

    def unready(self) -> Sequence[str]:
        """Return why this daemon is not ready, nothing if it is."""
        return unready(self.reading, self.pulses(), self.max_lag, stopping=self._stop.is_set())

    @asynccontextmanager
    async def watching(self, workers: Workers, telemetry: TelemetryFanOut) -> AsyncIterator[None]:
        """Watch the workers and record samples of what they report, while the block lasts."""
        self.workers = workers
        store = workers.parts.store
        window = refresh_limits(workers.parts.settings).window
        self._watch = watch = Watch(store.readings(window).read, self.pulses)
        recorder = Recorder(store.samples(), lambda: self.reading, self.pulses, store.neglected)
        telemetry.add(recorder)
        async with in_background(watch.run(), recorder.record()):
            yield
