"""A daemon's view of itself: pulses, readings and samples."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse, Reading, Sample, StreamReading, WakeMode
from listener.domain.room import RoomLimits
from listener.domain.tally import Duty
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.recorder import Recorder
from listener.engine.supervisor import in_background
from listener.engine.telemetry import Telemetry, TelemetryFanOut
from listener.engine.tenure import ConsumerLimits
from listener.engine.watch import Watch
from tests.unit.clock import eventually, for_a_while
from tests.unit.fakes import Lane, Outbox

Logs = list[MutableMapping[str, Any]]

LIMITS = ConsumerLimits(
    RoomLimits(30, 3, timedelta(seconds=0.1), timedelta(seconds=2)), 1, timedelta(days=1)
)
PULSE = Pulse(
    stream=Stream.LIBRARY,
    wake_mode=WakeMode.NOTIFY,
    breaker=BreakerState.CLOSED,
    stalled=timedelta(),
    looked=timedelta(),
    claimed=0,
    held=0,
)


@dataclass
class Observed(Telemetry):
    """The reports of a consumer."""

    ages: list[float] = field(default_factory=list)
    batches: list[tuple[int, float]] = field(default_factory=list)

    def settled(self, _stream: Stream, ages: Sequence[float], /) -> None:
        self.ages += ages

    def handled(self, _stream: Stream, rows: int, took: float, /) -> None:
        self.batches.append((rows, took))


class Case:
    """A consumer whose batches take as long as the test wants."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.lane = Lane(self.outbox)
        self.gate = asyncio.Event()
        self.gate.set()
        self.observed = Observed()
        self.consumer = Consumer(
            Stream.LIBRARY,
            self.outbox,
            self.handle,
            LIMITS,
            circuit=Circuit(Stream.LIBRARY),
            telemetry=TelemetryFanOut(self.observed),
        )

    async def handle(self, batch: Batch) -> BatchOutcome:
        await self.gate.wait()
        rows = frozenset(batch.changes)
        await self.outbox.settle(Stream.LIBRARY, batch.entries(rows))
        return BatchOutcome(settled=rows)

    def record(self, *rows: int) -> None:
        self.outbox.record(*rows)
        self.lane.wake()

    @property
    def pulse(self) -> Pulse:
        pulse = self.consumer.pulse()
        assert pulse is not None
        return pulse


@asynccontextmanager
async def following() -> AsyncIterator[Case]:
    case, stop = Case(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.consumer.follow(case.lane, stop))
        await eventually(lambda: case.consumer.pulse() is not None)
        yield case
        case.gate.set()
        stop.set()
    assert case.consumer.pulse() is None


async def test_idle_loops_turn_although_nothing_wakes_them_for_a_day() -> None:
    async with following() as case:
        for _ in range(100):
            await for_a_while(7.3)
            assert case.pulse.stalled <= timedelta(seconds=5.1)


async def test_pulse_counts_what_is_claimed_and_held() -> None:
    async with following() as case:
        case.gate.clear()
        case.record(1, 2, 2)
        await eventually(lambda: case.pulse.claimed == 3)
        # The second change of row 2 supersedes the first.
        assert (case.pulse.claimed, case.pulse.held) == (3, 2)
        case.gate.set()
        await eventually(lambda: not case.outbox.entries)
        await eventually(lambda: case.pulse.held == 0)
        assert case.pulse.claimed == 3
        case.lane.wake_mode = WakeMode.POLL
        assert case.pulse.wake_mode is WakeMode.POLL


async def test_long_batch_is_not_mistaken_for_a_standstill() -> None:
    async with following() as case:
        case.gate.clear()
        case.record(1)
        await eventually(lambda: case.pulse.held == 1)
        case.record(2)
        for _ in range(20):
            await for_a_while(7.3)
            assert case.pulse.stalled <= timedelta(seconds=5.1)
        case.gate.set()
        await eventually(lambda: not case.outbox.entries)
        assert case.pulse.stalled <= timedelta(seconds=5.1)


