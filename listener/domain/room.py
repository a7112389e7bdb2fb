"""The waiting room: rows whose changes were claimed and are not settled yet."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

from listener.domain.change import Batch, Change

# How many lingers a deferred row waits for others of its kind.
_DEFERRED_LINGERS = 10
# More rows than this at once are a burst; waiting for the rest of it saves calls.
_HANDFUL = 10


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """How many rows a room holds, and for how long.

    `capacity` counts rows that wait for a batch or are in one. A batch leaves when it has
    `batch_size` rows, when its oldest row has waited for `linger`, or at once if it is small and
    nothing is in flight. A row that was just asked about waits for `cool_down` before its next
    question, so a burst of edits costs few questions. Deferred rows leave when there are
    `deferred_size` of them, after ten lingers, or when there is nothing else to do.
    """

    capacity: int
    batch_size: int
    linger: timedelta
    cool_down: timedelta
    deferred_size: int = 100

    def __post_init__(self) -> None:
        """Refuse a room that could never fill a batch."""
        if not 1 <= self.batch_size <= self.capacity:
            message = (
                f"batch_size {self.batch_size} must lie between 1 and the capacity {self.capacity}"
            )
            raise ValueError(message)


class _Entry(NamedTuple):
    """The changes that a question about a row would settle, and when the oldest was recorded.

    These are the latest change and those that an earlier attempt did not settle. The time is in
    monotonic seconds.
    """

    seqs: tuple[int, ...]
    since: float


@dataclass(slots=True)
class Superseded:
    """Changes of rows that have a later change in the room; they can be settled without asking.

    `entries` are pairs of (seq, row id), `ages` their ages in seconds since they were recorded.
    """

    entries: list[tuple[int, int]] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)


class Room:
    """Holds one change per row, and puts a row in one batch at a time; `now` is monotonic seconds.

    It holds no row data, and unsettled changes are still in the outbox, so losing a room loses
    nothing. Up to `capacity` more rows may be cooling down.
    """

    def __init__(self, limits: RoomLimits) -> None:
        self._limits = limits
        self._linger = limits.linger.total_seconds()
        self._cool_down = limits.cool_down.total_seconds()
        self._waiting: dict[int, _Entry] = {}
        self._ready: dict[int, float] = {}
        self._deferred: dict[int, float] = {}
        self._cooling: list[tuple[float, int]] = []
        self._in_flight: dict[int, _Entry] = {}
        self._asked: OrderedDict[int, float] = OrderedDict()
        self._size = 0

    @property
    def free(self) -> int:
        """How many more rows may be admitted."""
        active = len(self._ready) + len(self._deferred) + len(self._in_flight)
        return max(0, min(self._limits.capacity - active, 2 * self._limits.capacity - self.size))

    @property
    def claimable(self) -> int:
        """How many changes to claim at once: a few batches, if they fit."""
        return min(self.free, 4 * self._limits.batch_size)

    @property
    def quiet(self) -> bool:
        """Whether no batch is in flight."""
        return not self._in_flight

    @property
    def size(self) -> int:
        """How many changes are in the room."""
        return self._size

    def held(self, above: int) -> list[int]:
        """Return the changes in the room whose seq is greater than `above`."""
        entries = (*self._waiting.values(), *self._in_flight.values())
        return [seq for entry in entries for seq in entry.seqs if seq > above]

    def admit(self, changes: Iterable[Change], now: float) -> Superseded:
        """Add claimed changes; the latest change of a row supersedes its earlier ones.

        One question covers them all: a row is read when its batch is handled, and changes of one
        row are recorded in the order in which they are committed.
        """
        superseded = Superseded()
        for change in changes:
            row, since = change.row_id, now - change.waited.total_seconds()
            former, in_flight = self._waiting.get(row), self._in_flight.get(row)
            if any(entry and change.seq in entry.seqs for entry in (former, in_flight)):
                continue
            self._size += 1
            if former is None:
                self._wait(row, _Entry((change.seq,), since), now)
                continue
            *earlier, latest = sorted((*former.seqs, change.seq))
            since = min(former.since, since)
            self._waiting[row] = _Entry((latest,), since)
            self._size -= len(earlier)
            superseded.entries += [(seq, row) for seq in earlier]
            superseded.ages += [now - since] * len(earlier)
        return superseded

    def next_batch(
        self, now: float, *, full: bool = False, most: int | None = None
    ) -> Batch | float | None:
        """Return a batch to handle now, or the seconds until there may be one, or None.

        None means that no batch will be ready unless something changes. With `full`, rows that are
        not deferred leave only in a full batch. `most` caps the number of rows in the batch.
        """
        while self._cooling and self._cooling[0][0] <= now:
            self._ready.setdefault(heapq.heappop(self._cooling)[1], now)
        deferred, ready = self._deferred_leave_in(now), self._ready_leave_in(now, full=full)
        if deferred is not None and deferred <= 0:
            return self._leave(self._deferred, self._limits.deferred_size, most)
        if ready is not None and ready <= 0:
            return self._leave(self._ready, self._limits.batch_size, most)
        return min((each for each in (deferred, ready) if each is not None), default=None)

    def _deferred_leave_in(self, now: float) -> float | None:
        if not self._deferred:
            return None
        alone = self.quiet and not self._ready
        if len(self._deferred) >= self._limits.deferred_size or alone:
            return 0.0
        return _DEFERRED_LINGERS * self._linger - (now - next(iter(self._deferred.values())))

    def _ready_leave_in(self, now: float, *, full: bool) -> float | None:
        if not self._ready:
            return self._cooling[0][0] - now if self._cooling else None
        if len(self._ready) >= self._limits.batch_size:
            return 0.0
        if full:
            return None
        if self.quiet and len(self._ready) <= _HANDFUL:
            return 0.0
        return self._linger - (now - next(iter(self._ready.values())))

    def _leave(self, group: dict[int, float], size: int, most: int | None) -> Batch:
        rows = list(islice(group, min(most or size, size)))
        for row in rows:
            del group[row]
            self._in_flight[row] = self._waiting.pop(row)
        left = {row: self._in_flight[row] for row in rows}
        return Batch(
            {row: entry.seqs for row, entry in left.items()},
            {row: entry.since for row, entry in left.items()},
        )

    def settle(self, row_ids: Iterable[int], now: float) -> list[float]:
        """Remove rows that were handled; changes that arrived meanwhile wait for the cool-down.

        Returns the ages of the settled changes in seconds since they were recorded.
        """
        ages: list[float] = []
        for row in row_ids:
            entry = self._in_flight.pop(row)
            self._size -= len(entry.seqs)
            ages += [now - entry.since] * len(entry.seqs)
            self._asked.pop(row, None)
            self._asked[row] = now
            if row in self._waiting:
                heapq.heappush(self._cooling, (now + self._cool_down, row))
        self._forget_asked(now)
        return ages

    def ask_again(self, row_ids: Iterable[int], now: float) -> None:
        """Put back rows that changed while they were asked about; ask again after the cool-down."""
        self.release(row_ids, now + self._cool_down)

    def release(self, row_ids: Iterable[int], now: float) -> None:
        """Put back rows that were not tried."""
        for row in row_ids:
            self._reclaim(row)
            heapq.heappush(self._cooling, (now, row))

    def defer(self, row_ids: Iterable[int], now: float) -> None:
        """Put back rows that will leave together with other deferred rows."""
        for row in row_ids:
            self._reclaim(row)
            self._deferred[row] = now

    def _reclaim(self, row: int) -> None:
        asked = self._in_flight.pop(row)
        if later := self._waiting.get(row):
            # Keep both: the feeder never claims a change twice.
            asked = _Entry((*asked.seqs, *later.seqs), min(asked.since, later.since))
        self._waiting[row] = asked

    def _wait(self, row: int, entry: _Entry, now: float) -> None:
        self._waiting[row] = entry
        if row in self._in_flight:
            return
        asked_at = self._asked.get(row)
        ready_at = now if asked_at is None else asked_at + self._cool_down
        if ready_at <= now:
            self._ready[row] = now
        else:
            heapq.heappush(self._cooling, (ready_at, row))

    def _forget_asked(self, now: float) -> None:
        # Bounded: forgetting a row too early only costs one more question.
        while self._asked and (
            len(self._asked) > self._limits.capacity
            or next(iter(self._asked.values())) + self._cool_down <= now
        ):
            self._asked.popitem(last=False)
