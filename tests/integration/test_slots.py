"""Each scheduled time of a job is given out until somebody has finished it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta

import pytest

from listener.adapters.postgres.connection import Pool
from listener.adapters.postgres.runs import PostgresSlots
from tests.conftest import BACKEND, Connection

# No test runs across the border of two slots.
LONG = timedelta(days=36_500)
PRESENT = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def slots(pool: Pool) -> PostgresSlots:
    """One daemon's view of the slots."""
    return PostgresSlots(pool, BACKEND, "first")


@pytest.fixture
def others(pool: Pool) -> PostgresSlots:
    """Another daemon's view of them."""
    return PostgresSlots(pool, BACKEND, "second")


async def done(slots: PostgresSlots, job: str = "sweep") -> None:
    slot = await slots.take(job, LONG)
    assert slot is not None
    await slots.finish(job, slot)


def move(db: Connection, slot: str) -> None:
    db.execute("UPDATE listener.slot SET slot = %s::timestamptz", (slot,))


async def test_slots_are_at_whole_intervals_since_the_epoch(
    db: Connection, slots: PostgresSlots
) -> None:
    before = datetime.now(tz=UTC)
    slot = await slots.take("sweep", timedelta(minutes=7))
    assert slot is not None
    assert slot.timestamp() % 420 == 0
    assert before - timedelta(minutes=8) < slot <= before + timedelta(minutes=1)
    assert db.execute("SELECT job, slot, next_at, holder, done FROM listener.slot").fetchall() == [
        ("sweep", slot, slot + timedelta(minutes=7), "first", False)
    ]


async def test_finished_slot_is_not_taken_again(
    slots: PostgresSlots, others: PostgresSlots
) -> None:
    await done(slots)
    asked = [each.take("sweep", LONG) for each in (slots, others) for _ in range(4)]
    assert await asyncio.gather(*asked) == [None] * 8


async def test_unfinished_slot_is_taken_over(
    db: Connection, slots: PostgresSlots, others: PostgresSlots
) -> None:
    assert await slots.take("sweep", LONG) == PRESENT
    assert await others.take("sweep", LONG) == PRESENT
    assert await slots.take("sweep", LONG) == PRESENT


async def test_slot_is_finished_only_by_its_last_taker(
    db: Connection, slots: PostgresSlots, others: PostgresSlots
) -> None:
    await slots.take("sweep", LONG)
    await others.take("sweep", LONG)
    await slots.finish("sweep", PRESENT)
    assert await others.take("sweep", LONG) == PRESENT
    await others.finish("sweep", PRESENT)
    assert await slots.take("sweep", LONG) is None


async def test_of_many_that_take_a_slot_at_once_one_can_finish_it(
    pool: Pool, db: Connection
) -> None:
    fleet = [PostgresSlots(pool, BACKEND, f"daemon {number}") for number in range(8)]
    taken = await asyncio.gather(*(each.take("sweep", LONG) for each in fleet))
    assert taken == [PRESENT] * 8
    finished = []
    for each in fleet:
        await each.finish("sweep", PRESENT)
        finished.append(db.execute("SELECT done FROM listener.slot").fetchall() == [(True,)])
    # From the one on that took it last.
    assert sorted(finished) == finished
    assert finished[-1]
    (holder,) = db.execute("SELECT holder FROM listener.slot").fetchall()
    assert holder == (f"daemon {finished.index(True)}",)


async def test_each_job_has_its_own_slots(slots: PostgresSlots) -> None:
    assert await slots.take("audit", LONG) == PRESENT
    await done(slots, "sweep")
    assert await slots.take("sweep", LONG) is None
    assert await slots.take("audit", LONG) == PRESENT


async def test_one_slot_makes_up_for_all_that_were_missed(
    db: Connection, slots: PostgresSlots
) -> None:
    await done(slots)
    move(db, "1169-01-01")
    await done(slots)
    assert await slots.take("sweep", LONG) is None


async def test_finishing_an_earlier_slot_does_not_finish_the_present_one(
    db: Connection, slots: PostgresSlots
) -> None:
    assert await slots.take("sweep", LONG) == PRESENT
    await slots.finish("sweep", PRESENT - LONG)
    assert await slots.take("sweep", LONG) == PRESENT


async def test_slot_taken_before_the_clock_was_set_back_stops_no_job(
    db: Connection, slots: PostgresSlots
) -> None:
    await done(slots)
    move(db, "2999-01-01")
    await done(slots)
    assert await slots.take("sweep", LONG) is None


async def test_finished_slot_is_taken_again_on_demand(slots: PostgresSlots) -> None:
    await done(slots)
    assert await slots.take("sweep", LONG, again=True) == PRESENT
    assert await slots.take("sweep", LONG) == PRESENT
    await slots.finish("sweep", PRESENT)
    assert await slots.take("sweep", LONG) is None


async def test_daily_slot_begins_at_its_time_of_day(slots: PostgresSlots) -> None:
    day = timedelta(days=1)
    taken = []
    for hour in range(0, 24, 3):
        begins = timedelta(hours=hour, minutes=30)
        slot = await slots.take(f"walk at {hour}", day, begins=begins)
        assert slot is not None
        assert slot.astimezone(UTC).time() == time(hour, 30)
        assert slot <= datetime.now(UTC) < slot + day
        taken.append(slot)
    assert len(set(taken)) == 8
