"""Isolates the items that spoil a batch, so that the others go through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from listener.domain.faults import SERVICE_FAULTS, BatchRefusedError

_log = structlog.stdlib.get_logger()

T = TypeVar("T")

# Three bad rows in 500 cost at most 57 attempts, of which each row takes part in four.
_PARTS = 8
# Forty adjacent bad rows anywhere in a batch of 1000 cause at most this many refusals in a row.
# After more, the service is at fault rather than the rows, and no further part is split.
_REFUSALS_IN_A_ROW = 65


@dataclass(slots=True)
class Refusals:
    """How many times in a row a service refused a batch, across batches."""

    in_a_row: int = 0

    def begin_batch(self) -> None:
        """Have the next batch split at least once: some of its parts may go through."""
        self.in_a_row = min(self.in_a_row, _REFUSALS_IN_A_ROW - 1)


async def isolate(
    items: Sequence[T],
    attempt: Callable[[Sequence[T]], Awaitable[None]],
    refuse: Callable[[Sequence[T], str], None],
    refusals: Refusals | None = None,
) -> None:
    """Attempt all items together, then split what is refused into ever smaller parts.

    `refuse` receives the parts that stay refused, with the reason: single items, or larger parts
    after too many refusals in a row, counting those of earlier batches in `refusals`. An unexpected
    exception counts as a refusal; the first is logged. Service faults are raised at once.
    """
    waiting, logged = [items], False
    refusals = refusals or Refusals()
    refusals.begin_batch()
    while waiting:
        part = waiting.pop()
        try:
            await attempt(part)
        except SERVICE_FAULTS:
            raise
        except Exception as error:  # noqa: BLE001 - other items may still go through
            expected = isinstance(error, BatchRefusedError)
            reason = str(error) if expected else f"unexpected {type(error).__name__}"
            if not (expected or logged):
                logged = True
                _log.exception("unexpected error, isolating its rows", rows=len(part))
        else:
            refusals.in_a_row = 0
            continue
        refusals.in_a_row += 1
        if len(part) == 1 or refusals.in_a_row > _REFUSALS_IN_A_ROW:
            refuse(part, reason)
        else:
            waiting.extend(reversed(parts(part)))


def parts(items: Sequence[T]) -> list[Sequence[T]]:
    """Split items that were refused together into the parts to attempt next."""
    size = -(-len(items) // _PARTS)
    return [items[start : start + size] for start in range(0, len(items), size)]
