"""Runs: the searches for due rows that are made, by schedule or on command."""

from __future__ import annotations

from enum import Enum, StrEnum


class Search(StrEnum):
    """A way to find due rows: those whose time has come, or a look at every row."""

    BY_TIME = "by time"
    BY_CONTENT = "by content"


class RunKind(Enum):
    """What a run searches for."""

    SWEEP = "sweep"
    REFRESH = "refresh"
    AUDIT = "audit"
    BACKFILL = "backfill"

    @property
    def searches(self) -> frozenset[Search]:
        """The ways in which the run searches."""
        match self:
            case RunKind.SWEEP:
                return frozenset(Search)
            case RunKind.REFRESH:
                return frozenset((Search.BY_TIME,))
            case _:
                return frozenset((Search.BY_CONTENT,))
