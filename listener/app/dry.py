"""Stand-ins for a dry run, which writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from listener.domain.due import RunKind, Scope
from listener.domain.refreshing import RotationTally
from listener.domain.retrying import Failure
from listener.domain.tally import Tally
from listener.domain.verdict import VerdictBatch, Written


class DryVerdicts:
    """Pretends that every verdict was written."""

    async def write(self, batch: VerdictBatch) -> Written:
        """Return all rows of the batch."""
        return Written(frozenset(verdict.library_id for verdict in batch.verdicts))

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        """Record nothing, and pretend that every row was recorded."""
        return frozenset(failure.library_id for failure in failures)


class DryRuns:
    """Records no run and excludes no other: a dry run writes nothing twice."""

    @asynccontextmanager
    async def enter(
        self,
        kind: RunKind,
        scope: Scope,
        cause: str,
        tally: Tally | RotationTally,
        *,
        wait: bool = True,
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Yield a function that records nothing."""
        yield _nothing


async def _nothing() -> None:
    pass
