"""Knows how the database sees the streams, so that nobody who asks has to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from listener.domain.change import Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.health import Pulse, Reading
from listener.engine.clock import now
from listener.engine.ports import Readings

_EVERY = timedelta(seconds=2)
# However long a reading takes, it takes this share of the time at most.
_SHARE = 10


@dataclass(frozen=True, slots=True)
class _Taken:
    reading: Reading
    at: float


@dataclass(eq=False)
class Watch:
    """Reads backlog and parked rows every few seconds, as long as it runs.

    `captured` counts the changes of each stream that was followed from here: those that were
    claimed by the last reading, and those that were still to be.
    """

    readings: Readings
    pulses: Callable[[], Sequence[Pulse]]
    captured: dict[Stream, int] = field(default_factory=dict, init=False)
    _taken: _Taken | None = field(default=None, init=False)

    @property
    def reading(self) -> Reading | None:
        """What was read last, with its age; None before the first time."""
        if self._taken is None:
            return None
        return replace(self._taken.reading, age=timedelta(seconds=now() - self._taken.at))

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            began = now()
            await self._read()
            pause = max(_EVERY.total_seconds(), _SHARE * (now() - began))
            await asyncio.sleep(min(pause, _SHARE * _EVERY.total_seconds()))

    async def _read(self) -> None:
        try:
            reading = await self.readings.read()
        except StoreUnavailableError as fault:
            former = self._taken.reading if self._taken is not None else Reading((), 0, timedelta())
            self._taken = _Taken(replace(former, fault=str(fault)), now())
            return
        self._taken = _Taken(reading, now())
        for pulse in self.pulses():
            waiting = reading.of(pulse.stream)
            unclaimed = max(0, waiting.backlog - pulse.held) if waiting is not None else 0
            known = self.captured.get(pulse.stream, 0)
            self.captured[pulse.stream] = max(known, pulse.claimed + unclaimed)
