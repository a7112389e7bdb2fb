"""Changes: what the triggers recorded."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Stream(StrEnum):
    """A source table that is followed."""

    LIBRARY = "library"
    ROTATION = "rotation"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the outbox: row `row_id` of a stream moved.

    `seq` orders changes as they were recorded, not as they were committed. `waited` is the time
    between recording and claim, by the database's clock.
    """

    seq: int
    row_id: int
    waited: timedelta


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a look could see: every transaction with an id below `xmin` had ended.

    `mark`, if it was asked for, is an id above that of every transaction that had one by then.
    """

    xmin: int
    mark: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the outbox showed, and the snapshot it was taken with."""

    changes: tuple[Change, ...]
    snapshot: Snapshot
    complete: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to be handled together, each with the outbox entries that this settles."""

    changes: dict[int, tuple[int, ...]]

    def __post_init__(self) -> None:
        """Refuse a batch of nothing."""
        if not self.changes:
            message = "a batch needs at least one row"
            raise ValueError(message)

    @property
    def row_ids(self) -> list[int]:
        """The rows, in ascending order."""
        return sorted(self.changes)

    def entries(self, row_ids: AbstractSet[int]) -> list[tuple[int, int]]:
        """Pairs of (seq, row id) that record a change of one of `row_ids`, in ascending order."""
        return sorted((seq, row) for row in row_ids for seq in self.changes.get(row, ()))
