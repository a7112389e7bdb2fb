"""Keeping the lanes going until a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from listener.domain.change import BatchOutcome, Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.room import RoomLimits
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.supervisor import Supervisor, until
from listener.engine.tenure import ConsumerLimits
from tests.unit.clock import eventually, for_a_while, now
from tests.unit.fakes import Lane, Lanes, Outbox, Worker

SHUTDOWN = 10.0
LIMITS = ConsumerLimits(RoomLimits(20, 5, timedelta(0), timedelta(0)), 2, timedelta(seconds=5))


@dataclass
class Beside:
    """Work that runs until cancelled, or fails with `fault` once that is set."""

    begun_at: list[float] = field(default_factory=list)
    cancelled_at: list[float] = field(default_factory=list)
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None

    @property
    def running(self) -> bool:
        return len(self.begun_at) > len(self.cancelled_at)

    def break_with(self, fault: Exception) -> None:
        self.fault = fault
        self.broken.set()

    async def run(self) -> None:
        self.begun_at.append(now())
        try:
            await self.broken.wait()
        except asyncio.CancelledError:
            self.cancelled_at.append(now())
            raise
        if self.fault is not None:
            raise self.fault


class Daemon:
    """A supervisor with one lane per stream, and two kinds of background work for the library.

    `faults` are raised when a lane is taken.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.beside = Beside()
        self.also_beside = Beside()
        self.outboxes = {stream: Outbox() for stream in Stream}
        self.workers = {stream: Worker(self.outboxes[stream], stream) for stream in Stream}
        self.lane: dict[Stream, Lane] = {}
        self.taken_at: dict[Stream, list[float]] = {stream: [] for stream in Stream}
        self.free = {stream: asyncio.Event() for stream in Stream}
        self.faults: dict[Stream, list[Exception]] = {stream: [] for stream in Stream}
        for event in self.free.values():
            event.set()
        self.lanes = Lanes(self._take)
        self.consumers = {
            stream: Consumer(
                stream, self.outboxes[stream], worker.handle, LIMITS, circuit=Circuit(stream)
            )
            for stream, worker in self.workers.items()
        }
        self.supervisor = Supervisor(
            self.lanes,
            {
                consumer: [self.beside.run, self.also_beside.run] * (stream is Stream.LIBRARY)
                for stream, consumer in self.consumers.items()
            },
            timedelta(seconds=SHUTDOWN),
        )

    async def _take(self, stream: Stream) -> Lane:
        self.taken_at[stream].append(now())
        if self.faults[stream]:
            raise self.faults[stream].pop(0)
        await self.free[stream].wait()
        self.lane[stream] = Lane(self.outboxes[stream])
        return self.lane[stream]

    def record(self, stream: Stream, *rows: int) -> None:
        self.outboxes[stream].record(*rows)
        if stream in self.lane:
            self.lane[stream].wake()

    def handled(self, stream: Stream) -> bool:
        return not self.outboxes[stream].entries


@asynccontextmanager
async def running() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(daemon.supervisor.run(daemon.stop))
        yield daemon
        daemon.stop.set()


async def test_both_streams_are_followed() -> None:
    async with running() as daemon:
        for stream in Stream:
            daemon.record(stream, 1, 2)
        await eventually(lambda: all(map(daemon.handled, Stream)))
    assert sorted(daemon.lanes.handed_over) == sorted(Stream)


async def test_daemon_stands_by_for_a_lane_held_elsewhere() -> None:
    async with running() as daemon:
        daemon.free[Stream.LIBRARY].clear()
        daemon.record(Stream.LIBRARY, 1)
        daemon.record(Stream.ROTATION, 2)
        await eventually(lambda: daemon.handled(Stream.ROTATION))
        await for_a_while(30.0)
        assert not daemon.handled(Stream.LIBRARY)
        daemon.free[Stream.LIBRARY].set()
        await eventually(lambda: daemon.handled(Stream.LIBRARY))


async def test_stop_ends_standing_by() -> None:
    async with running() as daemon:
        for event in daemon.free.values():
            event.clear()
        await for_a_while(1.0)
        stopped_at = now()
    assert now() - stopped_at < 0.1
    assert not daemon.lanes.handed_over


async def test_daemon_stands_by_again_after_it_lost_its_lane() -> None:
    async with running() as daemon:
        await eventually(lambda: Stream.LIBRARY in daemon.lane)
        daemon.free[Stream.LIBRARY].clear()
        daemon.lane[Stream.LIBRARY].lose()
        await eventually(lambda: len(daemon.taken_at[Stream.LIBRARY]) == 2)
        daemon.record(Stream.LIBRARY, 1)
        await for_a_while(5.0)
        assert not daemon.handled(Stream.LIBRARY)
        daemon.free[Stream.LIBRARY].set()
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=10.0)


