"""From where the outbox must be read so that no entry can stay hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from listener.domain.change import Snapshot

# Every mark costs a transaction id.
_MARKS_IN_LOOKBACK = 20


@dataclass(slots=True)
class LowWaterMark:
    """Lower bounds for reading the outbox, so that dead entries below them are not read again.

    Entries become visible out of order: a low seq may be committed long after a higher one. `floor`
    is proven: a transaction that drew a seq up to the highest one seen had its id by then, so once
    all transactions below a mark that was drawn later have ended, nothing new can appear at or
    below it. A transaction that stays open holds the floor back. `_recent` then skips what was seen
    a while ago, but only between two full looks, of which there is one every `lookback`.
    """

    lookback: timedelta
    floor: int = 0
    _highest: int = 0
    _candidate: tuple[int, int] | None = None
    _recent: int = 0
    _next_recent: int = 0
    _full_look_at: float = field(default=float("-inf"))
    _mark_at: float = field(default=float("-inf"))

    def start(self, now: float) -> int:
        """Return the seq after which to read now; `now` is monotonic seconds."""
        if now < self._full_look_at:
            return max(self.floor, self._recent)
        self._full_look_at = now + self.lookback.total_seconds()
        self._recent, self._next_recent = self._next_recent, self._highest
        return self.floor

    def mark_due(self, now: float) -> bool:
        """Return whether the next look should bring a mark, to prove a higher floor by."""
        if self._candidate is not None or self._highest <= self.floor or now < self._mark_at:
            return False
        self._mark_at = now + self.lookback.total_seconds() / _MARKS_IN_LOOKBACK
        return True

    def looked(
        self, after: int, seqs: Sequence[int], snapshot: Snapshot, *, complete: bool
    ) -> bool:
        """Learn from a look after seq `after`; return whether it showed all there is.

        `snapshot` is the one that the look was taken with. `seqs` are the entries found in
        ascending order, and `complete` says that the look ended because there were no more.
        """
        full = after <= self.floor
        if full and self._candidate is not None:
            highest, mark = self._candidate
            reached = highest if complete else min([highest, *seqs[-1:]])
            if snapshot.xmin >= mark and reached > self.floor:
                self.floor, self._candidate = reached, None
        if snapshot.mark is not None:
            self._candidate = (self._highest, snapshot.mark)
        if seqs:
            self._highest = max(self._highest, seqs[-1])
        if not complete:
            self._recent = max(self._recent, self._highest)
        if not seqs and not full:
            self._full_look_at = float("-inf")
        return full and complete

    def forget(self) -> None:
        """Read from the very beginning next time, in case that a proof did not hold."""
        self.floor = self._recent = self._next_recent = 0
        self._candidate = None
        self._full_look_at = float("-inf")
