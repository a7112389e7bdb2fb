"""The waiting room: changes by row, one batch a row at a time, nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from listener.domain.room import Room, RoomLimits

LINGER = 0.5
COOL_DOWN = 2.0
APART = 2


def limits(
    batch_size: int = 3, capacity: int = 20, linger: float = LINGER, cool_down: float = COOL_DOWN
) -> RoomLimits:
    return RoomLimits(
        capacity,
        batch_size,
        timedelta(seconds=linger),
        timedelta(seconds=cool_down),
        apart_size=APART,
    )


def changes(*entries: tuple[int, int]) -> list[Change]:
    return [Change(seq, row, timedelta(0)) for seq, row in entries]


def batch_of(room: Room, now: float) -> dict[int, tuple[int, ...]]:
    batch = room.next_batch(now)
    assert isinstance(batch, Batch), batch
    return batch.changes


def delays_of(
    room: Room, put_back: Callable[[Iterable[int], float], None], times: int
) -> list[float]:
    """Hand the one row out so many times and put it back at once; return how long it waits each."""
    now, delays = 0.0, []
    for _ in range(times):
        (row,) = batch_of(room, now)
        put_back({row}, now)
        delay = room.next_batch(now)
        assert isinstance(delay, float)
        delays.append(delay)
        now += delay
    return delays


class Rooms(RuleBasedStateMachine):
    """Any order of changes, batches and outcomes; times are exact in binary."""

    @initialize(batch_size=st.integers(1, 4), linger=st.sampled_from([0.0, LINGER]))
    def open(self, batch_size: int, linger: float) -> None:
        self.capacity = 12
        self.batch_size = batch_size
        self.room = Room(limits(batch_size, self.capacity, linger))
        self.now = 1000.0
        self.last_seq = 0
        self.rows: dict[int, int] = {}
        self.in_flight: dict[int, set[int]] = {}
        self.not_before: dict[int, float] = {}
        self.failures: dict[int, int] = {}
        self.late: dict[int, int] = {}
        self.settled: set[int] = set()
        self.apart: set[int] = set()

    @precondition(lambda self: self.room.free)
    @rule(rows=st.lists(st.integers(1, 5), max_size=4))
    def admit(self, rows: list[int]) -> None:
        found = []
        for row in rows[: self.room.free]:
            self.last_seq += 1
            self.rows[self.last_seq] = row
            found.append((self.last_seq, row))
        self.room.admit(changes(*found), self.now)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def admit_again(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.rows)))
        self.room.admit(changes((seq, self.rows[seq])), self.now)

    @rule(seconds=st.sampled_from([0.125, 0.5, 2.0, 64.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        self.take_one()

    @rule()
    def wait_as_told_and_take(self) -> None:
        # For a row to be ready, for the linger of a batch that is not full, for rows set apart.
        for _ in range(4):
            told = self.take_one()
            if told is None:
                return
            self.now += told
        message = "waited as told four times, and nothing came of it"
        raise AssertionError(message)

    def take_one(self) -> float | None:
        quiet = self.room.quiet
        batch = self.room.next_batch(self.now)
        waiting = {row for row in self.rows.values() if row not in self.in_flight}
        waiting -= self.apart
        ready = {row for row in waiting if self.not_before.get(row, 0.0) <= self.now}
        if batch is None:
            assert not waiting
            assert not self.apart
            return None
        if not isinstance(batch, Batch):
            assert batch > 0
            assert not ready or (not quiet and len(ready) < self.batch_size)
            assert len(self.apart) < APART
            assert not self.apart or not quiet or ready
            return batch
        assert not batch.changes.keys() & self.in_flight.keys()
        if batch.changes.keys() & self.apart:
            assert batch.changes.keys() <= self.apart
            assert len(batch.changes) == min(len(self.apart), APART)
            self.apart -= batch.changes.keys()
        else:
            assert batch.changes.keys() <= ready
            assert len(batch.changes) == min(len(ready), self.batch_size)
        for row, seqs in batch.changes.items():
            assert set(seqs) == {seq for seq, of in self.rows.items() if of == row}
            assert len(seqs) == len(set(seqs))
            self.in_flight[row] = set(seqs)
        return None

    def some_in_flight(self, data: st.DataObject) -> set[int]:
        return data.draw(st.sets(st.sampled_from(sorted(self.in_flight)), min_size=1))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        self.settle_rows(self.some_in_flight(data))

    def settle_rows(self, rows: set[int]) -> None:
        self.room.settle(rows, self.now)
        for row in rows:
            seqs = self.in_flight.pop(row)
            assert not seqs & self.settled
            self.settled |= seqs
            for seq in seqs:
                del self.rows[seq]
            self.failures.pop(row, None)
            self.late.pop(row, None)
            self.not_before[row] = self.now + COOL_DOWN

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        rows = self.some_in_flight(data)
        changed = self.waiting
        self.room.ask_again(rows, self.now)
        for row in rows:
            del self.in_flight[row]
            self.late[row] = 1 if row in changed else self.late.get(row, 0) + 1
            self.not_before[row] = self.now + min(30, COOL_DOWN * 2 ** (self.late[row] - 1))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        rows = self.some_in_flight(data)
        self.room.fail(rows, self.now)
        for row in rows:
            del self.in_flight[row]
            self.failures[row] = self.failures.get(row, 0) + 1
            self.not_before[row] = self.now + min(300, 2 ** (self.failures[row] - 1))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        rows = self.some_in_flight(data)
        self.room.release(rows, self.now)
        for row in rows:
            del self.in_flight[row]
            self.not_before[row] = self.now

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def set_apart(self, data: st.DataObject) -> None:
        rows = self.some_in_flight(data)
        self.room.set_apart(rows, self.now)
        for row in rows:
            del self.in_flight[row]
        self.apart |= rows

    @invariant()
    def every_entry_is_held_until_it_is_settled(self) -> None:
        if not hasattr(self, "room"):
            return
        assert sorted(self.room.held(0)) == sorted(self.rows)
        middle = self.last_seq // 2
        assert sorted(self.room.held(middle)) == sorted(seq for seq in self.rows if seq > middle)
        assert self.room.free == self.capacity - len(self.rows)
        assert self.room.claimable == min(self.room.free, 4 * self.batch_size)
        late = {row for row, times in self.late.items() if times >= 4}
        assert self.room.exhausted == (self.waiting <= self.failures.keys() | late)
        assert self.room.quiet == (not self.in_flight)

    @property
    def waiting(self) -> set[int]:
        taken = set().union(*self.in_flight.values())
        return {row for seq, row in self.rows.items() if seq not in taken}

    def teardown(self) -> None:
        if not hasattr(self, "room"):
            return
        for _ in range(40):
            self.settle_rows(set(self.in_flight))
            told = self.take_one()
            self.now += told or 0
            if told is None and not self.in_flight:
                break
        assert self.room.free == self.capacity
        assert self.settled == set(range(1, self.last_seq + 1))


TestRoom = Rooms.TestCase


def test_rows_set_apart_leave_together_once_they_are_enough() -> None:
    room = Room(limits(batch_size=1, capacity=20))
    room.admit(changes((1, 1), (2, 2), (3, 3)), 0.0)
    for _ in range(3):
        batch_of(room, 0.0)
    room.set_apart([1], 0.0)
    assert room.next_batch(0.0) == 10 * LINGER
    room.set_apart([3], 1.0)
    assert batch_of(room, 1.0) == {1: (1,), 3: (3,)}


def test_row_set_apart_waits_no_longer_than_it_may() -> None:
    room = Room(limits(batch_size=1, capacity=20))
    room.admit(changes((1, 1), (2, 2)), 0.0)
    for _ in range(2):
        batch_of(room, 0.0)
    room.set_apart([1], 0.0)
    assert room.next_batch(10 * LINGER - 0.5, full=True) == 0.5
    batch = room.next_batch(10 * LINGER, full=True)
    assert isinstance(batch, Batch)
    assert batch.changes == {1: (1,)}


def test_row_set_apart_does_not_wait_while_there_is_nothing_else_to_do() -> None:
    room = Room(limits())
    room.admit(changes((1, 1), (2, 2)), 0.0)
    batch_of(room, 0.0)
    room.set_apart([2], 0.0)
    room.settle([1], 0.0)
    assert batch_of(room, 0.0) == {2: (2,)}


def test_row_set_apart_that_changes_again_is_one_question() -> None:
    room = Room(limits())
    room.admit(changes((1, 1)), 0.0)
    batch_of(room, 0.0)
    room.set_apart([1], 0.0)
    room.admit(changes((2, 1)), 0.0)
    assert batch_of(room, 0.0) == {1: (1, 2)}


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


def test_several_changes_of_a_row_leave_as_one() -> None:
    room = Room(limits())
    room.admit(changes((1, 7), (2, 8), (3, 7)), 0.0)
    assert batch_of(room, 0.0) == {7: (1, 3), 8: (2,)}


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
    room.admit(changes((3, 7)), 1.0)
    assert batch_of(room, COOL_DOWN) == {7: (2, 3)}


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


def test_row_whose_answers_are_late_though_nothing_changed_is_asked_more_and_more_seldom() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    delays = delays_of(room, room.ask_again, 6)
    now = sum(delays)
    assert delays == [COOL_DOWN, 4, 8, 16, 30, 30]
    assert room.exhausted
    batch_of(room, now)
    room.admit(changes((2, 7)), now)
    room.ask_again({7}, now)
    assert room.next_batch(now) == COOL_DOWN
    assert not room.exhausted


def test_failed_row_is_tried_after_a_delay_that_doubles_up_to_five_minutes() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    assert delays_of(room, room.fail, 12) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_delay_of_a_row_starts_anew_once_it_was_answered() -> None:
    room = Room(limits(cool_down=0))
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.fail({7}, 0.0)
    batch_of(room, 1.0)
    room.settle({7}, 1.0)
    room.admit(changes((2, 7)), 1.0)
    batch_of(room, 1.0)
    room.fail({7}, 1.0)
    assert room.next_batch(1.0) == 1.0


def test_change_of_a_failed_row_does_not_shorten_its_delay() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.fail({7}, 0.0)
    room.admit(changes((2, 7)), 0.5)
    assert room.next_batch(0.5) == 0.5
    assert batch_of(room, 1.0) == {7: (1, 2)}


def test_released_row_can_leave_at_once_with_what_came_meanwhile() -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    batch_of(room, 0.0)
    room.admit(changes((2, 7)), 0.0)
    room.release({7}, 0.25)
    assert batch_of(room, 0.25) == {7: (1, 2)}


def test_full_room_takes_nothing_more() -> None:
    room = Room(limits(batch_size=1, capacity=6))
    room.admit(changes(*((seq, seq) for seq in range(1, 5))), 0.0)
    assert (room.free, room.claimable) == (2, 2)
    batch_of(room, 0.0)
    assert room.free == 2
    room.settle({1}, 0.0)
    assert (room.free, room.claimable) == (3, 3)


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


@pytest.mark.parametrize("outcome", ["settle", "ask_again", "fail", "release"])
def test_row_that_is_not_in_flight_has_no_outcome(outcome: str) -> None:
    room = Room(limits())
    room.admit(changes((1, 7)), 0.0)
    with pytest.raises(KeyError):
        getattr(room, outcome)({7}, 0.0)


def test_settling_tells_how_old_the_changes_are() -> None:
    room = Room(limits())
    room.admit([Change(1, 7, timedelta(seconds=3)), Change(2, 7, timedelta(0))], 10.0)
    assert (room.size, room.retried) == (2, [])
    batch_of(room, 10.5)
    room.fail([7], 11.0)
    assert (room.size, room.retried) == (2, [7])
    batch_of(room, 13.0)
    assert room.settle([7], 14.0) == [7.0, 4.0]
    assert (room.size, room.retried) == (0, [])
