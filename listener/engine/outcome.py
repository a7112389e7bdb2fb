"""What became of a batch that was handled."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from listener.domain.faults import ServiceFault

_NONE: frozenset[int] = frozenset()


@dataclass(slots=True)
class BatchOutcome:
    """What became of the rows of a batch so far; rows in none of the groups were not tried.

    `settled` rows are done with: their changes left the outbox. Of these, `failed` ones wait in the
    ledger for their next attempt, and `unasked` ones needed no question. `late` rows changed while
    they were asked about and are to be asked again; `deferred` ones were not asked, and are to be
    handled with others of their kind. `fault` kept the rest from being tried.
    """

    settled: AbstractSet[int] = _NONE
    failed: AbstractSet[int] = _NONE
    unasked: AbstractSet[int] = _NONE
    late: AbstractSet[int] = _NONE
    deferred: AbstractSet[int] = _NONE
    fault: ServiceFault | None = None

    @property
    def tried(self) -> AbstractSet[int]:
        """The rows that something became of."""
        return self.settled | self.late
