"""What a dry run writes to: nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from listener.domain.due import Scope
from listener.domain.refreshing import RotationTally
from listener.domain.retrying import Failure
from listener.domain.run import RunKind
from listener.domain.tally import Tally
from listener.domain.verdict import VerdictPage, Written


class DryVerdicts:
    """Takes every verdict for written."""

    async def write(self, page: VerdictPage) -> Written:
        """Return all rows of the page."""
        return Written(frozenset(verdict.library_id for verdict in page.verdicts))

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        """Remember nothing, and take every row for remembered."""
        return frozenset(failure.library_id for failure in failures)


class DryRuns:
    """Enters no run, and keeps none out: nothing is written that could be written twice."""

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
        """Yield what notes nothing."""
        yield _nothing


async def _nothing() -> None:
    pass
