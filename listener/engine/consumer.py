"""Keeps up with one stream of the outbox."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog

from listener.domain.change import Batch, Change, Stream
from listener.domain.faults import (
    CallBrokenOffError,
    LmlRefusedError,
    LmlUnavailableError,
    StoreUnavailableError,
)
from listener.domain.health import TURN, Pulse
from listener.domain.pacing import LML_SILENCE, TRIAL, Backoff, Breaker, BreakerState, Pause
from listener.domain.room import Room, RoomLimits
from listener.domain.tally import Distribution
from listener.engine.feeder import Feeder
from listener.engine.handling import Handled
from listener.engine.ports import Lane, Observer, Outbox
from listener.engine.silent import Unobserved

_log = structlog.stdlib.get_logger()

_CAUGHT_UP_LOOK = timedelta(milliseconds=20)
# So many failures of the service in a row, and who only catches up does not wait for it any more.
_GIVE_UP = 2
# It takes a few calls that break off until the row that LML fails at is asked alone.
_GIVE_UP_ON_ROWS = 5
_DRAIN_WAIT = timedelta(milliseconds=20)
_STORE_SILENCE = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=30))
_HEALTH_EVERY = timedelta(seconds=2)


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
    only wait, and is better filled meanwhile. `breaker` is shared with whoever else asks the same
    of LML; `well` asks LML how it is, while it fails.
    """

    def __init__(
        self,
        stream: Stream,
        outbox: Outbox,
        handle: Callable[[Batch], Awaitable[Handled]],
        limits: ConsumerLimits,
        *,
        calls: Callable[[], int] | None = None,
        breaker: Breaker | None = None,
        well: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.claim_lag = Distribution()
        self.resting = asyncio.Event()
        self._stream = stream
        self._outbox = outbox
        self._handle = handle
        self._limits = limits
        self._calls = calls or (lambda: limits.in_flight)
        self._well = well
        self.observer: Observer = Unobserved()
        self._followed: tuple[Lane, Feeder] | None = None
        self._batch_ids = itertools.count(1)
        self.breaker = breaker or Breaker(LML_SILENCE)
        self._log = _log.bind(stream=str(stream))

    async def follow(self, lane: Lane, stop: asyncio.Event) -> None:
        """Work until `stop` is set and what is in flight is done; raises `LaneLostError`."""
        self.resting.clear()
        self._room = Room(self._limits.room)
        self._pause = Pause(_STORE_SILENCE)
        self._fault: LmlUnavailableError | StoreUnavailableError | None = None
        self._slots = asyncio.Semaphore(self._limits.in_flight)
        self._moved = asyncio.Event()
        # A batch that was cancelled before its first step could not count itself out.
        self._running = 0
        self._dispatched_at = self._now()
        feeder = Feeder(self._stream, self._outbox, self._room, lane, self._limits.poll)
        self._followed = lane, feeder
        try:
            await self._work(feeder, lane, stop)
        finally:
            self._followed = None

    def pulse(self) -> Pulse | None:
        """Tell how the stream is followed, None while it is not."""
        if self._followed is None:
            return None
        (lane, feeder), now = self._followed, self._now()
        # Who waits for a batch to end is not stalled; how long that takes is bounded elsewhere.
        full = self._running >= self._limits.in_flight
        turned_at = feeder.turned_at if full else min(feeder.turned_at, self._dispatched_at)
        looked_at = feeder.looked_at
        return Pulse(
            stream=self._stream,
            rung=lane.rung,
            breaker=self.breaker.state(now),
            stalled=timedelta(seconds=now - turned_at),
            looked=None if looked_at is None else timedelta(seconds=now - looked_at),
            claimed=self.claim_lag.count,
            held=self._room.size,
            retried=self._room.retried,
        )

    async def _work(self, feeder: Feeder, lane: Lane, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(feeder.run(self._silence, self._admit, self._rest))
            dispatching = tasks.create_task(self._dispatch(tasks, feeder))
            listening = tasks.create_task(self._listen_to_lml())
            await stop.wait()
            feeding.cancel()
            dispatching.cancel()
            listening.cancel()
            await asyncio.wait((feeding,))
            while not self._room.quiet:
                # The lane stays ours, and is seen to be, until the last batch is done.
                await lane.wait(_DRAIN_WAIT)

    async def catch_up(self, lane: Lane) -> None:
        """Work until every change was handled, or tried in vain.

        Raises the last `LmlUnavailableError` or `StoreUnavailableError` if it gave up on LML or the
        database.
        """
        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.follow(lane, done))
            while True:
                await asyncio.sleep(_CAUGHT_UP_LOOK.total_seconds())
                may_be_rows = isinstance(self._fault, CallBrokenOffError)
                most = _GIVE_UP_ON_ROWS if may_be_rows else _GIVE_UP
                if max(self._pause.failures, self.breaker.failures) >= most:
                    break
                if self.resting.is_set() and self._room.quiet and self._room.exhausted:
                    break
            done.set()
        if self._pause.failures or self.breaker.failures:
            raise self._fault or LmlUnavailableError("LML fails for others as well")

    def _admit(self, changes: tuple[Change, ...]) -> None:
        self.claim_lag.add([change.waited.total_seconds() for change in changes])
        self.resting.clear()
        self._room.admit(changes, self._now())
        self._moved.set()

    def _rest(self) -> None:
        self.resting.set()
        self._moved.set()

    def _silence(self) -> timedelta:
        now = self._now()
        return timedelta(seconds=max(self._pause.remaining(now), self.breaker.remaining(now)))

    async def _listen_to_lml(self) -> None:
        while self._well is not None:
            await asyncio.sleep(_HEALTH_EVERY.total_seconds())
            if self.breaker.state(self._now()) is BreakerState.OPEN:
                self.breaker.heard(self._now(), well=await self._well())
                self._moved.set()

    async def _dispatch(self, tasks: asyncio.TaskGroup, feeder: Feeder) -> None:
        while True:
            await self._slots.acquire()
            batch = await self._next_batch(feeder)
            self._running += 1
            tasks.create_task(self._run(batch))

    async def _next_batch(self, feeder: Feeder) -> Batch:
        while True:
            self._moved.clear()
            self._dispatched_at = self._now()
            patience: float | None = self._silence().total_seconds()
            failing = bool(self._pause.failures or self.breaker.failures)
            # After a failure one small batch goes ahead alone, and tells whether all is well again;
            # not without what came meanwhile: LML may fail at what is here, and not at that.
            if not patience and (not failing or (self._room.quiet and not feeder.behind)):
                full = self._running >= self._calls()
                most = TRIAL if failing else None
                batch = self._room.next_batch(self._now(), full=full, most=most)
                if isinstance(batch, Batch):
                    self.breaker.begin_trial(self._now())
                    return batch
                patience = batch
            elif not patience:
                patience = None
            longest = TURN.total_seconds()
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(longest if patience is None else min(patience, longest)):
                    await self._moved.wait()

    async def _run(self, batch: Batch) -> None:
        rows = frozenset(batch.changes)
        structlog.contextvars.bind_contextvars(batch_id=next(self._batch_ids))
        began = self._now()
        try:
            handled = await self._handle(batch)
        except (LmlUnavailableError, StoreUnavailableError) as fault:
            self._room.release(rows, self._now())
            self._keep_silent(fault)
        except Exception:  # noqa: BLE001 - one batch must never take the others with it
            self._log.exception("batch handling failed", rows=len(rows))
            self.breaker.end_trial()
            self._room.fail(rows, self._now())
        else:
            # LML may answer for a part of a batch, and then fail.
            if handled.fault is None or handled.answered:
                self._hear_of_success(answered=handled.answered)
            if handled.fault is not None and not handled.about_rows:
                self._keep_silent(handled.fault)
            ages = self._room.settle(handled.settled, self._now())
            self.observer.settled(self._stream, ages)
            self._room.ask_again(handled.late, self._now())
            self._room.fail(handled.failed, self._now())
            self._room.set_apart(handled.apart, self._now())
            self._room.release(rows - handled.tried - handled.apart, self._now())
        finally:
            self.observer.handled(self._stream, len(rows), self._now() - began)
            self._dispatched_at = self._now()
            self._running -= 1
            self._slots.release()
            self._moved.set()

    def _hear_of_success(self, *, answered: bool) -> None:
        self._pause.succeeded()
        if not answered:
            self.breaker.end_trial()
            return
        if self.breaker.failures:
            self._log.info("LML answers again", failures=self.breaker.failures)
        self.breaker.succeeded()

    def _keep_silent(self, fault: LmlUnavailableError | StoreUnavailableError) -> None:
        self._fault = fault
        if isinstance(fault, LmlUnavailableError):
            pause: Pause = self.breaker
            at_least = fault.retry_after
        else:
            self.breaker.end_trial()
            pause, at_least = self._pause, None
        failures = pause.failures
        delay = pause.failed(self._now(), at_least)
        if pause.failures == failures:
            return
        # A refusal needs a person: said once as what it is, and then only that it goes on.
        refused = isinstance(fault, LmlRefusedError) and pause.failures == 1
        log = self._log.error if refused else self._log.warning
        log(
            "service unavailable, keeping changes in the outbox",
            reason=str(fault),
            failures=pause.failures,
            next_try_in_seconds=round(delay.total_seconds(), 1),
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
