"""How a story is spread over the time there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST_PAUSE = 6.0


@dataclass(frozen=True, slots=True)
class Need:
    """The seconds that a step takes; what is optional is left out first when time is short."""

    seconds: float
    optional: bool = False


def pause_before(left: float, needs: Sequence[Need]) -> float | None:
    """Return the seconds to wait before the first of the steps that remain, None to leave it out.

    `left` are the seconds until the end.
    """
    slack = left - sum(need.seconds for need in needs)
    if needs[0].seconds > left or (needs[0].optional and slack < 0):
        return None
    return min(_LONGEST_PAUSE, max(0.0, slack) / len(needs))
