"""Runs the scheduled jobs of a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from listener.domain.faults import StoreUnavailableError
from listener.domain.pacing import Backoff
from listener.engine.ports import Bell, Slots
from listener.engine.reconciler import RunHaltedError
from listener.engine.supervisor import heed_cancellation

_log = structlog.stdlib.get_logger()

_RETRY = Backoff(first=timedelta(seconds=15), most=timedelta(minutes=30))


@dataclass(frozen=True, slots=True)
class Job:
    """Work that one of the daemons does once per interval.

    Intervals are counted from `begins` after the epoch. `work` receives the cause and the start of
    the slot. With `at_start` each daemon also does the job when it starts.
    """

    name: str
    every: timedelta
    work: Callable[[str, datetime], Awaitable[None]]
    at_start: bool = False
    begins: timedelta = timedelta()


@dataclass(eq=False)
class Routine:
    """Does each job once per slot, unless another daemon took it; no job stops another."""

    jobs: Sequence[Job]
    slots: Slots
    bell: Bell

    async def run(self) -> None:
        """Run until cancelled."""
        async with self.bell.ringing(), asyncio.TaskGroup() as tasks:
            for job in self.jobs:
                tasks.create_task(self._keep(job))

    async def _keep(self, job: Job) -> None:
        starting = job.at_start
        cause = "start"
        failures = 0
        while True:
            try:
                await self._do(job, cause, again=starting)
            except (StoreUnavailableError, RunHaltedError) as fault:
                failures += 1
                _log.warning("job failed", job=job.name, reason=str(fault), failures=failures)
            except Exception:  # noqa: BLE001 - a broken job must never stop the daemon
                failures += 1
                _log.exception("job broke", job=job.name, failures=failures)
            else:
                starting, cause, failures = False, "schedule", 0
            heed_cancellation()
            await self.bell.wait(job.name, _RETRY.delay(failures) if failures else job.every)

    async def _do(self, job: Job, cause: str, *, again: bool) -> None:
        slot = await self.slots.take(job.name, job.every, begins=job.begins, again=again)
        if slot is not None:
            await job.work(cause, slot)
            await self.slots.finish(job.name, slot)
