"""Rings at the times that jobs are scheduled for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

# Keeps the daemons of a fleet from all asking for a slot at once, or starting exactly on the minute
# like cron jobs.
_JITTER_SHARE = 0.02
_LONGEST_JITTER = timedelta(minutes=5)


class ApschedulerBell:
    """Wakes each job at its times; whether it is due, the slots in the database decide.

    Rings a little after every multiple of the job's interval, counted from its time in `begins`
    after the epoch, or else from the epoch.
    """

    def __init__(
        self,
        jobs: Mapping[str, timedelta],
        begins: Mapping[str, timedelta] = MappingProxyType({}),
    ) -> None:
        self._rung = {name: asyncio.Event() for name in jobs}
        self._every = dict(jobs)
        self._begins = dict(begins)

    async def wait(self, job: str, at_most: timedelta) -> None:
        try:
            # A timeout, because a wall clock that is set back delays the bell.
            async with asyncio.timeout(at_most.total_seconds()):
                await self._rung[job].wait()
        except TimeoutError:
            return
        finally:
            self._rung[job].clear()

    @asynccontextmanager
    async def ringing(self) -> AsyncIterator[ApschedulerBell]:
        scheduler = AsyncIOScheduler(timezone=UTC)
        for name, every in self._every.items():
            scheduler.add_job(
                self._ring,
                _trigger(every, self._begins.get(name, timedelta())),
                args=(name,),
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
        scheduler.start()
        try:
            yield self
        finally:
            scheduler.shutdown(wait=False)

    async def _ring(self, job: str) -> None:
        # A coroutine: APScheduler would call a plain function in another thread.
        self._rung[job].set()


def _trigger(every: timedelta, begins: timedelta) -> IntervalTrigger:
    # Counted from the epoch like the slots, and never early, which would still be the last slot.
    # One offset for all rings: APScheduler adds its own jitter to that of the previous ring.
    offset = random.uniform(0, 1) * min(every * _JITTER_SHARE, _LONGEST_JITTER)
    start = datetime.fromtimestamp((begins + offset).total_seconds(), tz=UTC)
    seconds = max(1, round(every.total_seconds()))
    return IntervalTrigger(seconds=seconds, start_date=start, timezone=UTC)