@pytest.mark.parametrize(
    "fault", [StoreUnavailableError("connection refused"), ZeroDivisionError("a bug")]
)
async def test_failed_lane_restarts_and_leaves_the_other_alone(
    fault: Exception,
) -> None:
    async with running() as daemon:
        await eventually(lambda: len(daemon.lane) == 2)
        daemon.lane[Stream.LIBRARY].break_with(fault)
        await eventually(lambda: daemon.lanes.handed_over == [Stream.LIBRARY])
        daemon.record(Stream.ROTATION, 7)
        await eventually(lambda: daemon.handled(Stream.ROTATION), within=0.01)
        daemon.record(Stream.LIBRARY, 8)
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=1.0)
        assert len(daemon.taken_at[Stream.ROTATION]) == 1


async def test_log_says_why_the_database_is_unavailable() -> None:
    with capture_logs() as logs:
        async with running() as daemon:
            await eventually(lambda: len(daemon.lane) == 2)
            daemon.lane[Stream.LIBRARY].break_with(StoreUnavailableError("connection refused"))
            await eventually(lambda: daemon.lanes.handed_over == [Stream.LIBRARY])
    reasons = [entry["reason"] for entry in logs if entry["event"] == "database unavailable"]
    assert reasons == ["connection refused"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (StoreUnavailableError("refused"), [0.5, 1, 2, 2, 2, 2, 2]),
        (ZeroDivisionError("a bug"), [0.5, 1, 2, 4, 8, 15, 15]),
    ],
)
async def test_lane_that_cannot_be_taken_is_tried_after_growing_delays(
    fault: Exception, expected: list[float]
) -> None:
    async with running() as daemon:
        daemon.faults[Stream.LIBRARY] = [fault] * 8
        await eventually(lambda: not daemon.faults[Stream.LIBRARY], within=120.0)
        taken_at = daemon.taken_at[Stream.LIBRARY]
        assert [round(b - a, 2) for a, b in pairwise(taken_at)] == expected
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=expected[-1] + 1)


async def test_database_that_comes_back_is_noticed_after_two_seconds_at_most() -> None:
    async with running() as daemon:
        await eventually(lambda: len(daemon.lane) == 2)
        daemon.faults[Stream.LIBRARY] = [StoreUnavailableError("refused")] * 300
        daemon.lane[Stream.LIBRARY].break_with(StoreUnavailableError("connection lost"))
        await for_a_while(300.0)
        daemon.faults[Stream.LIBRARY].clear()
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=2.1)


async def test_daemon_gives_up_the_lane_of_a_refusing_database_and_tries_again() -> None:
    async with running() as daemon:
        worker = daemon.workers[Stream.LIBRARY]
        worker.answer = lambda batch: BatchOutcome(fault=StoreUnavailableError("read-only"))
        daemon.record(Stream.LIBRARY, 1)
        await for_a_while(60.0)
        assert daemon.lanes.handed_over.count(Stream.LIBRARY) >= 9
        assert Stream.ROTATION not in daemon.lanes.handed_over
        assert daemon.consumers[Stream.LIBRARY].fault == "read-only"
        worker.answer = None
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=4.1)
        await eventually(lambda: daemon.consumers[Stream.LIBRARY].fault is None, within=0.1)


async def test_delay_starts_over_after_a_steady_tenure() -> None:
    async with running() as daemon:
        for number in range(4):
            await eventually(lambda: Stream.LIBRARY in daemon.lane, within=60.0)
            lane = daemon.lane.pop(Stream.LIBRARY)
            await for_a_while(61.0)
            lane.lose()
            await for_a_while(0.6)
            assert len(daemon.taken_at[Stream.LIBRARY]) == number + 2


async def test_stop_waits_for_batches_in_flight() -> None:
    async with running() as daemon:
        worker = daemon.workers[Stream.LIBRARY]
        worker.gate.clear()
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: worker.in_flight)
        daemon.stop.set()
        await for_a_while(SHUTDOWN / 2)
        worker.gate.set()
        finishing_at = now()
    assert now() - finishing_at < 0.1
    assert worker.cancelled == 0
    assert daemon.handled(Stream.LIBRARY)


async def test_stop_cancels_batches_in_flight_for_too_long() -> None:
    async with running() as daemon:
        worker = daemon.workers[Stream.LIBRARY]
        worker.gate.clear()
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: worker.in_flight)
        stopped_at = now()
    assert now() - stopped_at == pytest.approx(SHUTDOWN, abs=0.1)
    assert worker.cancelled == 1
    assert not daemon.handled(Stream.LIBRARY)
    assert sorted(daemon.lanes.handed_over) == sorted(Stream)


async def test_stop_ends_the_wait_to_restart_a_lane() -> None:
    async with running() as daemon:
        daemon.faults[Stream.LIBRARY] = [StoreUnavailableError("refused") for _ in range(99)]
        await for_a_while(40.0)
        stopped_at = now()
    assert now() - stopped_at < 0.1


async def test_until_returns_what_the_work_returns() -> None:
    async def work() -> int:
        return 42

    assert await until(asyncio.Event(), work()) == 42


