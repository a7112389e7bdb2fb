"""What handling a batch comes to."""

from __future__ import annotations

from dataclasses import dataclass

from listener.domain.faults import LmlUnavailableError, RowsBreakOffError


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of the rows of a batch; rows in none of the groups were not tried.

    `settled` rows are done with, `late` rows changed while they were asked about, and `failed` rows
    without a usable answer are to be tried again. `unasked` rows are those of the settled that
    needed no question. `apart` rows were not tried, and are to be handled with their like. `fault`
    is what kept LML from being asked about the rest.
    """

    settled: frozenset[int] = frozenset()
    late: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    unasked: frozenset[int] = frozenset()
    apart: frozenset[int] = frozenset()
    fault: LmlUnavailableError | None = None

    @property
    def tried(self) -> frozenset[int]:
        """The rows that something became of."""
        return self.settled | self.late | self.failed

    @property
    def about_rows(self) -> bool:
        """Whether the fault is about rows: LML answers others."""
        return isinstance(self.fault, RowsBreakOffError)

    @property
    def answered(self) -> bool:
        """Whether LML had a word on anything; rows that needed no question say nothing of it."""
        return self.about_rows or self.tried != self.unasked

    def __or__(self, other: Handled) -> Handled:
        """Join what became of two parts of a batch."""
        return Handled(
            self.settled | other.settled,
            self.late | other.late,
            self.failed | other.failed,
            self.unasked | other.unasked,
            self.apart | other.apart,
            self.fault or other.fault,
        )
