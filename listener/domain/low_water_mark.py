"""Decides where to start reading the outbox so that no entry stays hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from listener.domain.change import Snapshot

# Every mark costs a transaction id.
_MARKS_IN_LOOKBACK = 20


@dataclass(slots=True)
class LowWaterMark:
    """Lower bounds for reading the outbox, so that we do not read dead entries again.

    Entries become visible out of order: a low seq may be committed long after a higher one. `floor`
    is proven: a transaction that drew a seq up to the highest one seen already had its id, so once
    all transactions below a mark that was drawn later have ended, nothing new can appear at or
    below `floor`. A transaction that stays open holds it back. `_recent` then skips entries that
    were seen a while ago, but only between two full looks, one of which happens every `lookback`.
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
        """Return the seq to read after; `now` is monotonic seconds."""
        if now < self._full_look_at:
            return max(self.floor, self._recent)
        self._full_look_at = now + self.lookback.total_seconds()
        self._recent, self._next_recent = self._next_recent, self._highest
        return self.floor

    def mark_due(self, now: float) -> bool:
        """Return whether the next look should fetch a mark, to prove a higher floor."""
        if self._candidate is not None or self._highest <= self.floor or now < self._mark_at:
            return False
        self._mark_at = now + self.lookback.total_seconds() / _MARKS_IN_LOOKBACK
        return True

    def looked(
        self, after: int, seqs: Sequence[int], snapshot: Snapshot, *, complete: bool
    ) -> bool:
        """Learn from a look after seq `after`; return whether it showed the whole outbox.

        `snapshot` is the look's own, `seqs` are the entries it found in ascending order, and
        `complete` says that it ended because there were no more.
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
        """Read from the beginning next time, in case a proof did not hold."""
        self.floor = self._recent = self._next_recent = 0
        self._candidate = None
        self._full_look_at = float("-inf")
