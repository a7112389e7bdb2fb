"""Keeps up with one stream of the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from listener.domain.faults import first_of
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse
from listener.engine.ports import Lane
from listener.engine.tenure import Tenure, Work

_CAUGHT_UP_LOOK = timedelta(milliseconds=5)
# A command that catches up gives up after this many failures of LML in a row.
_GIVE_UP = 2
_HEALTH_EVERY = timedelta(seconds=2)


@dataclass(eq=False)
class Consumer(Work):
    """Follows a stream whenever this daemon holds its lane.

    While the circuit is open, `well` asks LML whether it is healthy.
    """

    well: Callable[[], Awaitable[bool]] | None = None
    _tenure: Tenure | None = field(default=None, init=False)
    _fault: str | None = field(default=None, init=False)

    @property
    def fault(self) -> str | None:
        """Why the last tenure ended, or why the current one cannot handle changes, if so."""
        return self._fault if self._tenure is None else self._tenure.fault

    async def follow(self, lane: Lane, stop: asyncio.Event) -> None:
        """Work until `stop` is set and all batches in flight are done.

        Raises `LaneLostError`, and `StoreUnavailableError` after several batches failed in a row.
        """
        self._tenure = tenure = Tenure(self, lane, self.fault)
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
        """Return the state of the stream; None while this daemon does not follow it."""
        return None if self._tenure is None else self._tenure.pulse()

    async def catch_up(self, lane: Lane) -> None:
        """Work until every change is handled: answered, or recorded in the ledger as failed.

        Raises `LmlUnavailableError` or `StoreUnavailableError` when it gives up on LML or the
        database, and `LaneLostError`.
        """
        done = asyncio.Event()
        given_up = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.follow(lane, done))
                while given_up is None:
                    await asyncio.sleep(_CAUGHT_UP_LOOK.total_seconds())
                    tenure = self._tenure
                    if self.resting.is_set() and tenure is not None and not tenure.room.size:
                        break
                    # A reply to a call still in flight would clear the fault from the circuit.
                    given_up = self.circuit.fault if self.circuit.failures >= _GIVE_UP else None
                done.set()
        except ExceptionGroup as group:
            raise first_of(group) from group
        if given_up is not None:
            raise given_up

    async def _listen_to_lml(self) -> None:
        while self.well is not None:
            await asyncio.sleep(_HEALTH_EVERY.total_seconds())
            if self.circuit.state is BreakerState.OPEN:
                self.circuit.heard(well=await self.well())
