"""The outcome of a batch."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from listener.domain.faults import ServiceFault

_NONE: frozenset[int] = frozenset()


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
