"""Runs: the searches for what is due that are made, by schedule or on command."""

from __future__ import annotations

from enum import Enum, StrEnum


class Search(StrEnum):
    """A way to find what is due.

    Rows that failed and rows whose time has come, a look at every row, the compilations that were
    asked before, or what is being played.
    """

    FAILED = "failed"
    BY_TIME = "by time"
    BY_CONTENT = "by content"
    COMPILATIONS = "compilations"
    IN_ROTATION = "in rotation"


class RunKind(Enum):
    """What a run searches for."""

    SWEEP = "sweep"
    REFRESH = "refresh"
    AUDIT = "audit"
    BACKFILL = "backfill"
    ROTATION = "rotation"
    RECHECK = "recheck"

    @property
    def searches(self) -> frozenset[Search]:
        """The ways in which the run searches."""
        match self:
            case RunKind.SWEEP:
                return frozenset((Search.FAILED, Search.BY_TIME, Search.BY_CONTENT))
            case RunKind.REFRESH:
                return frozenset((Search.BY_TIME,))
            case RunKind.ROTATION:
                return frozenset((Search.IN_ROTATION,))
            case RunKind.RECHECK:
                return frozenset((Search.COMPILATIONS,))
            case _:
                return frozenset((Search.BY_CONTENT,))
