"""The waiting room: changes that were claimed and are not settled yet."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from listener.domain.change import Batch, Change
from listener.domain.pacing import Backoff

_FAILURE_BACKOFF = Backoff(first=timedelta(seconds=1), most=timedelta(minutes=5))
# An answer may be late again and again: while somebody holds a lock on the row, for hours perhaps.
_LATE_BACKOFF = Backoff(first=timedelta(seconds=2), most=timedelta(seconds=30))
_LATE_IN_VAIN = 4

# So many times as long as others may rows that were set apart wait for their like.
_APART = 10
# More rows than this at a time are a burst, in which waiting for more saves calls.
_HANDFUL = 10


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """How much a room holds and how long it holds it back.

    `capacity` counts outbox entries. A batch leaves with `batch_size` rows, or when its oldest row
    has waited for `linger`, or at once if it is a handful while nothing is being asked. A row that
    was just asked about waits for `cool_down` before it is asked about again, so that a row edited
    in bursts costs few questions. Rows that were set apart leave when there are `apart_size` of
    them, after ten times `linger`, or when there is nothing else to do.
    """

    capacity: int
    batch_size: int
    linger: timedelta
    cool_down: timedelta
    apart_size: int = 100

    def __post_init__(self) -> None:
        """Refuse a room that could never fill a batch."""
        if not 1 <= self.batch_size <= self.capacity:
            message = (
                f"batch_size {self.batch_size} must lie between 1 and the capacity {self.capacity}"
            )
            raise ValueError(message)


class Room:
    """Groups changes by row, at most one batch per row at a time; `now` is monotonic seconds.

    Holds no row data: what is not settled is still in the outbox, so a room may be lost.
    """

    def __init__(self, limits: RoomLimits) -> None:
        self._limits = limits
        self._linger = limits.linger.total_seconds()
        self._cool_down = limits.cool_down.total_seconds()
        self._waiting: dict[int, list[int]] = {}
        self._ready: dict[int, float] = {}
        self._apart: dict[int, float] = {}
        self._cooling: list[tuple[float, int]] = []
        self._in_flight: dict[int, tuple[int, ...]] = {}
        self._asked: OrderedDict[int, float] = OrderedDict()
        self._failures: dict[int, int] = {}
        self._late: dict[int, int] = {}
        self._entries: dict[int, float] = {}

    @property
    def free(self) -> int:
        """How many more entries may be admitted."""
        return max(0, self._limits.capacity - len(self._entries))

    @property
    def claimable(self) -> int:
        """How many entries to claim at a time: a few batches, at most what fits in."""
        return min(self.free, 4 * self._limits.batch_size)

    @property
    def quiet(self) -> bool:
        """Whether nothing is being asked."""
        return not self._in_flight

    @property
    def exhausted(self) -> bool:
        """Whether every row that waits was tried in vain; none may wait at all."""
        tried = {row for row, times in self._late.items() if times >= _LATE_IN_VAIN}
        return self._waiting.keys() <= self._failures.keys() | tried

    @property
    def size(self) -> int:
        """How many entries are in the room."""
        return len(self._entries)

    @property
    def retried(self) -> list[int]:
        """The rows that failed by themselves, and are tried again."""
        return list(self._failures)

    def held(self, above: int) -> list[int]:
        """Entries in the room whose seq is greater than `above`."""
        return [seq for seq in self._entries if seq > above]

    def admit(self, changes: Iterable[Change], now: float) -> None:
        """Take claimed changes in; entries that are here already are left as they are."""
        for change in changes:
            if change.seq in self._entries:
                continue
            self._entries[change.seq] = now - change.waited.total_seconds()
            self._wait(change.row_id, (change.seq,), now)

    def next_batch(
        self, now: float, *, full: bool = False, most: int | None = None
    ) -> Batch | float | None:
        """Return a batch to handle now, or the seconds until one may be ready, or None if none.

        With `full` only a full batch leaves, and it is not foretold when there is one. It has
        `most` rows at most, if that is given.
        """
        while self._cooling and self._cooling[0][0] <= now:
            self._ready.setdefault(heapq.heappop(self._cooling)[1], now)
        if self._apart:
            patience = _APART * self._linger - (now - next(iter(self._apart.values())))
            alone = self.quiet and not self._ready
            if len(self._apart) >= self._limits.apart_size or alone or patience <= 0:
                return self._leave(
                    self._apart, min(most or self._limits.apart_size, self._limits.apart_size)
                )
            rest = self._next_ready(now, full=full, most=most)
            if isinstance(rest, Batch):
                return rest
            return patience if rest is None else min(patience, rest)
        return self._next_ready(now, full=full, most=most)

    def _next_ready(self, now: float, *, full: bool, most: int | None) -> Batch | float | None:
        if not self._ready:
            return self._cooling[0][0] - now if self._cooling else None
        if full and len(self._ready) < self._limits.batch_size:
            return None
        patience = self._linger - (now - next(iter(self._ready.values())))
        at_once = self.quiet and len(self._ready) <= _HANDFUL
        if len(self._ready) < self._limits.batch_size and not at_once and patience > 0:
            return patience
        return self._leave(
            self._ready, min(most or self._limits.batch_size, self._limits.batch_size)
        )

    def _leave(self, group: dict[int, float], size: int) -> Batch:
        rows = [row for row, _ in zip(group, range(size), strict=False)]
        for row in rows:
            del group[row]
            self._in_flight[row] = tuple(self._waiting.pop(row))
        return Batch({row: self._in_flight[row] for row in rows})

    def settle(self, row_ids: Iterable[int], now: float) -> list[float]:
        """Forget the entries of rows that were handled; what came meanwhile waits to cool down.

        Returns the ages of these entries in seconds, from when they were recorded.
        """
        ages: list[float] = []
        for row in row_ids:
            ages += [now - self._entries.pop(seq) for seq in self._in_flight.pop(row)]
            self._failures.pop(row, None)
            self._late.pop(row, None)
            self._asked.pop(row, None)
            self._asked[row] = now
            if row in self._waiting:
                heapq.heappush(self._cooling, (now + self._cool_down, row))
        self._forget_asked(now)
        return ages

    def ask_again(self, row_ids: Iterable[int], now: float) -> None:
        """Put rows back whose answer came too late, to be asked after the cool-down.

        Each time that no change of the row came meanwhile it grows, up to half a minute.
        """
        for row in row_ids:
            times = 1 if row in self._waiting else self._late.get(row, 0) + 1
            self._late[row] = times
            delay = _LATE_BACKOFF.delay(times).total_seconds() if times > 1 else 0
            self._put_back(row, now + max(self._cool_down, delay))

    def fail(self, row_ids: Iterable[int], now: float) -> None:
        """Put rows back that could not be answered, each to be tried after a growing delay."""
        for row in row_ids:
            self._failures[row] = self._failures.get(row, 0) + 1
            self._put_back(row, now + _FAILURE_BACKOFF.delay(self._failures[row]).total_seconds())

    def release(self, row_ids: Iterable[int], now: float) -> None:
        """Put rows back that were never tried."""
        for row in row_ids:
            self._put_back(row, now)

    def set_apart(self, row_ids: Iterable[int], now: float) -> None:
        """Put rows back that are to leave together with others that were set apart."""
        for row in row_ids:
            self._reclaim(row)
            self._apart[row] = now

    def _put_back(self, row: int, ready_at: float) -> None:
        self._reclaim(row)
        heapq.heappush(self._cooling, (ready_at, row))

    def _reclaim(self, row: int) -> None:
        self._waiting[row] = [*self._in_flight.pop(row), *self._waiting.get(row, ())]

    def _wait(self, row: int, entries: tuple[int, ...], now: float) -> None:
        if row in self._waiting:
            self._waiting[row].extend(entries)
            return
        self._waiting[row] = list(entries)
        if row in self._in_flight:
            return
        asked_at = self._asked.get(row)
        ready_at = now if asked_at is None else asked_at + self._cool_down
        if ready_at <= now:
            self._ready[row] = now
        else:
            heapq.heappush(self._cooling, (ready_at, row))

    def _forget_asked(self, now: float) -> None:
        # Bounded: a row forgotten too early is asked about once more, no harm done.
        while self._asked and (
            len(self._asked) > self._limits.capacity
            or next(iter(self._asked.values())) + self._cool_down <= now
        ):
            self._asked.popitem(last=False)
