"""One tenure of a lane: the state that lives while a daemon holds it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from listener.domain.change import Batch, BatchOutcome, Change, Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.pacing import TRIAL, Backoff, Pause
from listener.domain.pulse import TURN, Pulse
from listener.domain.room import Room, RoomLimits
from listener.domain.tally import Distribution
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.feeder import Feeder
from listener.engine.ports import Lane, Outbox
from listener.engine.telemetry import Telemetry, TelemetryFanOut

_log = structlog.stdlib.get_logger()

_DRAIN_WAIT = timedelta(milliseconds=20)
# Other callers of LML may end a pause without waking the dispatcher.
_FAILING_LOOK = timedelta(milliseconds=200)
_STORE_BACKOFF = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=2))
# New connections have not helped: another daemon, perhaps of another version, may do better.
_GIVE_UP = 4


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """The daemon handles up to `in_flight` batches at a time, and polls the outbox every `poll`."""

    room: RoomLimits
    in_flight: int
    poll: timedelta


@dataclass(eq=False)
class Work:
    """The parts needed to follow a stream, and its counts, which live as long as the process.

    `circuit` is shared by all callers of the stream. `calls` returns how many calls may be in
    flight (by default as many as batches): another batch would only wait, and can fill up
    meanwhile. `claim_lag` holds how long changes waited to be claimed. `resting` is set while the
    outbox holds nothing unclaimed.
    """

    stream: Stream
    outbox: Outbox
    handle: Callable[[Batch], Awaitable[BatchOutcome]]
    limits: ConsumerLimits
    circuit: Circuit
    calls: Callable[[], int] | None = None
    telemetry: Telemetry = field(default_factory=TelemetryFanOut)
    claim_lag: Distribution = field(default_factory=Distribution, init=False)
    resting: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    batch_ids: itertools.count[int] = field(default_factory=partial(itertools.count, 1), init=False)


class Tenure:
    """Claims the changes of a stream, groups them into batches and has them handled.

    Claims live in memory only: the holder of the lane is the only reader of the outbox, and the
    next holder finds whatever was not settled. `fault` is the database's reason for refusing every
    batch; it may be left over from the previous tenure.
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
        # A batch that is cancelled before its first step cannot decrement this.
        self._running = 0
        self._dispatched_at = now()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set and all batches in flight are done.

        Raises `LaneLostError`, and `StoreUnavailableError` after several batches failed in a row.
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
                # This keeps the lane's heartbeat going until the last batch is done.
                await self._lane.wait(_DRAIN_WAIT)

    def pulse(self) -> Pulse:
        """Return the state of the stream."""
        at, work = now(), self._work
        # Waiting for a batch is not a stall; the duration of a batch is bounded elsewhere.
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
        """Admit changes to the room; return the superseded ones as pairs of (seq, row id)."""
        work = self._work
        work.claim_lag.add([change.waited.total_seconds() for change in changes])
        work.resting.clear()
        superseded = self.room.admit(changes, now())
        work.telemetry.settled(work.stream, superseded.ages)
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
            # After a failure one row tests whether the service is back, and the others wait for it,
            # but not for batches in flight, which may take long.
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
            # Before Python 3.12, wait_for loses a cancellation that coincides with the event.
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
            work.telemetry.handled(work.stream, len(rows), now() - began)
            self._dispatched_at = now()
            self._running -= 1
            self._slots.release()
            self._moved.set()

    def _learn(self, rows: frozenset[int], outcome: BatchOutcome) -> None:
        ended, work = now(), self._work
        work.telemetry.settled(work.stream, self.room.settle(outcome.settled, ended))
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
        _log.warning(
            f"{fault.event}, keeping changes in the outbox",
            stream=str(self._work.stream),
            reason=str(fault),
            failures=self.pause.failures,
            next_try_in_seconds=round(delay.total_seconds(), 1),
        )
