"""Keeps up with one stream of the outbox."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta

from listener.domain.change import Batch, Stream
from listener.domain.faults import first_of
from listener.domain.health import Pulse
from listener.domain.pacing import BreakerState
from listener.domain.tally import Distribution
from listener.engine.circuit import Circuit
from listener.engine.outcome import BatchOutcome
from listener.engine.ports import Lane, Observer, Outbox
from listener.engine.silent import Unobserved
from listener.engine.tenure import ConsumerLimits, Tenure, Work

_CAUGHT_UP_LOOK = timedelta(milliseconds=20)
# So many failures of LML in a row, and who only catches up does not wait for it any more.
_GIVE_UP = 2
_HEALTH_EVERY = timedelta(seconds=2)


class Consumer:
    """Follows a stream whenever its lane is held here.

    `circuit` is shared with all that ask the same of LML; `well` asks LML how it is while it is
    open. `fault` is what ended the last tenure, or keeps the present one from its work.
    """

    def __init__(
        self,
        stream: Stream,
        outbox: Outbox,
        handle: Callable[[Batch], Awaitable[BatchOutcome]],
        limits: ConsumerLimits,
        *,
        circuit: Circuit,
        calls: Callable[[], int] | None = None,
        well: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._well = well
        self._tenure: Tenure | None = None
        self._fault: str | None = None
        self._work = Work(
            stream=stream,
            outbox=outbox,
            handle=handle,
            limits=limits,
            circuit=circuit,
            observer=Unobserved(),
            calls=calls or (lambda: limits.in_flight),
            claim_lag=Distribution(),
            resting=asyncio.Event(),
            batch_ids=itertools.count(1),
        )

    @property
    def claim_lag(self) -> Distribution:
        """How long changes waited until they were claimed."""
        return self._work.claim_lag

    @property
    def resting(self) -> asyncio.Event:
        """Set while everything in the outbox was claimed."""
        return self._work.resting

    @property
    def fault(self) -> str | None:
        """What keeps changes from being handled; None while all goes well."""
        return self._fault if self._tenure is None else self._tenure.fault

    def observe(self, observer: Observer) -> None:
        """Have an observer notified of what is handled."""
        self._work.observer = observer

    async def follow(self, lane: Lane, stop: asyncio.Event) -> None:
        """Work until `stop` is set and what is in flight is done.

        Raises `LaneLostError`, and `StoreUnavailableError` once one batch after another failed.
        """
        self._tenure = tenure = Tenure(self._work, lane, self.fault)
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._listen_to_lml())
                try:
                    await tenure.run(stop)
                finally:
                    listening.cancel()
        finally:
            self._fault, self._tenure = tenure.fault, None

    def pulse(self) -> Pulse | None:
        """Return how the stream is followed, None while it is not."""
        return None if self._tenure is None else self._tenure.pulse()

    async def catch_up(self, lane: Lane) -> None:
        """Work until every change was handled: answered, or entered in the ledger as failed.

        Raises `LmlUnavailableError` or `StoreUnavailableError` if it gave up on LML or the
        database, and `LaneLostError`.
        """
        done = asyncio.Event()
        circuit, given_up = self._work.circuit, None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.follow(lane, done))
                while given_up is None:
                    await asyncio.sleep(_CAUGHT_UP_LOOK.total_seconds())
                    tenure = self._tenure
                    if self.resting.is_set() and tenure is not None and not tenure.room.size:
                        break
                    # Kept: a call that is still in flight may be answered, and others were not.
                    given_up = circuit.fault if circuit.failures >= _GIVE_UP else None
                done.set()
        except ExceptionGroup as group:
            raise first_of(group) from group
        if given_up is not None:
            raise given_up

    async def _listen_to_lml(self) -> None:
        circuit = self._work.circuit
        while self._well is not None:
            await asyncio.sleep(_HEALTH_EVERY.total_seconds())
            if circuit.state is BreakerState.OPEN:
                circuit.heard(well=await self._well())