async def test_every_settled_change_is_reported() -> None:
    async with following() as case:
        case.gate.clear()
        case.record(1, 2)
        await eventually(lambda: case.pulse.held == 2)
        await for_a_while(3.0)
        case.gate.set()
        await eventually(lambda: len(case.observed.ages) == 2)
        assert all(3.0 <= age < 3.5 for age in case.observed.ages)
        ((rows, took),) = case.observed.batches
        assert rows == 2
        assert 2.9 <= took < 3.5


async def test_superseded_changes_are_reported_at_once() -> None:
    async with following() as case:
        case.gate.clear()
        case.record(*[7] * 40)
        # One row is being asked about, and the last one waits.
        await eventually(lambda: len(case.outbox.entries) == 2)
        assert len(case.observed.ages) == 38
        case.gate.set()
        await eventually(lambda: not case.outbox.entries)
        await eventually(lambda: len(case.observed.batches) == 2)
        assert len(case.observed.ages) == case.pulse.claimed == 40


class Database:
    """Returns readings, and stores samples, while it is available."""

    def __init__(self) -> None:
        self.backlog = 0
        self.fault: StoreUnavailableError | None = None
        self.bugs = 0
        self.reads = 0
        self.written: list[Sample] = []
        self.unfoldable: StoreUnavailableError | None = None
        self.folded: list[Stream] = []
        self.counted = 0
        self.takes = 0.0

    async def read(self) -> Reading:
        self.reads += 1
        await self._answer()
        waiting = StreamReading(Stream.LIBRARY, self.backlog, timedelta(seconds=1), followed=False)
        return Reading(
            (waiting, StreamReading(Stream.ROTATION, 0, None, followed=True)), 3, timedelta()
        )

    async def write(self, sample: Sample) -> None:
        await self._answer()
        self.written.append(sample)

    async def count_coverage(self) -> Sequence[int]:
        await self._answer()
        self.counted += 1
        return (self.counted, 0, 0, 0, 0, 0, 0)

    async def fold(self, stream: Stream) -> None:
        if self.unfoldable is not None:
            raise self.unfoldable
        self.folded.append(stream)

    async def _answer(self) -> None:
        await asyncio.sleep(self.takes)
        if self.fault is not None:
            raise self.fault
        if self.bugs:
            self.bugs -= 1
            raise ZeroDivisionError


class Pulses:
    """The pulses of a daemon that follows the library."""

    def __init__(self) -> None:
        self.now: list[Pulse] = [PULSE]

    def __call__(self) -> Sequence[Pulse]:
        return self.now

    def become(self, **changes: object) -> None:
        self.now = [replace(self.now[0], **changes)]  # type: ignore[arg-type]


async def test_reading_is_renewed_and_ages_meanwhile() -> None:
    database = Database()
    watch = Watch(database.read, Pulses())
    async with in_background(watch.run()):
        await eventually(lambda: watch.reading is not None)
        assert database.reads == 1
        await for_a_while(1.5)
        assert watch.reading is not None
        assert watch.reading.age >= timedelta(seconds=1.5)
        await eventually(lambda: database.reads == 3, 4.5)


async def test_lost_database_leaves_the_last_reading_with_the_fault() -> None:
    database = Database()
    watch = Watch(database.read, Pulses())
    async with in_background(watch.run()):
        await eventually(lambda: watch.reading is not None)
        database.fault = StoreUnavailableError("it is gone")
        await eventually(lambda: watch.reading is not None and watch.reading.fault is not None, 5)
        assert watch.reading is not None
        assert (watch.reading.fault, watch.reading.parked) == ("it is gone", 3)
        database.fault = None
        await eventually(lambda: watch.reading is not None and watch.reading.fault is None, 5)


