"""Watches that changes are captured, and that no table was replaced behind our back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from listener.domain.change import Stream
from listener.engine.reconciler import RunHaltedError
from listener.engine.supervisor import keep_doing

_log = structlog.stdlib.get_logger()

_EVERY = timedelta(seconds=20)


@dataclass(eq=False)
class CaptureWatch:
    """Looks for triggers that are missing or disabled, and catches up once they are back.

    `look` returns the streams whose changes are not captured; `catch_up` searches one of them for
    missed changes. `misdirected` returns foreign keys that still refer to a table that another one
    replaced, with what repairs each. `uncaptured` is the latest result of `look`, None while the
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
        return _EVERY

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
        return _EVERY
