"""One tenure of a lane: what lives from taking a stream to handing it over."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from listener.domain.change import Batch, Change, Stream
from listener.domain.faults import StoreRefusedError, StoreUnavailableError
from listener.domain.health import TURN, Pulse
from listener.domain.pacing import TRIAL, Backoff, Pause
from listener.domain.room import Room, RoomLimits
from listener.domain.tally import Distribution
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.feeder import Feeder
from listener.engine.outcome import BatchOutcome
from listener.engine.ports import Lane, Observer, Outbox

_log = structlog.stdlib.get_logger()

_DRAIN_WAIT = timedelta(milliseconds=20)
# Whatever else asks LML may end a silence, and does not wake the dispatcher.
_FAILING_LOOK = timedelta(milliseconds=200)
_STORE_BACKOFF = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=2))
# New connections did not help by then: another daemon, perhaps of another version, may do better.
_GIVE_UP = 4


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """`in_flight` batches at most are handled at a time; the outbox is read anew every `poll`."""

    room: RoomLimits
    in_flight: int
    poll: timedelta


@dataclass(eq=False)
class Work:
    """What following a stream takes, and what is counted of it as long as the process lives.

    `circuit` is shared with all that ask the same of LML. `calls` returns how many calls may be in
    flight, which is otherwise as many as batches: a batch beyond that would only wait, and is
    better filled meanwhile. `claim_lag` has how long changes waited until they were claimed.
    `resting` is set while everything in the outbox was claimed.
    """

    stream: Stream
    outbox: Outbox
    handle: Callable[[Batch], Awaitable[BatchOutcome]]
    limits: ConsumerLimits
    circuit: Circuit
    calls: Callable[[], int] | None = None
    observers: list[Observer] = field(default_factory=list)
    claim_lag: Distribution = field(default_factory=Distribution, init=False)
    resting: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    batch_ids: itertools.count[int] = field(default_factory=partial(itertools.count, 1), init=False)

    def note_settled(self, ages: Sequence[float]) -> None:
        """Have observers note changes that were settled, by their ages in seconds."""
        for observer in self.observers:
            observer.settled(self.stream, ages)


class Tenure:
    """Claims the changes of a stream, groups them into batches and has them handled.

    Claims live in memory only: the holder of the lane is the only reader of the outbox, and what is
    not settled at the end is still there for the next one. `fault` is the reason of the database
    for handling no batch; it may be that of the tenure before.
    """

    def __init__(self, work: Work, lane: Lane, fault: str | None = None) -> None:
        self.fault = fault
        self._work = work
        self._lane = lane
        self.room = Room(work.limits.room)
        self.pause = Pause(_STORE_BACKOFF)
        self._feeder = Feeder(work.stream, work.outbox, self.room, lane, work.limits.poll)
        self._slots = asyncio.Semaphore(work.limits.in_flight)
        self._calls = work.calls or (lambda: work.limits.in_flight)
        self._moved = asyncio.Event()
        # A batch that was cancelled before its first step could not count itself out.
        self._running = 0
        self._dispatched_at = now()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set and what is in flight is done.

        Raises `LaneLostError`, and `StoreUnavailableError` once one batch after another failed.
        """
        self._work.resting.clear()
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(self._feeder.run(self._paused_for, self._admit, self._rest))
            dispatching = tasks.create_task(self._dispatch(tasks))
            await stop.wait()
            feeding.cancel()
            dispatching.cancel()
            await asyncio.wait((feeding,))
            while not self.room.quiet:
                # The lane stays ours, and is seen to be, until the last batch is done.
                await self._lane.wait(_DRAIN_WAIT)

    def pulse(self) -> Pulse:
        """Return how the stream is followed."""
        at, work = now(), self._work
        # Waiting for a batch to end is no stall; how long a batch may take is bounded elsewhere.
        full = self._running >= work.limits.in_flight
        turned_at = min(self._feeder.turned_at, at if full else self._dispatched_at)
        looked_at = self._feeder.looked_at
        return Pulse(
            stream=work.stream,
            wake_mode=self._lane.wake_mode,
            breaker=work.circuit.state,
            stalled=timedelta(seconds=at - turned_at),
            looked=None if looked_at is None else timedelta(seconds=at - looked_at),
            claimed=work.claim_lag.count,
            held=self.room.size,
            fault=self.fault,
        )

    def _admit(self, changes: tuple[Change, ...]) -> list[tuple[int, int]]:
        """Take changes in; return those that need not be asked, as pairs of (seq, row id)."""
        work = self._work
        work.claim_lag.add([change.waited.total_seconds() for change in changes])
        work.resting.clear()
        superseded = self.room.admit(changes, now())
        work.note_settled(superseded.ages)
        self._moved.set()
        return superseded.entries

    def _rest(self) -> None:
        self._work.resting.set()
        self._moved.set()

    def _paused_for(self) -> timedelta:
        pause = timedelta(seconds=self.pause.remaining(now()))
        return max(pause, self._work.circuit.paused_for())

    async def _dispatch(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._slots.acquire()
            batch = await self._next_batch()
            self._running += 1
            tasks.create_task(self._run(batch))

    async def _next_batch(self) -> Batch:
        circuit = self._work.circuit
        while True:
            self._moved.clear()
            self._dispatched_at = now()
            patience: float | None = self._paused_for().total_seconds()
            failing = bool(self.pause.failures or circuit.failures)
            # After a failure one row shows whether all is well again, and the others wait for it;
            # what is still in flight may be so for long.
            if not patience and not (failing and self._feeder.behind):
                full = self._running >= self._calls()
                most = circuit.begin_trial() or (TRIAL if failing else None)
                batch = self.room.next_batch(now(), full=full, most=most)
                if isinstance(batch, Batch):
                    return batch
                circuit.end_trial()
                patience = batch
            elif not patience:
                patience = None
            longest = (_FAILING_LOOK if failing else TURN).total_seconds()
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(longest if patience is None else min(patience, longest)):
                    await self._moved.wait()

    async def _run(self, batch: Batch) -> None:
        rows = frozenset(batch.changes)
        work, began = self._work, now()
        structlog.contextvars.bind_contextvars(batch_id=next(work.batch_ids))
        try:
            self._learn(rows, await work.handle(batch))
        finally:
            for observer in work.observers:
                observer.handled(work.stream, len(rows), now() - began)
            self._dispatched_at = now()
            self._running -= 1
            self._slots.release()
            self._moved.set()

    def _learn(self, rows: frozenset[int], outcome: BatchOutcome) -> None:
        ended = now()
        self._work.note_settled(self.room.settle(outcome.settled, ended))
        self.room.ask_again(outcome.late, ended)
        self.room.defer(outcome.deferred, ended)
        self.room.release(rows - outcome.tried - outcome.deferred, ended)
        if isinstance(outcome.fault, StoreUnavailableError):
            self._note_fault(outcome.fault)
        elif outcome.tried:
            self.pause.succeeded()
            self.fault = None

    def _note_fault(self, fault: StoreUnavailableError) -> None:
        failures, self.fault = self.pause.failures, str(fault)
        delay = self.pause.failed(now())
        if self.pause.failures == failures:
            return
        if self.pause.failures >= _GIVE_UP:
            raise fault
        refused = isinstance(fault, StoreRefusedError)
        _log.warning(
            "database refuses, keeping changes in the outbox"
            if refused
            else "database unavailable, keeping changes in the outbox",
            stream=str(self._work.stream),
            reason=str(fault),
            failures=self.pause.failures,
            next_try_in_seconds=round(delay.total_seconds(), 1),
        )
