"""Keeps a recent reading of the streams, so that readers need not wait for the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from listener.domain.change import Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.pulse import Pulse, Reading
from listener.engine.clock import now
from listener.engine.supervisor import keep_doing

_EVERY = timedelta(seconds=2)
# Reading may take one part in this many of the time.
_SHARE = 10


@dataclass(eq=False)
class Watch:
    """Reads backlog and parked rows every few seconds while it runs.

    `read` queries the database once, and may raise `StoreUnavailableError`. `captured` counts the
    changes of each stream that this daemon followed, claimed or not, as of the last reading.
    """

    read: Callable[[], Awaitable[Reading]]
    pulses: Callable[[], Sequence[Pulse]]
    captured: dict[Stream, int] = field(default_factory=dict, init=False)
    _reading: Reading | None = field(default=None, init=False)
    _read_at: float = field(default=0.0, init=False)

    @property
    def reading(self) -> Reading | None:
        """The last reading, with its age; None before the first."""
        if self._reading is None:
            return None
        return replace(self._reading, age=timedelta(seconds=now() - self._read_at))

    async def run(self) -> None:
        """Run until cancelled."""
        await keep_doing("watch over the database", self._watch)

    async def _watch(self) -> timedelta:
        began = now()
        await self._read()
        took = timedelta(seconds=now() - began)
        return min(max(_EVERY, _SHARE * took), _SHARE * _EVERY)

    async def _read(self) -> None:
        try:
            reading = await self.read()
        except StoreUnavailableError as fault:
            former = self._reading or Reading((), 0, timedelta())
            self._reading, self._read_at = replace(former, fault=str(fault)), now()
            return
        self._reading, self._read_at = reading, now()
        for pulse in self.pulses():
            waiting = reading.of(pulse.stream)
            unclaimed = max(0, waiting.backlog - pulse.held) if waiting is not None else 0
            known = self.captured.get(pulse.stream, 0)
            self.captured[pulse.stream] = max(known, pulse.claimed + unclaimed)
