"""Keeps up with one stream of the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog

from listener.domain.change import Batch, Change, Stream
from listener.domain.faults import LmlUnavailableError, StoreUnavailableError
from listener.domain.pacing import Backoff, Pause
from listener.domain.room import Room, RoomLimits
from listener.domain.tally import Distribution
from listener.engine.feeder import Feeder
from listener.engine.handling import Handled
from listener.engine.ports import Lane, Outbox

_log = structlog.stdlib.get_logger()

_CAUGHT_UP_LOOK = timedelta(milliseconds=20)
# So many failures of the service in a row, and who only catches up does not wait for it any more.
_GIVE_UP = 3
_DRAIN_WAIT = timedelta(milliseconds=20)
_SILENCE = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=30))


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """`in_flight` batches at most are handled at a time; the outbox is read anew every `poll`."""

    room: RoomLimits
    in_flight: int
    poll: timedelta


class Consumer:
    """Claims the changes of a stream, groups them into batches and has them handled.

    Claims live in memory only: whoever holds the lane reads the outbox alone, and what is not
    settled when it goes is still there for the next one. `resting` is set while all that is in the
    outbox was claimed. `calls` tells how many calls may be in flight: a batch beyond that would
    only wait, and is better filled meanwhile.
    """

    def __init__(
        self,
        stream: Stream,
        outbox: Outbox,
        handle: Callable[[Batch], Awaitable[Handled]],
        limits: ConsumerLimits,
        calls: Callable[[], int] | None = None,
    ) -> None:
        self.claim_lag = Distribution()
        self.resting = asyncio.Event()
        self._stream = stream
        self._outbox = outbox
        self._handle = handle
        self._limits = limits
        self._calls = calls or (lambda: limits.in_flight)
        self._running = 0
        self._log = _log.bind(stream=str(stream))

    async def follow(self, lane: Lane, stop: asyncio.Event) -> None:
        """Work until `stop` is set and what is in flight is done; raises `LaneLostError`."""
        self.resting.clear()
        self._room = Room(self._limits.room)
        self._pause = Pause(_SILENCE)
        self._slots = asyncio.Semaphore(self._limits.in_flight)
        self._moved = asyncio.Event()
        feeder = Feeder(self._stream, self._outbox, self._room, lane, self._limits.poll)
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(feeder.run(self._silence, self._admit, self.resting.set))
            dispatching = tasks.create_task(self._dispatch(tasks))
            await stop.wait()
            feeding.cancel()
            dispatching.cancel()
            await asyncio.wait((feeding,))
            while not self._room.quiet:
                # The lane stays ours, and is seen to be, until the last batch is done.
                await lane.wait(_DRAIN_WAIT)

    async def catch_up(self, lane: Lane) -> bool:
        """Work until every change was handled, or tried and failed.

        Returns whether LML and the database answered; False if it gave up on them.
        """
        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.follow(lane, done))
            while True:
                await asyncio.sleep(_CAUGHT_UP_LOOK.total_seconds())
                if self._pause.failures >= _GIVE_UP:
                    break
                if self.resting.is_set() and self._room.quiet and self._room.exhausted:
                    break
            done.set()
        return not self._pause.failures

    def _admit(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            self.claim_lag.add(change.waited)
        self.resting.clear()
        self._room.admit(changes, self._now())
        self._moved.set()

    def _silence(self) -> timedelta:
        return timedelta(seconds=self._pause.remaining(self._now()))

    async def _dispatch(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._slots.acquire()
            batch = await self._next_batch()
            self._running += 1
            tasks.create_task(self._run(batch))

    async def _next_batch(self) -> Batch:
        while True:
            self._moved.clear()
            patience: float | None = self._pause.remaining(self._now())
            # After a failure one batch goes ahead alone: it tells whether the service is back.
            if not patience and (self._room.quiet or not self._pause.failures):
                full = self._running >= self._calls()
                batch = self._room.next_batch(self._now(), full=full)
                if isinstance(batch, Batch):
                    return batch
                patience = batch
            elif not patience:
                patience = None
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._moved.wait()

    async def _run(self, batch: Batch) -> None:
        rows = frozenset(batch.changes)
        try:
            handled = await self._handle(batch)
        except (LmlUnavailableError, StoreUnavailableError) as fault:
            self._room.release(rows, self._now())
            self._keep_silent(fault)
        except Exception:  # noqa: BLE001 - one batch must never take the others with it
            self._log.exception("batch handling failed", rows=len(rows))
            self._room.fail(rows, self._now())
        else:
            self._pause.succeeded()
            self._room.settle(handled.settled, self._now())
            self._room.ask_again(handled.late, self._now())
            self._room.fail(handled.failed, self._now())
            self._room.release(rows - handled.settled - handled.late - handled.failed, self._now())
        finally:
            self._running -= 1
            self._slots.release()
            self._moved.set()

    def _keep_silent(self, fault: LmlUnavailableError | StoreUnavailableError) -> None:
        at_least = fault.retry_after if isinstance(fault, LmlUnavailableError) else None
        known = self._pause.remaining(self._now()) > 0
        delay = self._pause.failed(self._now(), at_least)
        if not known:
            self._log.warning(
                "service unavailable, keeping changes in the outbox",
                reason=str(fault),
                failures=self._pause.failures,
                next_try_in_seconds=round(delay.total_seconds(), 1),
            )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
