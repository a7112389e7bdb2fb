"""Scheduled jobs: once per slot, each retried on its own, none stopping another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from listener.domain.faults import StoreUnavailableError
from listener.engine.reconciler import RunHaltedError
from listener.engine.routine import Job, Routine
from tests.unit.clock import eventually, for_a_while, now

FAULTS = [
    StoreUnavailableError("connection refused"),
    RunHaltedError("gave up after 5 failures in a row"),
    ZeroDivisionError("a bug"),
]
EVENTS = list(zip(FAULTS, ["job failed", "job failed", "job broke"], strict=True))


@dataclass
class Slots:
    """Slots by the virtual clock; those in `done` were finished, here or elsewhere."""

    done: set[tuple[str, datetime]] = field(default_factory=set)
    taken: list[tuple[str, datetime]] = field(default_factory=list)
    finished: list[tuple[str, datetime]] = field(default_factory=list)
    fault: Exception | None = None

    def present(self, every: timedelta) -> datetime:
        seconds = every.total_seconds()
        return datetime.fromtimestamp(now() // seconds * seconds, tz=UTC)

    async def take(
        self,
        job: str,
        every: timedelta,
        *,
        begins: timedelta = timedelta(),
        again: bool = False,
    ) -> datetime | None:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        slot = self.present(every)
        if (job, slot) in self.done and not again:
            return None
        self.taken.append((job, slot))
        return slot

    async def finish(self, job: str, slot: datetime) -> None:
        self.finished.append((job, slot))
        self.done.add((job, slot))


@dataclass
class Bell:
    """Rings for all jobs on request."""

    rung: dict[str, asyncio.Event] = field(default_factory=dict)
    at_most: dict[str, list[float]] = field(default_factory=dict)
    is_ringing: bool = False

    def ring(self) -> None:
        for event in self.rung.values():
            event.set()

    async def wait(self, job: str, at_most: timedelta) -> None:
        assert self.is_ringing
        self.at_most.setdefault(job, []).append(at_most.total_seconds())
        event = self.rung.setdefault(job, asyncio.Event())
        try:
            async with asyncio.timeout(at_most.total_seconds()):
                await event.wait()
        except TimeoutError:
            return
        event.clear()

    @asynccontextmanager
    async def ringing(self) -> AsyncIterator[None]:
        self.is_ringing = True
        try:
            yield
        finally:
            self.is_ringing = False


class Daemon:
    """A routine, and what its jobs did: when, and for what cause; `fault` makes a job fail."""

    def __init__(self) -> None:
        self.slots = Slots()
        self.bell = Bell()
        self.jobs: list[Job] = []
        self.done_at: dict[str, list[float]] = {}
        self.causes: dict[str, list[str]] = {}
        self.faults: dict[str, Callable[[], Exception | None]] = {}
        self.takes: dict[str, float] = {}
        self.begun: dict[str, list[datetime]] = {}

    def job(self, name: str, every: float, *, at_start: bool = False) -> Daemon:
        async def work(cause: str, slot: datetime) -> None:
            self.begun.setdefault(name, []).append(slot)
            self.done_at.setdefault(name, []).append(now())
            self.causes.setdefault(name, []).append(cause)
            await asyncio.sleep(self.takes.get(name, 0.0))
            fault = self.faults[name]() if name in self.faults else None
            if fault is not None:
                raise fault

        self.jobs.append(Job(name, timedelta(seconds=every), work, at_start=at_start))
        return self

    def times(self, name: str) -> int:
        return len(self.done_at.get(name, []))

    def slots_done(self, name: str, every: float) -> list[int]:
        return [int(at // every) for at in self.done_at.get(name, [])]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        async with asyncio.TaskGroup() as tasks:
            routine = Routine(self.jobs, self.slots, self.bell)
            running = tasks.create_task(routine.run())
            await asyncio.sleep(0)
            yield running
            running.cancel()


def fails_until(when: float, fault: Exception) -> Callable[[], Exception | None]:
    return lambda: fault if now() < when else None


async def test_each_job_is_done_once_a_slot_however_often_the_bell_rings() -> None:
    daemon = Daemon().job("sweep", 10).job("audit", 60)
    async with daemon.running():
        for _ in range(400):
            await for_a_while(0.5)
            daemon.bell.ring()
        await for_a_while(0.1)
    assert daemon.slots_done("sweep", 10) == list(range(100, 121))
    assert daemon.slots_done("audit", 60) == [16, 17, 18, 19, 20]


async def test_job_is_done_although_the_bell_never_rings() -> None:
    daemon = Daemon().job("sweep", 10).job("audit", 60)
    async with daemon.running():
        await for_a_while(301.0)
    assert len(set(daemon.slots_done("sweep", 10))) == daemon.times("sweep") == 31
    assert daemon.times("audit") == 6
    assert set(daemon.bell.at_most["sweep"]) == {10}


async def test_job_begins_as_soon_as_the_bell_rings_in_a_new_slot() -> None:
    daemon = Daemon().job("sweep", 100)
    async with daemon.running():
        await for_a_while(50.0)
        daemon.bell.ring()
        await for_a_while(51.0)
        assert daemon.times("sweep") == 1
        rung_at = now()
        daemon.bell.ring()
        await eventually(lambda: daemon.times("sweep") == 2)
    assert daemon.done_at["sweep"][1] - rung_at < 0.001


async def test_job_whose_slot_was_done_elsewhere_is_not_done() -> None:
    daemon = Daemon().job("sweep", 100)
    daemon.slots.done.add(("sweep", daemon.slots.present(timedelta(seconds=100))))
    async with daemon.running():
        for _ in range(99):
            await for_a_while(1.0)
            daemon.bell.ring()
        assert not daemon.times("sweep")
        await for_a_while(2.0)
        daemon.bell.ring()
        await eventually(lambda: daemon.times("sweep") == 1)
    assert daemon.causes["sweep"] == ["schedule"]


async def test_slot_of_one_job_says_nothing_about_another() -> None:
    daemon = Daemon().job("sweep", 100).job("audit", 100)
    daemon.slots.done.add(("sweep", daemon.slots.present(timedelta(seconds=100))))
    async with daemon.running():
        await for_a_while(50.0)
    assert (daemon.times("sweep"), daemon.times("audit")) == (0, 1)


async def test_startup_job_is_done_although_its_slot_was_done_elsewhere() -> None:
    daemon = Daemon().job("audit", 100, at_start=True)
    daemon.slots.done.add(("audit", daemon.slots.present(timedelta(seconds=100))))
    async with daemon.running():
        for _ in range(99):
            await for_a_while(1.0)
            daemon.bell.ring()
    assert daemon.times("audit") == 1


async def test_failed_startup_job_is_retried_although_its_slot_was_done() -> None:
    daemon = Daemon().job("audit", 1000, at_start=True)
    daemon.slots.done.add(("audit", daemon.slots.present(timedelta(seconds=1000))))
    daemon.faults["audit"] = fails_until(1040.0, FAULTS[0])
    async with daemon.running():
        await for_a_while(900.0)
    assert daemon.causes["audit"] == ["start", "start", "start"]
    assert [round(at - 1000) for at in daemon.done_at["audit"]] == [0, 15, 45]
    assert len(daemon.slots.finished) == 1


async def test_cause_is_the_start_until_the_job_is_done_and_then_the_schedule() -> None:
    daemon = Daemon().job("sweep", 100).job("audit", 100, at_start=True)
    daemon.faults["sweep"] = fails_until(1010.0, FAULTS[0])
    async with daemon.running():
        await for_a_while(250.0)
    assert daemon.causes["sweep"] == ["start", "start", "schedule", "schedule"]
    assert daemon.causes["audit"] == ["start", "schedule", "schedule"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_job_that_fails_is_tried_again_after_growing_delays(fault: Exception) -> None:
    daemon = Daemon().job("audit", 86400)
    daemon.faults["audit"] = lambda: fault
    async with daemon.running():
        await for_a_while(9200.0)
    delays = [round(b - a) for a, b in pairwise(daemon.done_at["audit"])]
    assert delays == [15, 30, 60, 120, 240, 480, 960, 1800, 1800, 1800, 1800]


@pytest.mark.parametrize(("fault", "event"), EVENTS)
async def test_failure_is_logged_with_its_reason_and_a_bug_with_its_trace(
    fault: Exception, event: str, logged: list[MutableMapping[str, Any]]
) -> None:
    daemon = Daemon().job("audit", 1000)
    daemon.faults["audit"] = lambda: fault
    async with daemon.running():
        await for_a_while(20.0)
    assert [(entry["event"], entry["job"], entry["failures"]) for entry in logged] == [
        (event, "audit", 1),
        (event, "audit", 2),
    ]
    assert logged[0].get("reason") == (str(fault) if event == "job failed" else None)
    assert logged[0].get("exc_info", False) is (event == "job broke")


@pytest.mark.parametrize("fault", FAULTS)
async def test_failing_job_stops_no_other(fault: Exception) -> None:
    daemon = Daemon().job("audit", 60).job("sweep", 10)
    daemon.faults["audit"] = lambda: fault
    async with daemon.running() as routine:
        await for_a_while(301.0)
        assert not routine.done()
    assert daemon.times("sweep") == 31
    assert daemon.times("audit") > 4


async def test_slow_job_delays_no_other() -> None:
    daemon = Daemon().job("audit", 60).job("sweep", 10)
    daemon.takes["audit"] = 1000.0
    async with daemon.running():
        await for_a_while(301.0)
    assert (daemon.times("audit"), daemon.times("sweep")) == (1, 31)


async def test_delays_start_over_after_a_job_is_done() -> None:
    daemon = Daemon().job("audit", 500)
    outcomes = [FAULTS[0], FAULTS[0], FAULTS[0], None, FAULTS[0], None]
    daemon.faults["audit"] = lambda: outcomes.pop(0)
    async with daemon.running():
        await eventually(lambda: not outcomes, within=1500.0)
    assert daemon.bell.at_most["audit"][:5] == [15, 30, 60, 500, 15]


async def test_slot_that_cannot_be_taken_is_tried_again() -> None:
    daemon = Daemon().job("sweep", 1000)
    daemon.slots.fault = StoreUnavailableError("connection refused")
    async with daemon.running():
        await for_a_while(100.0)
        assert daemon.bell.at_most["sweep"] == [15, 30, 60]
        assert not daemon.times("sweep")
        daemon.slots.fault = None
        await eventually(lambda: daemon.times("sweep"), within=20.0)


async def test_slot_is_finished_only_once_its_work_succeeded() -> None:
    daemon = Daemon().job("sweep", 1000)
    daemon.takes["sweep"] = 5.0
    daemon.faults["sweep"] = fails_until(1030.0, FAULTS[1])
    slot = ("sweep", daemon.slots.present(timedelta(seconds=1000)))
    async with daemon.running():
        await for_a_while(57.0)
        assert daemon.slots.taken == [slot] * 3
        assert not daemon.slots.finished
        await for_a_while(5.0)
        assert daemon.slots.finished == [slot]


async def test_slot_is_not_finished_when_its_work_is_cancelled() -> None:
    daemon = Daemon().job("sweep", 1000)
    daemon.takes["sweep"] = 100.0
    async with daemon.running() as routine:
        await eventually(lambda: daemon.times("sweep"))
        routine.cancel()
        await asyncio.wait((routine,))
        assert routine.cancelled()
    assert not daemon.slots.finished
    assert not daemon.bell.is_ringing