async def test_failures_with_readings_between_them_do_not_add_up(logged: Logs) -> None:
    database = Database()
    watch = Watch(database.read, Pulses())
    async with in_background(watch.run()):
        for _ in range(10):
            database.bugs = 1
            await for_a_while(10)
            assert watch.reading is not None
            assert watch.reading.age < timedelta(seconds=3)
    assert [entry["failures"] for entry in logged] == [1] * 10


async def test_slow_reading_takes_a_tenth_of_the_time() -> None:
    database = Database()
    database.takes = 1.0
    async with in_background(Watch(database.read, Pulses()).run()):
        await for_a_while(60)
    assert database.reads <= 6


async def test_captured_counts_claimed_and_still_waiting_changes() -> None:
    database, pulses = Database(), Pulses()
    database.backlog = 10
    pulses.become(claimed=4, held=3)
    watch = Watch(database.read, pulses)
    async with in_background(watch.run()):
        await eventually(lambda: watch.captured)
        assert watch.captured == {Stream.LIBRARY: 11}
        database.backlog = 0
        pulses.become(claimed=9, held=0)
        await for_a_while(5)
        # A counter never goes back.
        assert watch.captured == {Stream.LIBRARY: 11}


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[Recorder, Database, Pulses]]:
    database, pulses = Database(), Pulses()
    watch = Watch(database.read, pulses)
    recorder = Recorder(database, lambda: watch.reading, pulses, Counter())
    async with in_background(watch.run(), recorder.record()):
        yield recorder, database, pulses


async def test_sample_covers_the_time_since_the_last_one() -> None:
    async with recording() as (recorder, database, pulses):
        recorder.settled(Stream.LIBRARY, [0.5, 1.0, 9.0])
        pulses.become(claimed=3)
        database.backlog = 2
        await eventually(lambda: len(database.written) == 1, 13)
        first = database.written[0]
        assert (first.stream, first.claimed, first.settled, first.backlog) == ("library", 3, 3, 2)
        assert first.worst == timedelta(seconds=9)
        assert first.typical is not None
        assert first.typical.total_seconds() == pytest.approx(1.0, rel=0.06)
        assert timedelta(seconds=10) <= first.lasted <= timedelta(seconds=13)
        assert (first.silent, first.woken) == (timedelta(0), True)
        pulses.become(claimed=4, breaker=BreakerState.OPEN, wake_mode=WakeMode.POLL)
        await eventually(lambda: len(database.written) == 2, 13)
        second = database.written[1]
        assert (second.claimed, second.settled, second.typical) == (1, 0, None)
        assert second.silent >= timedelta(seconds=8)
        assert not second.woken


async def test_coverage_is_counted_once_a_minute_and_old_samples_folded() -> None:
    async with recording() as (_, database, _pulses):
        await for_a_while(610)
        counts = [sample for sample in database.written if sample.coverage is not None]
        assert 8 <= len(counts) <= 11
        assert len(database.written) >= 45
        assert 2 <= len(database.folded) <= 3


async def test_old_samples_that_cannot_be_folded_are_counted_and_new_ones_written() -> None:
    async with recording() as (recorder, database, _pulses):
        database.unfoldable = StoreUnavailableError("permission denied")
        await for_a_while(610)
        assert len(database.written) >= 45
        assert 2 <= recorder.failures[Duty.SAMPLES] <= 3


async def test_stream_followed_elsewhere_is_not_sampled_here() -> None:
    async with recording() as (recorder, database, pulses):
        pulses.now = []
        recorder.settled(Stream.LIBRARY, [1.0])
        await for_a_while(60)
        assert database.written == []


async def test_only_samples_are_lost_while_the_database_is_down() -> None:
    async with recording() as (_, database, _pulses):
        await for_a_while(5)
        database.fault = StoreUnavailableError("it is gone")
        await for_a_while(60)
        assert database.written == []
        database.fault = None
        await eventually(lambda: database.written, 30)
