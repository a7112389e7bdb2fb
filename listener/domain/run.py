"""Runs: searches for due rows, scheduled or started by a command."""

from __future__ import annotations

from enum import Enum, StrEnum


class Search(StrEnum):
    """A way to find rows that are due.

    Failed rows, rows whose time has come, a scan of every row, compilations that were asked before,
    or everything that is being played.
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
        """The searches that the run makes."""
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
