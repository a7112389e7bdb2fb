"""Numbers and durations in messages to people, and values as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

_WHOLE = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

# Units of durations in seconds, largest first: in settings and options.
WRITTEN: Mapping[str, float] = _WHOLE | {"ms": 0.001}
# In messages to people.
SPOKEN: Mapping[str, int] = {"min" if unit == "m" else unit: _WHOLE[unit] for unit in _WHOLE}


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 call, 2,000 calls."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(duration: timedelta, *, largest: str = "d") -> str:
    """Return a duration, rounded to the largest unit that fits twice: 12 s, 90 min, 7 d."""
    seconds = max(0, duration.total_seconds())
    unit, size = next(
        (unit, size)
        for unit, size in SPOKEN.items()
        if size <= SPOKEN[largest] and (seconds >= 2 * size or size == 1)
    )
    return f"{seconds / size:.0f} {unit}"


def trimmed(value: object) -> object:
    """Return text without surrounding blanks, line ends and one pair of quotes; other values as is.

    A mounted file ends in a line end, and some readers of env files keep the quotes.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1].strip() if quoted else text
