"""The bell: rings in every slot, never before it, and only wakes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import apscheduler.schedulers.base
import pytest
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given
from hypothesis import strategies as st

from listener.adapters.schedule import ApschedulerBell, _trigger
from listener.app.daemon import AUDIT_BEGINS, SWEEP_BEGINS
from listener.settings import Settings
from tests.unit.clock import for_a_while, now

INTERVALS = [1, 7, 60, 3600, 86400, 7 * 86400]
AROUND_NOW = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds the zone


class _Virtual(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(now(), tz)


@pytest.fixture(autouse=True)
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the scheduler's wall clock go with the loop's."""
    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", _Virtual)


NOTHING, MINUTE = timedelta(), timedelta(minutes=1)


def bell(every: float = 10.0) -> ApschedulerBell:
    return ApschedulerBell({"sweep": timedelta(seconds=every)})


async def waited(bell: ApschedulerBell, at_most: float) -> float:
    began = now()
    await bell.wait("sweep", timedelta(seconds=at_most))
    return now() - began


def next_fire(trigger: IntervalTrigger, previous: datetime | None, at: datetime) -> datetime:
    found = trigger.get_next_fire_time(previous, at)
    assert isinstance(found, datetime)
    return found


def after_boundary(fire: datetime, every: int) -> float:
    """Seconds since the slot began that the fire time lies in."""
    return fire.timestamp() % every


def latest(every: int) -> float:
    """How long after a slot's beginning the bell may ring."""
    return 2 * min(0.02 * every, 300) + 0.001


@pytest.mark.parametrize("every", INTERVALS)
@given(at=AROUND_NOW)
def test_first_ring_is_soon_after_the_beginning_of_the_next_slot(at: datetime, every: int) -> None:
    fire = next_fire(_trigger(timedelta(seconds=every), NOTHING), None, at)
    assert fire >= at
    assert 0 <= after_boundary(fire, every) <= latest(every)
    assert fire.timestamp() // every - at.timestamp() // every in {0, 1}


@pytest.mark.parametrize("every", INTERVALS)
def test_rings_of_a_fleet_are_spread(every: int) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    fires = [next_fire(_trigger(timedelta(seconds=every), NOTHING), None, at) for _ in range(100)]
    spread = max(fires) - min(fires)
    assert spread.total_seconds() > min(0.02 * every, 300) / 2


@pytest.mark.parametrize("every", INTERVALS)
def test_next_rings_are_never_before_their_slots(every: int) -> None:
    trigger = _trigger(timedelta(seconds=every), NOTHING)
    fire = next_fire(trigger, None, datetime(2026, 3, 1, tzinfo=UTC))
    first = fire.timestamp() // every
    for number in range(1, 1000):
        fire = next_fire(trigger, fire, fire)
        assert fire.timestamp() // every >= first + number


@pytest.mark.parametrize("every", INTERVALS)
def test_each_slot_has_its_ring_soon_after_its_beginning(every: int) -> None:
    trigger = _trigger(timedelta(seconds=every), NOTHING)
    fire = next_fire(trigger, None, datetime(2026, 3, 1, tzinfo=UTC))
    first = fire.timestamp() // every
    for number in range(1, 1000):
        fire = next_fire(trigger, fire, fire)
        assert fire.timestamp() // every == first + number
        assert after_boundary(fire, every) <= latest(every)


@given(at=AROUND_NOW, hour=st.integers(0, 23))
def test_daily_ring_comes_soon_after_its_time_of_day(at: datetime, hour: int) -> None:
    day, begins = timedelta(days=1), timedelta(hours=hour)
    fire = next_fire(_trigger(day, begins), None, at)
    assert at <= fire < at + day + timedelta(seconds=latest(86_400))
    assert 0 <= after_boundary(fire - begins, 86_400) <= latest(86_400)


