"""Numbers as people read them."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return how many of a thing there are: 1 call, 2,000 calls."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