async def test_until_cancels_the_work_once_stopped() -> None:
    stop, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        try:
            return await asyncio.Future[int]()
        finally:
            cancelled.set()

    asyncio.get_running_loop().call_later(1.0, stop.set)
    assert await until(stop, work()) is None
    assert cancelled.is_set()


async def test_until_raises_the_error_of_the_work() -> None:
    async def work() -> int:
        raise StoreUnavailableError("refused")

    with pytest.raises(ExceptionGroup) as caught:
        await until(asyncio.Event(), work())
    assert caught.group_contains(StoreUnavailableError)


async def test_work_beside_a_lane_begins_once_the_lane_is_ours() -> None:
    async with running() as daemon:
        daemon.free[Stream.LIBRARY].clear()
        await for_a_while(30.0)
        assert not daemon.beside.begun_at
        daemon.free[Stream.LIBRARY].set()
        await eventually(lambda: daemon.beside.running, within=0.01)
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=1.0)
        await for_a_while(300.0)
        assert daemon.beside.running
        assert len(daemon.beside.begun_at) == 1


async def test_work_beside_a_lane_ends_at_once_when_stopped_while_the_consumer_drains() -> None:
    async with running() as daemon:
        worker = daemon.workers[Stream.LIBRARY]
        worker.gate.clear()
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: worker.in_flight and daemon.beside.running)
        daemon.stop.set()
        await eventually(lambda: not daemon.beside.running, within=0.01)
        await for_a_while(SHUTDOWN / 2)
        assert worker.in_flight == 1
        assert Stream.LIBRARY not in daemon.lanes.handed_over
        worker.gate.set()
    assert daemon.handled(Stream.LIBRARY)
    assert worker.cancelled == 0


async def test_work_beside_a_lane_ends_with_the_lane_and_begins_with_the_next() -> None:
    async with running() as daemon:
        await eventually(lambda: daemon.beside.running)
        daemon.free[Stream.LIBRARY].clear()
        daemon.lane[Stream.LIBRARY].lose()
        await eventually(lambda: daemon.beside.cancelled_at, within=0.01)
        assert daemon.lanes.handed_over == [Stream.LIBRARY]
        await for_a_while(60.0)
        assert len(daemon.beside.begun_at) == 1
        daemon.free[Stream.LIBRARY].set()
        await eventually(lambda: daemon.beside.running, within=20.0)
    assert len(daemon.beside.begun_at) == len(daemon.beside.cancelled_at) == 2


async def test_other_lane_that_is_lost_leaves_the_work_alone() -> None:
    async with running() as daemon:
        await eventually(lambda: daemon.beside.running and len(daemon.lane) == 2)
        daemon.lane[Stream.ROTATION].lose()
        await eventually(lambda: daemon.lanes.handed_over == [Stream.ROTATION])
        await for_a_while(30.0)
        assert daemon.beside.running
        assert len(daemon.beside.begun_at) == 1


@pytest.mark.parametrize(
    "fault", [StoreUnavailableError("connection refused"), ZeroDivisionError("a bug")]
)
async def test_work_beside_a_lane_that_breaks_begins_again_with_the_lane(fault: Exception) -> None:
    async with running() as daemon:
        await eventually(lambda: daemon.beside.running)
        daemon.beside.break_with(fault)
        await eventually(lambda: daemon.lanes.handed_over == [Stream.LIBRARY])
        daemon.beside.broken.clear()
        await eventually(lambda: len(daemon.beside.begun_at) == 2, within=1.0)
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=1.0)
        assert len(daemon.taken_at[Stream.ROTATION]) == 1


async def test_lane_is_still_followed_after_the_work_beside_it_is_done() -> None:
    async with running() as daemon:
        await eventually(lambda: daemon.beside.running)
        daemon.beside.broken.set()
        await for_a_while(10.0)
        daemon.record(Stream.LIBRARY, 1)
        await eventually(lambda: daemon.handled(Stream.LIBRARY), within=0.01)
        assert len(daemon.taken_at[Stream.LIBRARY]) == 1


async def test_all_work_beside_a_lane_begins_and_ends_with_it() -> None:
    async with running() as daemon:
        works = (daemon.beside, daemon.also_beside)
        await eventually(lambda: all(work.running for work in works))
        daemon.beside.break_with(ZeroDivisionError("a bug"))
        await eventually(lambda: daemon.also_beside.cancelled_at, within=0.01)
        daemon.beside.broken.clear()
        await eventually(lambda: len(daemon.also_beside.begun_at) == 2, within=1.0)
        assert len(daemon.beside.begun_at) == 2
    assert len(daemon.also_beside.cancelled_at) == 2


async def test_work_that_is_done_leaves_the_other_work_beside_it_alone() -> None:
    async with running() as daemon:
        await eventually(lambda: daemon.beside.running)
        daemon.beside.broken.set()
        await for_a_while(60.0)
        assert daemon.also_beside.running
        assert len(daemon.also_beside.begun_at) == 1
