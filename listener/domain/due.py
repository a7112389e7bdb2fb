"""Due rows: what deserves a question although no change says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a row is due: what became of it when it was last asked about."""

    NEVER = "never"
    CHANGED = "changed"
    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DueRow:
    """A row to be asked about; `compilation` as far as our own tables tell."""

    library_id: int
    reason: Reason
    compilation: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a search looks for.

    `since_id` is the lowest row id. Of `partitions` disjoint shares of the library, `partition`
    (0 to partitions - 1) is the one searched. `include_null_canonical` takes in rows that the
    backend has no canonical entity for; those that failed are found by their time in any case.
    """

    only: frozenset[Reason] = frozenset(Reason)
    include_null_canonical: bool = True
    since_id: int = 0
    partition: int = 0
    partitions: int = 1

    def __post_init__(self) -> None:
        """Refuse a share that does not exist."""
        if not 0 <= self.partition < self.partitions:
            message = f"partition {self.partition} must lie between 0 and {self.partitions - 1}"
            raise ValueError(message)


def spread(rows: Sequence[DueRow]) -> list[DueRow]:
    """Return the rows in an order in which neighbours in the library stand far apart.

    PostgreSQL reuses the place of a row's old version once its transaction has ended. Rows that
    are updated together should therefore not lie on one page of the table: their new versions
    would have to go elsewhere, and every index would need a new entry.
    """
    # Knuth's multiplicative hashing: the fractional part of id times the golden ratio.
    return sorted(rows, key=lambda row: row.library_id * 0x9E3779B1 & 0xFFFFFFFF)


@dataclass(slots=True)
class Pages:
    """Groups due rows into pages of one kind each: a compilation's answer may be long."""

    batch_size: int
    compilation_batch_size: int
    _waiting: dict[bool, list[DueRow]] = field(default_factory=lambda: {False: [], True: []})

    def add(self, rows: Sequence[DueRow]) -> Iterator[list[DueRow]]:
        """Take rows in; yields the pages that are full."""
        for row in rows:
            self._waiting[row.compilation].append(row)
        for compilation, size in ((False, self.batch_size), (True, self.compilation_batch_size)):
            while len(self._waiting[compilation]) >= size:
                page = self._waiting[compilation][:size]
                del self._waiting[compilation][:size]
                yield page

    def rest(self) -> Iterator[list[DueRow]]:
        """Yield what is left, in pages that are not full."""
        for compilation, rows in self._waiting.items():
            if rows:
                self._waiting[compilation] = []
                yield rows
