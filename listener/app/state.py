"""What a daemon knows about itself, for probes, metrics, the page and systemd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from listener.adapters.host import listens, longest_silence, notify
from listener.adapters.postgres.samples import read_streams
from listener.app.parts import Parts, refresh_limits
from listener.app.wording import dumped
from listener.domain.change import Stream
from listener.domain.health import unready
from listener.domain.latest import LatestAnswer
from listener.domain.pulse import Pulse, Reading, is_alive
from listener.engine.clock import now
from listener.engine.consumer import Consumer
from listener.engine.recorder import Recorder
from listener.engine.resolver import Resolver
from listener.engine.supervisor import in_background, keep_doing
from listener.engine.telemetry import TelemetryFanOut
from listener.engine.watch import CaptureWatch, Watch

_TOLD_EVERY, _NOT_OFTENER = timedelta(seconds=10), timedelta(seconds=0.1)
# Several checks must find a stuck loop before systemd kills the daemon.
_LOOKS = 4


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
        window, database = refresh_limits(workers.parts.settings).window, store.database
        read = partial(read_streams, store.pool, database.backend, database.holder, window)
        self._watch = watch = Watch(read, self.pulses)
        recorder = Recorder(store.samples(), lambda: self.reading, self.pulses, store.neglected)
        telemetry.add(recorder)
        async with in_background(watch.run(), recorder.record()):
            yield


@asynccontextmanager
async def informing_systemd(state: DaemonState) -> AsyncIterator[None]:
    """Report that the daemon is ready, then whether it is alive, for the length of the block."""
    if not listens():
        yield
        return
    silence = longest_silence()
    every = (
        _TOLD_EVERY if silence is None else max(_NOT_OFTENER, min(_TOLD_EVERY, silence / _LOOKS))
    )

    async def report() -> timedelta:
        status = f"STATUS={'; '.join(state.unready()) or 'ready'}"
        notify(status, *(["WATCHDOG=1"] if is_alive(state.pulses()) else []))
        return every

    notify("READY=1")
    async with in_background(keep_doing("reports to systemd", report)):
        yield


def latest_json(state: DaemonState) -> bytes:
    """Return the latest answers of this daemon, and the streams that it follows."""
    moment, at = datetime.now(UTC), now()
    answers = state.workers.parts.latest if state.workers is not None else ()
    return dumped(
        {
            "at": moment,
            "follows": [pulse.stream for pulse in state.pulses()],
            "answers": [
                {"number": number} | _shown(each, moment - timedelta(seconds=at - each.at))
                for number, each in answers
            ],
        }
    ).encode()


def _shown(answer: LatestAnswer, at: datetime) -> dict[str, Any]:
    return asdict(answer) | {"at": at, "took": round(answer.took, 3)}
