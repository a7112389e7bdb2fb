"""Changes: the entries that the triggers recorded, and the batches in which they are handled."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from listener.domain.faults import ServiceFault

_NONE: frozenset[int] = frozenset()


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
