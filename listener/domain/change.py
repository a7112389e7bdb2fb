"""Changes: the entries that the triggers recorded."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum


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