async def test_bell_rings_in_each_slot() -> None:
    slots = []
    async with bell().ringing() as ringing:
        for _ in range(20):
            assert await waited(ringing, 99.0) < 10.5
            slots.append(now() // 10)
    assert slots == list(range(int(slots[0]), int(slots[0]) + 20))


async def test_each_job_has_its_own_bell() -> None:
    both = ApschedulerBell({"sweep": timedelta(seconds=10), "audit": timedelta(seconds=1000)})
    rings = 0
    async with both.ringing():
        began = now()
        await both.wait("audit", timedelta(seconds=5000))
        assert now() - began < 1100
        audit_at = now()
        while now() < audit_at + 100:
            await both.wait("sweep", timedelta(seconds=99))
            rings += 1
    assert rings >= 10


async def test_each_job_rings_at_its_own_time() -> None:
    hour = timedelta(hours=1)
    both = ApschedulerBell({"sweep": hour, "audit": hour}, {"audit": timedelta(minutes=30)})
    async with both.ringing():
        await both.wait("audit", 2 * hour)
        assert 1800 <= now() % 3600 <= 1800 + latest(3600)
        await both.wait("sweep", 2 * hour)
        assert 0 <= now() % 3600 <= latest(3600)


async def test_wait_ends_although_the_bell_does_not_ring() -> None:
    async with bell(every=3600.0).ringing() as ringing:
        assert await waited(ringing, 5.0) == pytest.approx(5.0, abs=0.001)
        assert await waited(ringing, 7.0) == pytest.approx(7.0, abs=0.001)


async def test_ring_without_a_listener_is_heard_later() -> None:
    async with bell().ringing() as ringing:
        await for_a_while(11.0)
        assert await waited(ringing, 99.0) < 0.001


async def test_rings_without_a_listener_are_heard_as_one() -> None:
    async with bell().ringing() as ringing:
        await for_a_while(45.0)
        assert await waited(ringing, 99.0) < 0.001
        assert await waited(ringing, 99.0) > 1.0


async def test_bell_without_a_listener_keeps_ringing() -> None:
    async with bell(every=1.0).ringing() as ringing:
        await for_a_while(500.0)
        await waited(ringing, 99.0)
        assert await waited(ringing, 99.0) <= 1.1


async def test_nothing_rings_or_runs_after_the_block() -> None:
    before = asyncio.all_tasks()
    async with bell().ringing() as ringing:
        await waited(ringing, 99.0)
    assert await waited(ringing, 500.0) == pytest.approx(500.0, abs=0.001)
    assert asyncio.all_tasks() == before


async def test_nothing_rings_or_runs_after_the_block_was_cancelled() -> None:
    before = asyncio.all_tasks()
    ringing = bell()

    async def ring() -> None:
        async with ringing.ringing():
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ring())
        await for_a_while(15.0)
        running.cancel()
    await waited(ringing, 0.0)
    assert await waited(ringing, 500.0) == pytest.approx(500.0, abs=0.001)
    assert asyncio.all_tasks() == before


async def test_block_may_be_entered_again() -> None:
    again = bell()
    for _ in range(3):
        await for_a_while(5.0)
        async with again.ringing():
            assert 4.0 < await waited(again, 99.0) < 5.5


# When the backend's jobs that make LML work begin, in minutes of an hour, and of the day.
BACKENDS_MINUTES = {0, 10, 15, 17, 30, 35, 45, 47}


def minutes_of_a_day(begins: timedelta, every: timedelta) -> set[int]:
    """Return the minutes of the day in which a job may begin, its jitter included."""
    day = timedelta(days=1)
    latest = min(every * 0.02, timedelta(minutes=5))
    found = set()
    for number in range(day // every):
        start = (begins + number * every) % day
        found |= set(range(start // MINUTE, (start + latest) // MINUTE + 1))
    return found


@pytest.mark.parametrize("every", [timedelta(minutes=n) for n in (15, 30, 60, 120)])
def test_no_two_heavy_jobs_begin_in_the_same_minute(every: timedelta) -> None:
    at = Settings.model_fields["rotation_warm_at"].default
    walk = timedelta(hours=at.hour, minutes=at.minute)
    day = timedelta(days=1)
    walks, audits = minutes_of_a_day(walk, day), minutes_of_a_day(AUDIT_BEGINS, day)
    sweeps = minutes_of_a_day(SWEEP_BEGINS, every)
    assert not walks & audits | walks & sweeps | audits & sweeps
    assert not {minute % 60 for minute in sweeps} & BACKENDS_MINUTES
    for begins in (walk, AUDIT_BEGINS):
        assert begins // MINUTE % 60 not in BACKENDS_MINUTES
