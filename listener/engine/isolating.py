"""Finds the items that spoil a page, so that the others go through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from listener.domain.faults import SERVICE_FAULTS, PageRefusedError

_log = structlog.stdlib.get_logger()

T = TypeVar("T")

# Three bad rows in 500 cost at most 57 attempts, and each is part of four.
_PARTS = 8
# Forty bad neighbours anywhere in a page of 1000 cause no more refusals in a row than this. After
# more of them the service is at fault rather than rows, and what is left is refused as it is.
_REFUSALS_IN_A_ROW = 65


@dataclass(slots=True)
class Refusals:
    """How often in a row one service refused something, over all pages that it is given."""

    in_a_row: int = 0


async def isolate(
    items: Sequence[T],
    attempt: Callable[[Sequence[T]], Awaitable[None]],
    refuse: Callable[[Sequence[T], str], None],
    refusals: Refusals | None = None,
) -> None:
    """Attempt all items together, then those that were refused in ever smaller parts.

    `refuse` gets what stays refused, and the reason: one item at a time, or larger parts after too
    many refusals in a row, with those of earlier pages if they are given. Any unforeseen exception
    counts as a refusal; the first is logged. Faults of a service are raised at once.
    """
    waiting = [items]
    refusals = refusals or Refusals()
    # Each page is taken apart once at least: some of its parts may go through.
    refusals.in_a_row = min(refusals.in_a_row, _REFUSALS_IN_A_ROW - 1)
    logged = False
    while waiting:
        part = waiting.pop()
        try:
            await attempt(part)
        except SERVICE_FAULTS:
            raise
        except PageRefusedError as fault:
            reason = str(fault)
        except Exception as error:  # noqa: BLE001 - whatever it is, other items may go through
            reason = f"unexpected {type(error).__name__}"
            if not logged:
                _log.exception("unexpected error, isolating its rows", rows=len(part))
            logged = True
        else:
            refusals.in_a_row = 0
            continue
        refusals.in_a_row += 1
        if len(part) == 1 or refusals.in_a_row > _REFUSALS_IN_A_ROW:
            refuse(part, reason)
        else:
            waiting.extend(reversed(parts(part)))


def parts(items: Sequence[T]) -> list[Sequence[T]]:
    """Return the parts in which items that were refused together are attempted again."""
    size = -(-len(items) // _PARTS)
    return [items[start : start + size] for start in range(0, len(items), size)]
