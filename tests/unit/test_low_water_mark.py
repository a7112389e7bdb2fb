"""Where reading the outbox starts: the lower bound may save work, but never hide an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Literal

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from listener.domain.change import LowWaterMark, Snapshot

Mark = Literal["none", "own id", "last ended"]

LOOKBACK = timedelta(seconds=1)
STEP = 0.005


@dataclass
class Database:
    """Transactions of the backend: an id first, then seqs, then a commit or not.

    A mark draws an id itself. The ids of running transactions may lie at or above the xmax that
    PostgreSQL puts into a snapshot, which only is one more than the last id that has ended.
    """

    next_xid: int = 100
    next_seq: int = 1
    last_ended: int = 99
    running: dict[int, list[int]] = field(default_factory=dict)
    committed: set[int] = field(default_factory=set)

    def begin(self) -> int:
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        self.running[xid] = []
        return xid

    def draw(self, xid: int) -> int:
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        self.running[xid].append(seq)
        return seq

    def end(self, xid: int, *, commit: bool = True) -> None:
        seqs = self.running.pop(xid)
        self.last_ended = max(self.last_ended, xid)
        if commit:
            self.committed.update(seqs)

    def write(self, entries: int = 1) -> None:
        self.end(self.begin_with(entries))

    def begin_with(self, entries: int) -> int:
        xid = self.begin()
        for _ in range(entries):
            self.draw(xid)
        return xid

    def snapshot(self, mark: Mark) -> Snapshot:
        xmin = min([self.last_ended + 1, *self.running])
        match mark:
            case "none":
                return Snapshot(xmin, None)
            case "last ended":
                return Snapshot(xmin, self.last_ended + 1)
            case "own id":
                own = self.begin()
                self.end(own)
                return Snapshot(xmin, own)


class Follower:
    """Looks as the feeder does, and holds the entries it found until they are settled."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.mark = LowWaterMark(LOOKBACK)
        self.now = 0.0
        self.held: set[int] = set()
        self.seen: list[int] = []
        self.starts: list[int] = []

    def look(
        self,
        limit: int,
        *,
        between: Iterable[Callable[[], object]] = (),
        mark: Mark = "own id",
    ) -> bool:
        """Look once; `between` happens after the snapshot was taken."""
        after = self.mark.start(self.now)
        held = {seq for seq in self.held if seq > after}
        snapshot = self.database.snapshot(mark if self.mark.mark_due(self.now) else "none")
        for event in between:
            event()
        visible = set(self.database.committed)
        found = sorted(seq for seq in visible if seq > after and seq not in held)[:limit]
        everything = self.mark.looked(after, found, snapshot, complete=len(found) < limit)
        self.starts.append(after)
        self.seen += found
        self.held.update(found)
        if everything:
            assert visible <= self.held
        return everything

    def settle(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self.held.remove(seq)
            self.database.committed.remove(seq)

    @property
    def hidden(self) -> set[int]:
        return self.database.committed - self.held


class Outboxes(RuleBasedStateMachine):
    """Any number of transactions in any order, looked at whenever it pleases."""

    @initialize(limit=st.integers(1, 6))
    def open(self, limit: int) -> None:
        self.limit = limit
        self.database = Database()
        self.follower = Follower(self.database)

    @rule(entries=st.integers(0, 3))
    def begin(self, entries: int) -> None:
        self.database.begin_with(entries)

    @precondition(lambda self: self.database.running)
    @rule(data=st.data(), entries=st.integers(1, 8))
    def draw(self, data: st.DataObject, entries: int) -> None:
        xid = data.draw(st.sampled_from(sorted(self.database.running)))
        for _ in range(entries):
            self.database.draw(xid)

    @precondition(lambda self: self.database.running)
    @rule(data=st.data(), commit=st.booleans())
    def end(self, data: st.DataObject, commit: bool) -> None:
        xid = data.draw(st.sampled_from(sorted(self.database.running)))
        self.database.end(xid, commit=commit)

    @rule(entries=st.integers(1, 3))
    def write(self, entries: int) -> None:
        self.database.write(entries)

    @rule(
        limit=st.none() | st.integers(1, 12),
        begun=st.integers(0, 1),
        written=st.integers(0, 1),
        data=st.data(),
    )
    def look(self, limit: int | None, begun: int, written: int, data: st.DataObject) -> None:
        running = sorted(self.database.running)
        ended = data.draw(st.sets(st.sampled_from(running))) if running else set()
        between: list[Callable[[], object]] = [partial(self.database.end, xid) for xid in ended]
        between += [partial(self.database.begin_with, 1)] * begun
        between += [self.database.write] * written
        self.follower.look(limit or self.limit, between=between)

    @rule(seconds=st.sampled_from([STEP, 0.3, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.follower.now += seconds

    @precondition(lambda self: self.follower.held)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        held = sorted(self.follower.held)
        self.follower.settle(data.draw(st.sets(st.sampled_from(held))))

    @rule()
    def forget(self) -> None:
        self.follower.mark.forget()

    def teardown(self) -> None:
        if not hasattr(self, "follower"):
            return
        for number, xid in enumerate(sorted(self.database.running)):
            self.database.end(xid, commit=number % 3 != 2)
        patient = len(self.follower.hidden) // self.limit + 1
        for _ in range(2 * patient + 3):
            # No time passes: before each look from the floor it needs one above it.
            if self.follower.look(self.limit) and not self.follower.hidden:
                break
        assert not self.follower.hidden
        assert len(self.follower.seen) == len(set(self.follower.seen))


class LateOutboxes(Outboxes):
    """The same, but at the end every look comes a lookback after the one before."""

    def teardown(self) -> None:
        if not hasattr(self, "follower"):
            return
        for xid in sorted(self.database.running):
            self.database.end(xid)
        for _ in range(len(self.follower.hidden) // self.limit + 1):
            self.follower.now += LOOKBACK.total_seconds()
            self.follower.look(self.limit)
        assert not self.follower.hidden


TestNoEntryStaysHidden = Outboxes.TestCase
TestEachLookbackShowsMore = LateOutboxes.TestCase


def test_first_look_starts_at_the_beginning() -> None:
    assert LowWaterMark(LOOKBACK).start(0.0) == 0


def test_late_commit_below_a_higher_seq_is_found() -> None:
    database = Database()
    follower = Follower(database)
    slow = database.begin()
    late = database.draw(slow)
    for _ in range(20):
        database.write()
        follower.look(10)
        follower.now += STEP
    database.end(slow)
    assert follower.look(10) or follower.look(10)
    assert late in follower.held


def test_entry_of_a_younger_transaction_with_a_lower_seq_is_found() -> None:
    database = Database()
    follower = Follower(database)
    older, younger = database.begin(), database.begin()
    low, high = database.draw(younger), database.draw(older)
    database.end(older)
    for _ in range(5):
        follower.look(10)
    assert follower.held == {high}
    database.end(younger)
    follower.look(10)
    follower.look(10)
    assert follower.held == {low, high}


def test_entry_drawn_between_the_mark_and_the_look_is_found() -> None:
    database = Database()
    follower = Follower(database)
    database.write()
    follower.look(10)
    late: list[int] = []
    follower.look(10, between=[lambda: late.append(database.begin_with(1)), database.write])
    for _ in range(3):
        follower.now += LOOKBACK.total_seconds()
        follower.look(10)
    database.end(late[0])
    follower.look(10)
    follower.look(10)
    assert not follower.hidden


def test_mark_that_is_no_higher_than_a_running_id_would_hide_an_entry() -> None:
    database = Database()
    follower = Follower(database)
    older, younger = database.begin(), database.begin()
    low, _ = database.draw(younger), database.draw(older)
    database.end(older)
    for _ in range(5):
        follower.look(10, mark="last ended")
    database.end(younger)
    assert follower.mark.floor > low
    assert follower.hidden == {low}


def test_floor_follows_when_no_transaction_stays_open() -> None:
    database = Database()
    follower = Follower(database)
    for _ in range(300):
        previous = database.begin()
        database.draw(previous)
        database.write(2)
        follower.look(10)
        database.end(previous)
        follower.settle(tuple(follower.held))
        follower.now += STEP
    assert follower.mark.floor > 0.5 * database.next_seq
    assert min(follower.starts[-50:]) > 0.5 * database.next_seq


def test_floor_follows_through_a_backlog() -> None:
    database = Database()
    follower = Follower(database)
    database.write(10_000)
    for _ in range(95):
        follower.look(100)
        follower.settle(tuple(follower.held))
        follower.now += 0.1
    assert follower.mark.floor >= 7000
    assert min(follower.starts[-10:]) >= 6000


def test_start_moves_through_a_backlog_that_a_long_transaction_pins() -> None:
    database = Database()
    follower = Follower(database)
    database.draw(database.begin())
    database.write(10_000)
    for _ in range(95):
        follower.look(100)
        follower.settle(tuple(follower.held))
        follower.now += 0.1
    assert follower.mark.floor == 0
    from_the_floor = [start for start in follower.starts if start == 0]
    upwards = [start for start in follower.starts if start > 0]
    assert len(from_the_floor) <= 11
    assert upwards == sorted(set(upwards))
    assert upwards[-1] >= 9000


def test_floor_is_read_again_every_lookback_while_a_transaction_stays_open() -> None:
    database = Database()
    follower = Follower(database)
    database.draw(database.begin())
    full_looks = []
    for _ in range(1000):
        database.write()
        follower.look(10)
        follower.now += STEP
        if follower.starts[-1] == 0:
            full_looks.append(follower.now)
    gaps = [later - earlier for earlier, later in pairwise(full_looks)]
    assert max(gaps) <= LOOKBACK.total_seconds() + 2 * STEP


def test_look_that_did_not_start_at_the_floor_does_not_show_everything() -> None:
    database = Database()
    follower = Follower(database)
    database.draw(database.begin())
    for _ in range(3):
        database.write()
        assert follower.look(10)
        follower.now += LOOKBACK.total_seconds()
    follower.look(10)
    follower.now += STEP
    assert not follower.look(10)
    assert follower.starts[-1] > 0
    # It found nothing, so the next look covers the whole outbox.
    assert follower.look(10)
    assert follower.starts[-1] == 0


def test_look_that_was_cut_off_by_its_limit_does_not_show_everything() -> None:
    database = Database()
    follower = Follower(database)
    database.write(3)
    assert not follower.look(3)
    assert follower.look(3) or follower.look(3)


def test_marks_are_asked_for_only_when_there_is_something_to_prove_and_at_a_bounded_rate() -> None:
    database = Database()
    follower = Follower(database)
    assert not follower.mark.mark_due(0.0)
    for _ in range(1000):
        database.write()
        follower.look(10)
        follower.now += STEP
    drawn_by_marks = database.next_xid - 100 - 1000
    # Five seconds of looks; each mark costs a transaction id, so there are 20 a second at most.
    assert 50 <= drawn_by_marks <= 101


def test_forgotten_mark_reads_from_the_beginning() -> None:
    database = Database()
    follower = Follower(database)
    for _ in range(20):
        database.write()
        follower.look(10)
        follower.now += 20 * STEP
    assert follower.mark.floor > 0
    follower.mark.forget()
    assert follower.mark.start(follower.now) == 0
    assert follower.look(10)
    assert follower.starts[-1] == 0
