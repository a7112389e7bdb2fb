"""The waiting room: one question per row, a row in one batch at a time, nothing lost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from listener.domain.change import Batch, Change
from listener.domain.room import Room, RoomLimits, Superseded

LINGER = 0.5
COOL_DOWN = 2.0
DEFERRED = 2


def limits(
    batch_size: int = 3, capacity: int = 20, linger: float = LINGER, cool_down: float = COOL_DOWN
) -> RoomLimits:
    return RoomLimits(
        capacity,
        batch_size,
        timedelta(seconds=linger),
        timedelta(seconds=cool_down),
        deferred_size=DEFERRED,
    )


def changes(*entries: tuple[int, int], waited: float = 0.0) -> list[Change]:
    return [Change(seq, row, timedelta(seconds=waited)) for seq, row in entries]


def batch_of(room: Room, now: float) -> dict[int, tuple[int, ...]]:
    batch = room.next_batch(now)
    assert isinstance(batch, Batch), batch
    return batch.changes


class Rooms(RuleBasedStateMachine):
    """Any order of changes, batches and outcomes; times are exact in binary.

    `rows` are the changes in the room, `waiting` and `in_flight` those that will be settled when
    their row is.
    """

    @initialize(batch_size=st.integers(1, 4), linger=st.sampled_from([0.0, LINGER]))
    def open(self, batch_size: int, linger: float) -> None:
        self.capacity = 6
        self.batch_size = batch_size
        self.room = Room(limits(batch_size, self.capacity, linger))
        self.now = 1000.0
        self.last_seq = 0
        self.recorded_at: dict[int, float] = {}
        self.rows: dict[int, int] = {}
        self.waiting: dict[int, set[int]] = {}
        self.in_flight: dict[int, set[int]] = {}
        self.not_before: dict[int, float] = {}
        self.asked: list[int] = []
        self.settled: set[int] = set()
        self.deferred: set[int] = set()

    @precondition(lambda self: self.room.free)
    @rule(
        rows=st.lists(st.integers(1, 9), max_size=6),
        waited=st.sampled_from([0.0, 0.25, 8.0]),
        reverse=st.booleans(),
    )
    def admit(self, rows: list[int], waited: float, reverse: bool) -> None:
        found = []
        for row in rows[: self.room.free]:
            self.last_seq += 1
            self.recorded_at[self.last_seq] = self.now - waited
            found.append((self.last_seq, row))
        # One look returns changes in order; several looks need not.
        found = found[::-1] if reverse else found
        self.take_in(found, waited)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def admit_again(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.rows)))
        assert self.room.admit(changes((seq, self.rows[seq])), self.now) == Superseded()

    def take_in(self, found: list[tuple[int, int]], waited: float) -> None:
        spare: set[int] = set()
        for seq, row in found:
            self.rows[seq] = row
            if row not in self.waiting.keys() | self.in_flight.keys() | set(self.asked):
                # The room has already forgotten that it was asked about.
                self.not_before.pop(row, None)
            entries = self.waiting.setdefault(row, set())
            entries.add(seq)
            if len(entries) > 1:
                spare |= entries - {max(entries)}
                self.waiting[row] = {max(entries)}
        superseded = self.room.admit(changes(*found, waited=waited), self.now)
        assert sorted(superseded.entries) == sorted((seq, self.rows[seq]) for seq in spare)
        assert len(superseded.ages) == len(spare)
        assert all(age >= waited for age in superseded.ages)
        self.forget(spare)

    def forget(self, seqs: set[int]) -> None:
        assert not seqs & self.settled
        self.settled |= seqs
        for seq in seqs:
            del self.rows[seq]

    @rule(seconds=st.sampled_from([0.125, 0.5, 2.0, 64.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(most=st.sampled_from([None, None, 1, 2]))
    def take(self, most: int | None) -> None:
        self.take_one(most)

    @rule()
    def wait_and_take(self) -> None:
        # For a row to be ready, for the linger of a batch that is not full, for deferred rows.
        for _ in range(4):
            delay = self.take_one()
            if delay is None:
                return
            self.now += delay
        message = "waited four times as long as requested without getting a batch"
        raise AssertionError(message)

    def take_one(self, most: int | None = None) -> float | None:
        quiet = self.room.quiet
        batch = self.room.next_batch(self.now, most=most)
        waiting = self.waiting.keys() - self.in_flight.keys() - self.deferred
        ready = {row for row in waiting if self.not_before.get(row, 0.0) <= self.now}
        if batch is None:
            assert not waiting
            assert not self.deferred
            return None
        if not isinstance(batch, Batch):
            assert batch > 0
            assert not ready or (not quiet and len(ready) < self.batch_size)
            assert len(self.deferred) < DEFERRED
            assert not self.deferred or not quiet or ready
            return batch
        assert not batch.changes.keys() & self.in_flight.keys()
        if batch.changes.keys() & self.deferred:
            assert batch.changes.keys() <= self.deferred
            assert len(batch.changes) == min(len(self.deferred), DEFERRED, most or DEFERRED)
            self.deferred -= batch.changes.keys()
        else:
            assert batch.changes.keys() <= ready
            most = most or self.batch_size
            assert len(batch.changes) == min(len(ready), self.batch_size, most)
        for row, seqs in batch.changes.items():
            assert len(seqs) == len(set(seqs))
            assert set(seqs) == self.waiting[row]
            self.in_flight[row] = self.waiting.pop(row)
        return None

    def some_in_flight(self, data: st.DataObject) -> set[int]:
        return data.draw(st.sets(st.sampled_from(sorted(self.in_flight)), min_size=1))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        self.settle_rows(self.some_in_flight(data))

    def settle_rows(self, rows: set[int]) -> None:
        ages = self.room.settle(rows, self.now)
        seqs = set().union(*(self.in_flight.pop(row) for row in rows))
        assert len(ages) == len(seqs)
        assert sum(ages) >= sum(self.now - self.recorded_at[seq] for seq in seqs)
        self.forget(seqs)
        self.not_before |= dict.fromkeys(rows, self.now + COOL_DOWN)
        self.asked = [row for row in self.asked if row not in rows] + list(rows)
        self.asked = self.asked[-self.capacity :]

    def put_back(self, rows: set[int]) -> None:
        for row in rows:
            self.waiting[row] = self.waiting.get(row, set()) | self.in_flight.pop(row)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        rows = self.some_in_flight(data)
        self.room.ask_again(rows, self.now)
        self.put_back(rows)
        self.not_before |= dict.fromkeys(rows, self.now + COOL_DOWN)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        rows = self.some_in_flight(data)
        self.room.release(rows, self.now)
        self.put_back(rows)
        self.not_before |= dict.fromkeys(rows, self.now)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def defer(self, data: st.DataObject) -> None:
        rows = self.some_in_flight(data)
        self.room.defer(rows, self.now)
        self.put_back(rows)
        self.deferred |= rows

    @invariant()
    def every_change_is_held_until_it_is_settled(self) -> None:
        if not hasattr(self, "room"):
            return
        assert sorted(self.room.held(0)) == sorted(self.rows)
        middle = self.last_seq // 2
        assert sorted(self.room.held(middle)) == sorted(seq for seq in self.rows if seq > middle)
        assert self.room.size == len(self.rows)
        assert self.room.quiet == (not self.in_flight)

    @invariant()
    def room_is_bounded(self) -> None:
        if not hasattr(self, "room"):
            return
        assert self.room.claimable == min(self.room.free, 4 * self.batch_size)
        assert self.room.size <= 2 * self.capacity
        assert self.room.free <= 2 * self.capacity - len(self.rows)
        # Only rows that cool down take no place; some may have finished already.
        placed = self.in_flight.keys() | self.deferred
        idle = self.waiting.keys() - placed
        cooling = {row for row in idle if self.not_before.get(row, 0.0) > self.now}
        most = min(self.capacity - len(placed), 2 * self.capacity - len(self.rows))
        assert self.room.free <= max(0, most)
        assert self.room.free >= min(most, self.capacity - len(placed | idle) + len(cooling))

    def teardown(self) -> None:
        if not hasattr(self, "room"):
            return
        for _ in range(60):
            self.settle_rows(set(self.in_flight))
            delay = self.take_one()
            self.now += delay or 0
            if delay is None and not self.in_flight:
                break
        assert self.room.free == self.capacity
        assert self.room.size == 0
        assert self.settled == set(range(1, self.last_seq + 1))


TestRoom = Rooms.TestCase


def test_deferred_rows_leave_together_once_they_fill_a_page() -> None:
    room = Room(limits(batch_size=1, capacity=20))
    room.admit(changes((1, 1), (2, 2), (3, 3)), 0.0)
    for _ in range(3):
        batch_of(room, 0.0)
    room.defer([1], 0.0)
    assert room.next_batch(0.0) == 10 * LINGER
    room.defer([3], 1.0)
    assert batch_of(room, 1.0) == {1: (1,), 3: (3,)}


def test_deferred_row_waits_at_most_ten_lingers() -> None:
    room = Room(limits(batch_size=1, capacity=20))
    room.admit(changes((1, 1), (2, 2)), 0.0)
    for _ in range(2):
        batch_of(room, 0.0)
    room.defer([1], 0.0)
    assert room.next_batch(10 * LINGER - 0.5, full=True) == 0.5
    batch = room.next_batch(10 * LINGER, full=True)
    assert isinstance(batch, Batch)
    assert batch.changes == {1: (1,)}


def test_deferred_row_does_not_wait_in_an_idle_room() -> None:
    room = Room(limits())
    room.admit(changes((1, 1), (2, 2)), 0.0)
    batch_of(room, 0.0)
    room.defer([2], 0.0)
    room.settle([1], 0.0)
    assert batch_of(room, 0.0) == {2: (2,)}


def test_deferred_row_that_changes_again_is_one_question() -> None:
    room = Room(limits())
    room.admit(changes((1, 1)), 0.0)
    batch_of(room, 0.0)
    room.defer([1], 0.0)
    assert room.admit(changes((2, 1)), 0.0).entries == [(1, 1)]
    assert batch_of(room, 0.0) == {1: (2,)}


def test_idle_room_hands_out_a_change_at_once() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    assert batch_of(room, 0.0) == {7: (1,)}


@given(st.floats(0, 1e7), st.integers(0, 300_000))
def test_idle_room_hands_out_a_change_at_once_whatever_the_clock_shows(
    now: float, cool_down_ms: int
) -> None:
    room = Room(limits(cool_down=cool_down_ms / 1000))
    room.admit(changes((1, 7)), now)
    assert batch_of(room, now) == {7: (1,)}


def test_empty_room_has_nothing_to_wait_for() -> None:
    assert Room(limits()).next_batch(0.0) is None


def test_latest_change_of_a_row_supersedes_earlier_ones() -> None:
    room = Room(limits())
    superseded = room.admit(changes((1, 7), (2, 8), (3, 7), (4, 7)), 0.0)
    assert superseded == Superseded([(1, 7), (3, 7)], [0.0, 0.0])
    assert (room.size, room.held(0)) == (2, [4, 2])
    assert batch_of(room, 0.0) == {7: (4,), 8: (2,)}


def test_change_that_becomes_visible_after_a_later_one_of_its_row_is_superseded() -> None:
    room = Room(limits())
    room.admit(changes((5, 7)), 0.0)
    assert room.admit(changes((3, 7)), 1.0).entries == [(3, 7)]
    assert batch_of(room, 1.0) == {7: (5,)}


def test_change_that_comes_while_its_row_is_asked_about_supersedes_nothing() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    assert room.admit(changes((1, 7), (2, 7)), 0.0) == Superseded()
    assert sorted(room.held(0)) == [1, 2]


def test_superseded_changes_are_reported_with_their_ages() -> None:
    room = Room(limits())
    room.admit(changes((1, 7), waited=3), 10.0)
    assert room.admit(changes((2, 7), waited=1), 12.0) == Superseded([(1, 7)], [5.0])


def test_batch_fills_while_another_one_is_in_flight() -> None:
    room = Room(limits())
    room.admit(changes((1, 1)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 2)), 0.0)
    assert room.next_batch(0.125) == LINGER - 0.125
    room.admit(changes((3, 3), (4, 4)), 0.25)
    assert batch_of(room, 0.25).keys() == {2, 3, 4}


def test_batch_that_does_not_fill_leaves_after_the_linger() -> None:
    room = Room(limits())
    room.admit(changes((1, 1)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 2)), 0.0)
    room.admit(changes((3, 3)), 0.25)
    assert batch_of(room, LINGER).keys() == {2, 3}


def test_batch_leaves_at_once_when_nothing_is_in_flight_any_more() -> None:
    room = Room(limits())
    room.admit(changes((1, 1)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 2)), 0.0)
    assert room.next_batch(0.0) == LINGER
    room.settle({1}, 0.125)
    assert batch_of(room, 0.125).keys() == {2}


def test_oldest_rows_leave_first() -> None:
    room = Room(limits())
    room.admit(changes((1, 9), (2, 5), (3, 7), (4, 1), (5, 2)), 0.0)
    assert batch_of(room, 0.0).keys() == {9, 5, 7}


def test_row_changed_while_in_flight_is_handed_out_again_after_the_cool_down() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 7)), 0.25)
    assert room.next_batch(0.25) is None
    room.settle({7}, 0.5)
    assert room.held(0) == [2]
    assert room.next_batch(0.5) == COOL_DOWN
    assert batch_of(room, 0.5 + COOL_DOWN) == {7: (2,)}


def test_row_changed_just_after_it_was_asked_about_cools_down() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.settle({7}, 0.0)
    room.admit(changes((2, 7)), 0.5)
    assert room.next_batch(0.5) == COOL_DOWN - 0.5
    assert room.admit(changes((3, 7)), 1.0).entries == [(2, 7)]
    assert batch_of(room, COOL_DOWN) == {7: (3,)}


def test_row_changed_long_after_it_was_asked_about_is_handed_out_at_once() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.settle({7}, 0.0)
    room.admit(changes((2, 7)), COOL_DOWN)
    assert batch_of(room, COOL_DOWN) == {7: (2,)}


def test_cooling_row_does_not_hold_others_back() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.ask_again({7}, 0.0)
    room.admit(changes((2, 8)), 0.0)
    assert batch_of(room, 0.0) == {8: (2,)}


def test_released_row_can_leave_at_once_with_its_new_changes() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 7)), 0.0)
    room.release({7}, 0.25)
    assert batch_of(room, 0.25) == {7: (1, 2)}


def test_full_room_admits_nothing() -> None:
    room = Room(limits(batch_size=1, capacity=6))
    room.admit(changes(*((seq, seq) for seq in range(1, 5))), 0.0)
    assert (room.free, room.claimable) == (2, 2)
    batch_of(room, 0.0)
    assert room.free == 2
    room.settle({1}, 0.0)
    assert (room.free, room.claimable) == (3, 3)


def test_many_changes_of_one_row_take_one_place() -> None:
    room = Room(limits(batch_size=1, capacity=6))
    superseded = room.admit(changes(*((seq, 7) for seq in range(1, 601))), 0.0)
    assert (room.free, room.size, room.held(0)) == (5, 1, [600])
    assert superseded.entries == [(seq, 7) for seq in range(1, 600)]
    assert batch_of(room, 0.0) == {7: (600,)}
    assert room.free == 5


def test_rows_that_cool_down_take_no_place_up_to_as_many_as_the_room_holds() -> None:
    room = Room(limits(batch_size=4, capacity=4))
    room.admit(changes(*((row, row) for row in range(1, 5))), 0.0)
    batch_of(room, 0.0)
    assert room.free == 0
    room.ask_again(range(1, 5), 0.0)
    assert (room.free, room.size) == (4, 4)
    room.admit(changes(*((row, row) for row in range(5, 8))), 1.0)
    assert (room.free, room.size) == (1, 7)
    batch_of(room, 1.0)
    room.ask_again(range(5, 8), 1.0)
    # The room is bounded even if nothing is asked.
    assert (room.free, room.size) == (1, 7)
    room.admit(changes((8, 8)), 1.0)
    assert (room.free, room.claimable, room.size) == (0, 0, 8)


def test_rows_that_have_cooled_down_take_their_places_again() -> None:
    room = Room(limits(batch_size=2, capacity=4))
    room.admit(changes((1, 1), (2, 2)), 0.0)
    batch_of(room, 0.0)
    room.ask_again({1, 2}, 0.0)
    room.admit(changes((3, 3), (4, 4), (5, 5), (6, 6)), 0.0)
    assert room.free == 0
    assert batch_of(room, COOL_DOWN).keys() == {3, 4}
    assert room.free == 0
    room.settle({3, 4}, COOL_DOWN)
    assert room.free == 0
    batch_of(room, COOL_DOWN)
    room.settle({5, 6}, COOL_DOWN)
    assert room.free == 2


def test_rows_just_asked_about_are_remembered_in_bounded_memory() -> None:
    room = Room(limits(batch_size=1, capacity=5, cool_down=1000))
    for seq in range(1, 101):
        room.admit(changes((seq, seq)), 0.0)
        batch_of(room, 0.0)
        room.settle({seq}, 0.0)
    assert len(room._asked) <= 5  # noqa: SLF001 - its size is the promise
    room.admit(changes((101, 100), (102, 1)), 0.0)
    assert batch_of(room, 0.0) == {1: (102,)}
    room.settle({1}, 2000.0)
    assert len(room._asked) == 1  # noqa: SLF001 - its size is the promise


@pytest.mark.parametrize("outcome", ["settle", "ask_again", "release", "defer"])
def test_row_that_is_not_in_flight_cannot_be_settled_or_put_back(outcome: str) -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    with pytest.raises(KeyError):
        getattr(room, outcome)({7}, 0.0)


def test_late_row_is_asked_again_after_the_cool_down_however_often_it_is_late() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    for number in range(5):
        now = number * COOL_DOWN
        assert batch_of(room, now) == {7: (1,)}
        room.ask_again({7}, now)
        assert room.next_batch(now) == COOL_DOWN


def test_late_row_leaves_with_its_old_and_new_changes() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 7)), 1.0)
    room.ask_again({7}, 1.0)
    assert (room.size, sorted(room.held(0))) == (2, [1, 2])
    assert batch_of(room, 1.0 + COOL_DOWN) == {7: (1, 2)}
    assert room.settle({7}, 4.0) == [4.0, 4.0]
    assert (room.size, room.free) == (0, 20)


def test_late_row_is_as_old_as_the_oldest_of_its_changes() -> None:
    room = Room(limits())
    room.admit(changes((2, 7)), 10.0)
    batch_of(room, 10.0)
    room.admit(changes((1, 7), waited=5), 11.0)
    room.ask_again({7}, 11.0)
    batch_of(room, 13.0)
    assert room.settle({7}, 13.0) == [7.0, 7.0]


def test_change_of_a_late_row_supersedes_all_that_it_was_asked_for() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 7)), 1.0)
    room.ask_again({7}, 1.0)
    assert room.admit(changes((1, 7), (3, 7)), 2.0) == Superseded([(1, 7), (2, 7)], [2.0, 2.0])
    assert batch_of(room, 1.0 + COOL_DOWN) == {7: (3,)}


def test_batch_respects_its_row_limit() -> None:
    room = Room(limits())
    room.admit(changes((1, 1), (2, 2), (3, 3)), 0.0)
    batch = room.next_batch(0.0, most=2)
    assert isinstance(batch, Batch)
    assert batch.row_ids == [1, 2]


def test_settling_returns_how_old_the_changes_are() -> None:
    room = Room(limits())
    room.admit([Change(1, 7, timedelta(seconds=3)), Change(2, 8, timedelta(0))], 10.0)
    assert room.size == 2
    batch_of(room, 10.5)
    room.release([7], 11.0)
    assert room.size == 2
    assert room.settle([8], 13.0) == [3.0]
    batch_of(room, 13.0)
    assert room.settle([7], 14.0) == [7.0]
    assert room.size == 0


@pytest.mark.parametrize("batch_size", [0, 21])
def test_room_that_could_never_fill_a_batch_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size {batch_size} must lie"):
        limits(batch_size=batch_size, capacity=20)
