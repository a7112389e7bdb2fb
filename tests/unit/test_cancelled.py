"""Cancelled work ends, even if part of it fails at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from listener.domain.change import Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.room import RoomLimits
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.routine import Job, Routine
from listener.engine.supervisor import Supervisor
from listener.engine.tenure import ConsumerLimits
from tests.unit.clock import for_a_while
from tests.unit.fakes import Lane, Outbox, Worker
from tests.unit.test_routine import Bell, Slots


async def break_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise StoreUnavailableError("cut") from None


class Lanes:
    @asynccontextmanager
    async def hold(self, stream: Stream) -> AsyncIterator[Lane]:
        await break_when_cancelled()
        yield Lane(Outbox())


def supervisor() -> Coroutine[Any, Any, None]:
    outbox = Outbox()
    limits = ConsumerLimits(RoomLimits(1, 1, timedelta(), timedelta()), 1, timedelta(seconds=1))
    handle = Worker(outbox, Stream.LIBRARY).handle
    circuit = Circuit(Stream.LIBRARY)
    consumer = Consumer(Stream.LIBRARY, outbox, handle, limits, circuit=circuit)
    return Supervisor(Lanes(), {consumer: []}, timedelta()).run(asyncio.Event())


def routine() -> Coroutine[Any, Any, None]:
    async def work(_cause: str, _slot: datetime) -> None:
        await break_when_cancelled()

    return Routine([Job("sweep", timedelta(hours=1), work)], Slots(), Bell()).run()


@pytest.mark.parametrize("work", [supervisor, routine])
async def test_cancellation_is_not_lost(work: Any) -> None:  # noqa: ANN401 - either of the two
    running = asyncio.get_running_loop().create_task(work())
    await for_a_while(1)
    running.cancel()
    await for_a_while(100)
    assert running.done()
    assert running.cancelled()
