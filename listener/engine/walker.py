"""Walks over everything that is being played, and refreshes every identity."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from listener.domain.budget import RefreshCause
from listener.domain.due import RunKind, Scope
from listener.domain.faults import RunGoesOnError
from listener.domain.pacing import Backoff
from listener.domain.refreshing import Refreshed, RefreshStatus, RotationTally, Standing
from listener.engine.circuit import Circuit
from listener.engine.ports import PlayedIdentities, Runs
from listener.engine.reconciler import RunHaltedError, give_up
from listener.engine.refresher import Refresher, Report
from listener.engine.telemetry import Telemetry, TelemetryFanOut

_log = structlog.stdlib.get_logger()

# Longer than LML pauses its calls to Discogs after a refusal: 20 s.
_RETRY = Backoff(first=timedelta(seconds=25), most=timedelta(minutes=5))
_ROUNDS = 3


@dataclass(eq=False, kw_only=True)
class Walker:
    """Refreshes the identities of everything that is being played, one call at a time.

    Only one process walks at a time. It refuses to while less than `min_coverage` (0..1) of the
    rows with a Discogs release have an identity. `circuit` is shared by all callers of the stream.
    """

    played: PlayedIdentities
    refresher: Refresher
    runs: Runs
    min_coverage: float
    circuit: Circuit
    telemetry: Telemetry = field(default_factory=TelemetryFanOut)

    async def run(
        self,
        since: datetime,
        *,
        cause: str,
        force: bool = False,
        tally: RotationTally | None = None,
        expect: Callable[[int], None] | None = None,
    ) -> RotationTally:
        """Refresh every identity without a useful answer since then.

        This continues an interrupted walk. Returns its tally of all identities being played, which
        is `tally` if given and is updated as it goes; `expect` receives the number of identities to
        ask about. `force` ignores coverage. Raises `RunHaltedError` if coverage is too low, if
        another walk is running, if LML refuses every batch, or after several calls failed in a row;
        `StoreUnavailableError` if the database fails.
        """
        tally = tally if tally is not None else RotationTally()
        if not force:
            await self._require_coverage()
        if not await self.played.identities(since):
            return tally
        try:
            async with self.runs.enter(RunKind.ROTATION, Scope(), cause, tally, wait=False) as note:
                # Read again: another walk may just have ended.
                played = await self.played.identities(since)
                await self._walk(played, tally, expect, note)
        except RunGoesOnError as fault:
            message = "a rotation walk is already running; `listener status` shows it"
            raise RunHaltedError(message) from fault
        return tally

    async def _walk(
        self,
        played: Mapping[int, Standing],
        tally: RotationTally,
        expect: Callable[[int], None] | None,
        note: Callable[[], Awaitable[None]],
    ) -> None:
        todo = {i: each.known for i, each in played.items() if each.answered is None}
        if expect is not None:
            expect(len(todo))
        with self.telemetry.run(RunKind.ROTATION.value, tally):
            for identity, each in played.items():
                if each.answered is not None:
                    tally.count_former(identity, each.answered)
            if todo:
                await _Walk(self.refresher, self.circuit, tally, todo).through(note)

    async def count(self, since: datetime) -> int:
        """Return how many identities a walk would ask about, without asking."""
        played = await self.played.identities(since)
        return sum(each.answered is None for each in played.values())

    async def _require_coverage(self) -> None:
        played = await self.played.coverage()
        if played.coverage < self.min_coverage:
            raise RunHaltedError(
                f"only {played.resolved} of {played.with_discogs_id} rows in rotation with a"
                f" Discogs release have an identity, {played.coverage:.1%}; ROTATION_MIN_COVERAGE"
                f" is {self.min_coverage:.1%}. Wait until the others are minted, or refresh the"
                " existing ones: listener sweep --stream rotation --force"
            )


@dataclass(eq=False)
class _Walk:
    """A walk in progress, in rounds: each round retries the identities that failed in the last.

    `todo` maps the identities to ask about in this round to whether each is known.
    """

    refresher: Refresher
    circuit: Circuit
    tally: RotationTally
    todo: dict[int, bool]
    failed: set[int] = field(default_factory=set)
    went_well: bool = False

    async def through(self, note: Callable[[], Awaitable[None]]) -> None:
        """Work until every identity has answered, or has failed in every round."""
        for rounds in range(1, _ROUNDS + 1):
            while self.todo:
                await self.circuit.wait()
                wanted = list(self.todo.items())[: self.circuit.begin_trial()]
                await self._ask(dict(wanted), note)
            if not self.failed or rounds == _ROUNDS:
                break
            await asyncio.sleep(_RETRY.delay(rounds).total_seconds())
            self.todo, self.failed = dict.fromkeys(sorted(self.failed), False), set()
        if not self.went_well:
            raise RunHaltedError("LML refuses every batch of identities")

    async def _ask(self, wanted: dict[int, bool], note: Callable[[], Awaitable[None]]) -> None:
        try:
            async with aclosing(self.refresher.refresh(RefreshCause.WALK, wanted)) as reports:
                async for report in reports:
                    self.tally.calls += 1
                    self.tally.latency += report.took
                    self._take(report)
                    await note()
                    # One refused identity says nothing about LML; the next batch may.
                    if self.circuit.failures and not report.refused:
                        return
        finally:
            self.circuit.end_trial()

    def _take(self, report: Report) -> None:
        for identity, refreshed in report.refreshed.items():
            del self.todo[identity]
            self.tally.count(refreshed)
            # If LML refuses an identity now, it will also refuse it in a minute.
            if refreshed.worth_a_retry and not report.refused:
                self.failed.add(identity)
            if refreshed.status is not RefreshStatus.ERROR:
                self.circuit.answered()
        if report.fault is None:
            if not report.refused:
                self.circuit.replied()
                self.went_well = True
            return
        for identity in report.lost:
            del self.todo[identity]
            self.tally.count(Refreshed(identity, RefreshStatus.ERROR))
            self.failed.add(identity)
        self.circuit.failed(report.fault)
        _log.warning("refresh failed", reason=str(report.fault), in_a_row=self.circuit.failures)
        give_up(report.fault, self.circuit.failures)
