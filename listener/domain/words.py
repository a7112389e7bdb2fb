"""Numbers in messages to people."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 call, 2,000 calls."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
