"""Feeding the waiting room: when to look, when to sleep, and when writers need not wake it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from listener.domain.change import Change, Stream
from listener.domain.room import Room, RoomLimits
from listener.engine.feeder import Feeder
from tests.unit.clock import eventually, for_a_while, now
from tests.unit.fakes import Lane, Outbox

POLL = 5.0


class Feeding:
    def __init__(self, capacity: int = 40, batch_size: int = 10) -> None:
        self.outbox = Outbox()
        self.lane = Lane(self.outbox)
        self.room = Room(
            RoomLimits(capacity, batch_size, timedelta(0), timedelta(0)),
        )
        self.silent_until = 0.0
        self.feeder = Feeder(
            Stream.LIBRARY, self.outbox, self.room, self.lane, timedelta(seconds=POLL)
        )

    def paused_for(self) -> timedelta:
        return timedelta(seconds=max(0.0, self.silent_until - now()))

    def admit(self, changes: tuple[Change, ...]) -> list[tuple[int, int]]:
        return self.room.admit(changes, now()).entries

    async def run(self) -> None:
        await self.feeder.run(self.paused_for, self.admit, lambda: None)

    def settle_all(self) -> None:
        self.outbox.entries.clear()
        batch = self.room.next_batch(now())
        while batch is not None and not isinstance(batch, float):
            self.room.settle(batch.row_ids, now())
            batch = self.room.next_batch(now())

    @property
    def asleep(self) -> bool:
        return bool(self.lane.waits) and self.lane.waits[-1] == POLL


@asynccontextmanager
async def feeding(capacity: int = 40, batch_size: int = 10) -> AsyncIterator[Feeding]:
    feeding = Feeding(capacity, batch_size)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(feeding.run())
        yield feeding
        running.cancel()


async def test_idle_feeder_sleeps_until_it_is_woken() -> None:
    async with feeding() as f:
        await eventually(lambda: f.asleep)
        looks = len(f.outbox.looks)
        await for_a_while(POLL / 2)
        assert len(f.outbox.looks) == looks
        f.outbox.record(7)
        f.lane.wake()
        await eventually(lambda: f.room.held(0), within=0.01)


async def test_poll_finds_changes_without_a_wake_up() -> None:
    async with feeding() as f:
        await eventually(lambda: f.asleep)
        f.outbox.record(7)
        await eventually(lambda: f.room.held(0), within=POLL + 0.1)


async def test_lone_change_sends_writers_no_signal() -> None:
    async with feeding() as f:
        f.outbox.record(7)
        await eventually(lambda: f.asleep)
        assert f.room.held(0) == [1]
        assert "rouse" not in f.outbox.calls


async def test_lone_changes_with_pauses_between_them_send_writers_no_signal() -> None:
    async with feeding() as f:
        for row in range(3):
            f.outbox.record(row)
            f.lane.wake()
            await for_a_while(1.0)
        assert f.room.held(0) == [1, 2, 3]
        assert "rouse" not in f.outbox.calls


async def test_late_commit_below_a_higher_seq_is_found_before_the_feeder_rests() -> None:
    async with feeding() as f:
        f.outbox.open_transaction()
        late = f.outbox.reserve()
        for row in range(3):
            f.outbox.record(row)
            f.lane.wake()
            await for_a_while(2.0)
        f.outbox.record(8)
        f.lane.wake()
        await eventually(lambda: len(f.room.held(0)) == 4)
        f.outbox.entries[late] = 9
        looks = len(f.outbox.looks)
        await eventually(lambda: late in f.room.held(0), within=0.05)
        assert f.outbox.looks[looks][1] > late


async def test_second_look_that_finds_changes_turns_wake_ups_off() -> None:
    async with feeding() as f:
        f.outbox.record(1)
        await eventually(lambda: f.room.held(0))
        assert not f.lane.awake()
        f.outbox.record(2)
        await eventually(lambda: len(f.room.held(0)) == 2, within=0.02)
        await eventually(f.lane.awake, within=0.001)


async def test_full_room_turns_wake_ups_off() -> None:
    async with feeding(capacity=10, batch_size=5) as f:
        await eventually(lambda: f.asleep)
        for row in range(20):
            f.outbox.record(row)
        f.lane.wake()
        await eventually(f.lane.awake, within=0.05)
        f.settle_all()
        await eventually(lambda: f.asleep)
        assert not f.lane.awake()


async def test_pause_turns_wake_ups_off_and_its_end_turns_them_on() -> None:
    async with feeding() as f:
        await eventually(lambda: f.asleep)
        f.silent_until = now() + 10
        f.lane.wake()
        await eventually(f.lane.awake, within=0.05)
        await for_a_while(9)
        assert f.lane.awake()
        await eventually(lambda: not f.lane.awake(), within=2)


async def test_wake_ups_are_turned_on_before_the_feeder_sleeps() -> None:
    async with feeding() as f:
        for row in range(5):
            f.outbox.record(row)
            await for_a_while(0.004)
        assert f.lane.awake()
        await eventually(lambda: f.asleep)
        assert not f.lane.awake()
        last_rouse = max(i for i, call in enumerate(f.outbox.calls) if call == "rouse")
        assert "doze" in f.outbox.calls[last_rouse:]


async def fall_asleep_beside_an_open_transaction(f: Feeding) -> None:
    for row in range(5):
        f.outbox.record(row)
        await for_a_while(0.004)
    assert f.lane.awake()
    f.outbox.open_transaction()
    await eventually(lambda: not f.lane.awake())


async def test_feeder_looks_again_after_dozing_before_it_waits() -> None:
    async with feeding() as f:
        await fall_asleep_beside_an_open_transaction(f)
        await for_a_while(1.0)
        assert f.outbox.calls[f.outbox.calls.index("doze") + 1] == "look"


async def test_feeder_keeps_looking_while_a_transaction_may_have_skipped_a_wake_up() -> None:
    async with feeding() as f:
        await fall_asleep_beside_an_open_transaction(f)
        await for_a_while(10 * POLL)
        assert not f.asleep
        assert max(f.lane.waits) <= 0.25
        # It ends without a wake-up.
        f.outbox.record(99)
        f.outbox.open_since = None
        await eventually(lambda: len(f.room.held(0)) == 6, within=0.3)
        await eventually(lambda: f.asleep, within=1.0)


async def test_feeder_looks_often_at_first_and_then_less_and_less() -> None:
    async with feeding() as f:
        await fall_asleep_beside_an_open_transaction(f)
        await for_a_while(2.0)
        dozed_at = f.outbox.calls.index("doze")
        waits = f.outbox.calls[:dozed_at].count("wait")
        watching = [round(wait * 1000) for wait in f.lane.waits[waits:]]
        assert watching[:7] == [5, 10, 20, 40, 80, 160, 250]


async def test_transaction_that_began_after_dozing_is_not_waited_for() -> None:
    async with feeding() as f:
        for row in range(5):
            f.outbox.record(row)
            await for_a_while(0.004)
        await eventually(lambda: not f.lane.awake())
        f.outbox.open_transaction()
        await eventually(lambda: f.asleep, within=0.1)


async def test_poll_without_a_wake_up_reads_from_the_very_beginning() -> None:
    async with feeding() as f:
        for _ in range(30):
            f.outbox.record(7)
            f.lane.wake()
            await for_a_while(0.1)
            f.settle_all()
        await eventually(lambda: f.asleep)
        assert f.outbox.looks[-1][1] > 0
        looks = len(f.outbox.looks)
        await for_a_while(POLL)
        assert f.outbox.looks[looks][1] == 0


async def test_wake_up_does_not_cause_a_read_from_the_very_beginning() -> None:
    async with feeding() as f:
        for _ in range(30):
            f.outbox.record(7)
            f.lane.wake()
            await for_a_while(0.1)
            f.settle_all()
        await eventually(lambda: f.asleep)
        looks = len(f.outbox.looks)
        f.outbox.record(7)
        f.lane.wake()
        await eventually(lambda: f.room.held(0), within=0.01)
        assert f.outbox.looks[looks][1] > 0


async def test_nothing_is_claimed_during_a_pause() -> None:
    async with feeding() as f:
        await eventually(lambda: f.asleep)
        f.silent_until = now() + 60.0
        f.outbox.record(7)
        f.lane.wake()
        looks = len(f.outbox.looks)
        await for_a_while(59.0)
        assert len(f.outbox.looks) == looks
        await eventually(lambda: f.room.held(0), within=1.1)


async def test_lane_is_visited_at_least_every_second_during_a_pause() -> None:
    async with feeding() as f:
        await eventually(lambda: f.asleep)
        f.silent_until = now() + 60.0
        f.lane.wake()
        waits = len(f.lane.waits)
        await for_a_while(50.0)
        assert max(f.lane.waits[waits:]) <= 1.0


async def test_full_room_claims_nothing_until_there_is_space() -> None:
    async with feeding(capacity=10, batch_size=5) as f:
        f.outbox.record(*range(100))
        await eventually(lambda: not f.room.free)
        looks = len(f.outbox.looks)
        await for_a_while(10.0)
        assert len(f.outbox.looks) == looks
        batch = f.room.next_batch(now())
        assert not isinstance(batch, float)
        assert batch is not None
        f.room.settle(batch.changes, now())
        await eventually(lambda: not f.room.free, within=0.05)


async def test_lane_is_visited_while_a_backlog_is_read() -> None:
    async with feeding(capacity=40, batch_size=10) as f:
        f.outbox.record(*range(400))
        for _ in range(200):
            f.settle_all()
            f.outbox.record(*range(40))
            await for_a_while(0.01)
        gaps = f.lane.waits
        assert len(gaps) > 50


async def test_lane_is_checked_between_any_two_looks_at_a_backlog() -> None:
    """A room that never fills must not keep the lane from hearing its echoes."""
    async with feeding(capacity=400, batch_size=10) as f:
        f.outbox.record(*range(300))
        await eventually(lambda: len(f.room.held(0)) == 300)
        claiming = len(f.outbox.looks) - 1
        assert claiming > 5
        assert len(f.lane.waits) >= claiming - 1


async def test_everything_is_claimed_once_and_in_order() -> None:
    async with feeding(capacity=1000, batch_size=10) as f:
        f.outbox.record(*range(300))
        await eventually(lambda: len(f.room.held(0)) == 300)
        assert f.outbox.claimed == list(range(1, 301))


async def test_long_sleep_is_split_into_turns_but_counts_as_one_sleep() -> None:
    feeding = Feeding()
    feeding.feeder = Feeder(
        Stream.LIBRARY, feeding.outbox, feeding.room, feeding.lane, timedelta(minutes=10)
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(feeding.run())
        await for_a_while(590)
        looks = len(feeding.outbox.looks)
        assert now() - feeding.feeder.turned_at <= 5.1
        assert feeding.feeder.looked_at is not None
        assert now() - feeding.feeder.looked_at > 500
        await for_a_while(15)
        assert len(feeding.outbox.looks) > looks
        feeding.outbox.record(1)
        feeding.lane.wake()
        await eventually(lambda: feeding.room.size == 1, within=1)
        running.cancel()


class DeafLane(Lane):
    """Receives no wake-ups, and lets its caller look once a second instead."""

    async def wait(self, at_most: timedelta) -> bool:
        return await super().wait(min(at_most, timedelta(seconds=1)))


async def test_long_poll_interval_does_not_matter_while_wake_ups_are_down() -> None:
    f = Feeding()
    f.feeder = Feeder(
        Stream.LIBRARY, f.outbox, f.room, DeafLane(f.outbox), timedelta(seconds=100 * POLL)
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(f.run())
        await for_a_while(3)
        f.outbox.record(7)
        await eventually(lambda: f.room.held(0), within=1.1)
        running.cancel()


async def test_superseded_changes_leave_the_outbox_before_the_next_look() -> None:
    async with feeding(capacity=10, batch_size=5) as f:
        f.outbox.record(*[7] * 600, 8)
        await eventually(lambda: f.asleep)
        assert list(f.outbox.entries.items()) == [(600, 7), (601, 8)]
        assert f.outbox.settled == [(seq, 7) for seq in range(1, 600)]
        assert f.outbox.claimed == list(range(1, 602))
        assert sorted(f.room.held(0)) == [600, 601]


async def test_changes_of_different_rows_stay_in_the_outbox() -> None:
    async with feeding() as f:
        f.outbox.record(1, 2, 3)
        await eventually(lambda: f.asleep)
        assert f.outbox.settled == []


async def test_feeder_is_behind_from_a_pause_with_free_room_until_its_next_look() -> None:
    async with feeding() as f:
        await eventually(lambda: f.asleep)
        f.silent_until = now() + 5
        f.lane.wake()
        await eventually(lambda: f.feeder.behind, within=0.01)
        await for_a_while(4)
        assert f.feeder.behind
        await eventually(lambda: not f.feeder.behind, within=1.3)


async def test_full_room_does_not_count_as_falling_behind() -> None:
    async with feeding(capacity=10, batch_size=5) as f:
        f.outbox.record(*range(20))
        await eventually(lambda: not f.room.free)
        await for_a_while(1)
        assert not f.feeder.behind
