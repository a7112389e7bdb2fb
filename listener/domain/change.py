"""Changes: the entries that the triggers recorded, where to read on, and batches to handle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from listener.domain.faults import ServiceFault

_NONE: frozenset[int] = frozenset()
# Every mark costs a transaction id.
_MARKS_IN_LOOKBACK = 20


class Stream(StrEnum):
    """A source table that we follow."""

    LIBRARY = "library"
    ROTATION = "rotation"


@dataclass(frozen=True, slots=True)
class Change:
    """One outbox entry: row `row_id` of a stream changed.

    `seq` gives the order in which changes were recorded, not the order of commits. `waited` is the
    time from recording to claim, by the database's clock.
    """

    seq: int
    row_id: int
    waited: timedelta


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a look could see: every transaction with an id below `xmin` had ended.

    `mark`, if requested, is above every transaction id assigned before the look.
    """

    xmin: int
    mark: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """The changes that one look at the outbox found, and the snapshot it used."""

    changes: tuple[Change, ...]
    snapshot: Snapshot
    complete: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to handle together, each with the outbox entries that this will settle.

    `since` is when the oldest of a row's changes was recorded, in monotonic seconds; a row that no
    change is about is not in it.
    """

    changes: dict[int, tuple[int, ...]]
    since: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject an empty batch."""
        if not self.changes:
            message = "a batch needs at least one row"
            raise ValueError(message)

    @property
    def row_ids(self) -> list[int]:
        """The rows, in ascending order."""
        return sorted(self.changes)

    def entries(self, row_ids: AbstractSet[int]) -> list[tuple[int, int]]:
        """Return the outbox entries of `row_ids` as pairs of (seq, row id), in ascending order."""
        return sorted((seq, row) for row in row_ids for seq in self.changes.get(row, ()))


@dataclass(slots=True)
class BatchOutcome:
    """What became of the rows of a batch so far; rows in no group were not tried.

    The changes of `settled` rows have left the outbox. Of these, `failed` rows wait in the ledger
    for a retry, and `unasked` rows needed no question. `late` rows changed while they were asked
    about and must be asked about again. `deferred` rows were not asked about; they will join others
    of their kind. `fault` prevented the rest from being tried.
    """

    settled: AbstractSet[int] = _NONE
    failed: AbstractSet[int] = _NONE
    unasked: AbstractSet[int] = _NONE
    late: AbstractSet[int] = _NONE
    deferred: AbstractSet[int] = _NONE
    fault: ServiceFault | None = None

    @property
    def tried(self) -> AbstractSet[int]:
        """The rows with an outcome; deferred ones have none yet."""
        return self.settled | self.late


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
