"""Watches the database: the state of the streams, and whether their changes are captured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from listener.domain.change import Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.pulse import Pulse, Reading
from listener.engine.clock import now
from listener.engine.reconciler import RunHaltedError
from listener.engine.supervisor import keep_doing

_log = structlog.stdlib.get_logger()

_READ_EVERY = timedelta(seconds=2)
# Reading may take one part in this many of the time.
_SHARE = 10
_LOOK_EVERY = timedelta(seconds=20)


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
        return min(max(_READ_EVERY, _SHARE * took), _SHARE * _READ_EVERY)

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


@dataclass(eq=False)
class CaptureWatch:
    """Looks for triggers that are missing or disabled, and catches up once they are back.

    `look` returns the streams whose changes are not captured; `catch_up` searches one of them for
    missed changes. `misdirected` returns foreign keys that still refer to a replaced table, each
    with the statement that repairs it. `uncaptured` is the latest result of `look`, None while the
    watch does not run.
    """

    look: Callable[[], Awaitable[frozenset[Stream]]]
    catch_up: Callable[[Stream], Awaitable[None]]
    misdirected: Callable[[], Awaitable[Mapping[str, str]]]
    uncaptured: frozenset[Stream] | None = field(default=None, init=False)
    _missed: set[Stream] = field(default_factory=set, init=False)
    _keys: Mapping[str, str] = field(default_factory=dict, init=False)

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keep_doing("watch over triggers", self._watch_triggers))
                tasks.create_task(keep_doing("watch over foreign keys", self._watch_keys))
        finally:
            self.uncaptured = None

    async def _watch_keys(self) -> timedelta:
        keys = await self.misdirected()
        for key in sorted(keys.keys() - self._keys.keys()):
            _log.error("foreign key refers to a replaced table", key=key, repair=keys[key])
        self._keys = keys
        return _LOOK_EVERY

    async def _watch_triggers(self) -> timedelta:
        seen = await self.look()
        for stream in sorted(seen - (self.uncaptured or frozenset())):
            _log.error("changes are not captured, run `listener migrate`", stream=str(stream))
        self.uncaptured = seen
        self._missed |= seen
        for stream in sorted(self._missed - seen):
            _log.info("changes are captured again, searching for missed ones", stream=str(stream))
            try:
                await self.catch_up(stream)
            except RunHaltedError as fault:
                _log.warning("search for missed changes failed", reason=str(fault))
            else:
                self._missed.discard(stream)
        return _LOOK_EVERY
