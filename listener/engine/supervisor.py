"""Keeps a daemon following its streams until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from listener.domain.faults import LaneLostError, StoreUnavailableError, first_of
from listener.domain.pacing import Backoff
from listener.engine.clock import now
from listener.engine.consumer import Consumer
from listener.engine.ports import Lanes

_log = structlog.stdlib.get_logger()

_RESTART = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=15))
# Connecting is cheap, and soon shows that the database is back.
_RECONNECT = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=2))
_STEADY = timedelta(minutes=1)
_BROKEN = Backoff(first=timedelta(seconds=2), most=timedelta(minutes=1))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Follows several streams, each while this daemon holds its lane, with their background work.

    A lane that fails is restarted after a growing delay; it affects neither the other lanes nor the
    daemon.
    """

    lanes: Lanes
    followers: Mapping[Consumer, Sequence[Callable[[], Coroutine[Any, Any, None]]]]
    shutdown: timedelta

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the batches in flight within `shutdown`."""
        async with asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(self._follow(each, stop)) for each in self.followers]
            await stop.wait()
            _, late = await asyncio.wait(work, timeout=self.shutdown.total_seconds())
            if late:
                _log.warning("stopped with batches in flight, their changes stay in the outbox")
            for task in late:
                task.cancel()

    async def _follow(self, follower: Consumer, stop: asyncio.Event) -> None:
        log = _log.bind(stream=str(follower.stream))
        failures = 0
        while not stop.is_set():
            began, backoff = now(), _RESTART
            try:
                await self._tenure(follower, stop)
            except* LaneLostError:
                log.warning("lane lost to another daemon, standing by")
            except* StoreUnavailableError as group:
                backoff = _RECONNECT
                fault = first_of(group)
                log.warning(fault.event, reason=str(fault))
            except* Exception:
                log.exception("lane broke, starting it again")
            heed_cancellation()
            failures = 1 if now() - began > _STEADY.total_seconds() else failures + 1
            await until(stop, asyncio.sleep(backoff.delay(failures).total_seconds()))

    async def _tenure(self, follower: Consumer, stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            holding = self.lanes.hold(follower.stream)
            lane = await until(stop, stack.enter_async_context(holding))
            if lane is None:
                return
            async with asyncio.TaskGroup() as tasks:
                for work in self.followers[follower]:
                    # A stop ends it at once: rows not asked about stay due.
                    tasks.create_task(until(stop, work()))
                await follower.follow(lane, stop)


@asynccontextmanager
async def in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work in the background for the length of the block, then cancel it.

    An exception of the block is raised as it is, not in a group.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in work]
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
        finally:
            for each in running:
                each.cancel()
    if failure is not None:
        raise failure


async def keep_doing(what: str, step: Callable[[], Awaitable[timedelta]]) -> None:
    """Repeat a step until cancelled; each step returns the pause before the next.

    A step that fails is logged and repeated after a growing delay; it stops nothing else.
    """
    failures = 0
    while True:
        try:
            pause, failures = await step(), 0
        except Exception as error:
            failures += 1
            pause = _BROKEN.delay(failures)
            log = _log.bind(work=what, failures=failures)
            if isinstance(error, StoreUnavailableError):
                log.warning("background work waits for the database", reason=str(error))
            else:
                log.exception("background work failed, restarting it")
        await asyncio.sleep(pause.total_seconds())


def heed_cancellation() -> None:
    """Raise `CancelledError` if this task was cancelled; for loops that survive failures.

    Before Python 3.13, a group that is cancelled while one of its tasks fails raises only that
    failure.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`; if `stop` is set first, cancel it and return None."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work)
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        stopping.cancel()
    return None if working.cancelled() else working.result()
