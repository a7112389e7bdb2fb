"""Due rows, which deserve a question although no change says so, and runs that search for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, StrEnum


class Reason(StrEnum):
    """Why a row is due: the outcome of its last question."""

    NEVER = "never"
    CHANGED = "changed"
    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AskAgain:
    """When a row is asked about again: after an identity was found, and after none was."""

    resolved: timedelta
    unresolved: timedelta


@dataclass(frozen=True, slots=True)
class DueRow:
    """A row to ask about; `compilation` says whether our own tables call it one."""

    library_id: int
    reason: Reason
    compilation: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows that a search covers.

    `since_id` is the lowest row id. The library has `partitions` disjoint shares, and the search
    covers share `partition` (0 to partitions - 1). `include_null_canonical` adds rows without a
    canonical entity in the backend; a search always finds failed rows whose time has come.
    """

    only: frozenset[Reason] = frozenset(Reason)
    include_null_canonical: bool = True
    since_id: int = 0
    partition: int = 0
    partitions: int = 1

    def __post_init__(self) -> None:
        """Reject a share that does not exist."""
        if not 0 <= self.partition < self.partitions:
            message = f"partition {self.partition} must lie between 0 and {self.partitions - 1}"
            raise ValueError(message)


def spread(rows: Sequence[DueRow]) -> list[DueRow]:
    """Return the rows in an order that separates neighbours in the library.

    PostgreSQL reuses the space of an old row version only after its transaction has ended. If one
    transaction updates many rows of one heap page, their new versions do not fit there, and every
    index needs a new entry.
    """
    # Knuth's multiplicative hashing: the fractional part of id times the golden ratio.
    return sorted(rows, key=lambda row: row.library_id * 0x9E3779B1 & 0xFFFFFFFF)


@dataclass(slots=True)
class Batches:
    """Groups due rows into batches; compilations get their own, because their answers are long."""

    batch_size: int
    compilation_batch_size: int
    _waiting: dict[bool, list[DueRow]] = field(default_factory=lambda: {False: [], True: []})

    def add(self, rows: Sequence[DueRow]) -> Iterator[list[DueRow]]:
        """Add rows; yield the batches that are full."""
        for row in rows:
            self._waiting[row.compilation].append(row)
        for compilation, size in ((False, self.batch_size), (True, self.compilation_batch_size)):
            while len(self._waiting[compilation]) >= size:
                batch = self._waiting[compilation][:size]
                del self._waiting[compilation][:size]
                yield batch

    def rest(self) -> Iterator[list[DueRow]]:
        """Yield the remaining rows, in batches that are not full."""
        for compilation, rows in self._waiting.items():
            if rows:
                self._waiting[compilation] = []
                yield rows


class Search(StrEnum):
    """A way to find rows that are due.

    Failed rows, rows due by time, a scan of every row, compilations that were asked about before,
    or everything that is being played.
    """

    FAILED = "failed"
    BY_TIME = "by time"
    BY_CONTENT = "by content"
    COMPILATIONS = "compilations"
    IN_ROTATION = "in rotation"


class RunKind(Enum):
    """What a run searches for."""

    SWEEP = "sweep"
    REFRESH = "refresh"
    AUDIT = "audit"
    BACKFILL = "backfill"
    ROTATION = "rotation"
    RECHECK = "recheck"

    @property
    def searches(self) -> frozenset[Search]:
        """The searches that the run makes."""
        match self:
            case RunKind.SWEEP:
                return frozenset((Search.FAILED, Search.BY_TIME, Search.BY_CONTENT))
            case RunKind.REFRESH:
                return frozenset((Search.BY_TIME,))
            case RunKind.ROTATION:
                return frozenset((Search.IN_ROTATION,))
            case RunKind.RECHECK:
                return frozenset((Search.COMPILATIONS,))
            case _:
                return frozenset((Search.BY_CONTENT,))
