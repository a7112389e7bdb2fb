"""Walks over all that is being played, and has every identity refreshed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timedelta

import structlog

from listener.domain.budget import Errand
from listener.domain.due import Scope
from listener.domain.faults import LmlRefusedError, RunGoesOnError
from listener.domain.pacing import Backoff
from listener.domain.refreshing import Refreshed, RotationTally, Status
from listener.domain.run import RunKind
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.ports import Airplay, Runs, Telemetry
from listener.engine.reconciler import RunHaltedError
from listener.engine.refresher import Refresher, Report
from listener.engine.silent import NoTelemetry

_log = structlog.stdlib.get_logger()

# Longer than LML leaves Discogs alone after it was refused: 20 s.
_RETRY = Backoff(first=timedelta(seconds=25), most=timedelta(minutes=5))
_TRIES = 3
_FAILED_CALLS = 5
# Nothing went well yet: who begins while LML is down should find out at little cost.
_FAILED_AT_ONCE = 2
_LOOK_AGAIN = timedelta(seconds=1)


class Walker:
    """Refreshes the identities of what is being played, one call at a time, one walk in the fleet.

    It refuses while less than `min_coverage` (0..1) of the rows with a Discogs release have an
    identity. `circuit` is shared with all that ask the same of LML.
    """

    def __init__(
        self,
        *,
        airplay: Airplay,
        refresher: Refresher,
        runs: Runs,
        min_coverage: float,
        circuit: Circuit,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._airplay = airplay
        self._refresher = refresher
        self._runs = runs
        self._min_coverage = min_coverage
        self._circuit = circuit
        self._telemetry = telemetry or NoTelemetry()

    async def run(
        self,
        since: datetime,
        *,
        cause: str,
        force: bool = False,
        tally: RotationTally | None = None,
        expect: Callable[[int], None] | None = None,
    ) -> RotationTally:
        """Refresh what nothing of use was said about since then; a walk broken off so goes on.

        Returns its tally, which is the one given, if so, kept up to date; `expect` is told how many
        identities there are. With `force` coverage does not matter. Raises `RunHaltedError` if it
        refuses, if another walk goes on, or once several calls in a row failed, and
        `StoreUnavailableError` if the database goes.
        """
        tally = tally if tally is not None else RotationTally()
        if not force:
            await self._require_coverage()
        if not await self._airplay.identities(since):
            return tally
        try:
            async with self._runs.enter(
                RunKind.ROTATION, Scope(), cause, tally, wait=False
            ) as note:
                # Read once more: another walk may have ended only now.
                todo = dict(await self._airplay.identities(since))
                if expect is not None:
                    expect(len(todo))
                walk = _Walk(self._refresher, self._circuit, tally, todo)
                with self._telemetry.run(RunKind.ROTATION.value, tally):
                    await walk.through(note)
        except RunGoesOnError as fault:
            message = "a walk over the rotation goes on already; `listener status` shows it"
            raise RunHaltedError(message) from fault
        return tally

    async def count(self, since: datetime) -> int:
        """Return how many identities a walk would ask about; asks nothing."""
        return len(await self._airplay.identities(since))

    async def _require_coverage(self) -> None:
        played = await self._airplay.coverage()
        if played.coverage < self._min_coverage:
            raise RunHaltedError(
                f"only {played.resolved} of {played.with_discogs_id} rows in rotation with a"
                f" Discogs release have an identity, {played.coverage:.1%}; ROTATION_MIN_COVERAGE"
                f" is {self._min_coverage:.1%}. Wait until the others are minted, or refresh what"
                " there is: listener sweep --stream rotation --force"
            )


class _Walk:
    """One walk on its way; `todo` are the identities not asked yet, with whether each is known."""

    def __init__(
        self, refresher: Refresher, circuit: Circuit, tally: RotationTally, todo: dict[int, bool]
    ) -> None:
        self._refresher = refresher
        self._circuit = circuit
        self._tally = tally
        self._todo = todo
        self._tries: dict[int, int] = {}
        # When to try again what failed.
        self._again: dict[int, float] = {}
        self._failed_in_a_row = 0
        self._went_well = False

    async def through(self, note: Callable[[], Awaitable[None]]) -> None:
        """Go on until every identity is done with; whatever happens, each that was tried counts."""
        try:
            while self._todo or self._again:
                await self._keep_silent()
                if wanted := self._wanted():
                    await self._ask(wanted, note)
                else:
                    await asyncio.sleep(max(0.0, min(self._again.values()) - now()))
        finally:
            for identity in self._again:
                self._tally.count(Refreshed(identity, Status.ERROR))
        if not self._went_well:
            raise RunHaltedError("LML refuses every page of identities")

    def _wanted(self) -> dict[int, bool]:
        for identity in [i for i, ready_at in self._again.items() if ready_at <= now()]:
            del self._again[identity]
            self._todo[identity] = False
        most = self._circuit.begin_trial() if self._todo else None
        return dict(list(self._todo.items())[:most])

    async def _keep_silent(self) -> None:
        # Others may hear meanwhile that LML is back.
        while quiet := self._circuit.silence():  # noqa: ASYNC110
            await asyncio.sleep(min(quiet, _LOOK_AGAIN).total_seconds())

    async def _ask(self, wanted: dict[int, bool], note: Callable[[], Awaitable[None]]) -> None:
        try:
            async with aclosing(self._refresher.refresh(Errand.WALK, wanted)) as reports:
                async for report in reports:
                    self._tally.calls += 1
                    self._tally.latency += report.took
                    self._take(report)
                    await note()
                    # One refused identity tells nothing about LML: the next page may.
                    if self._circuit.failures and not report.refused:
                        return
        finally:
            self._circuit.end_trial()

    def _take(self, report: Report) -> None:
        for identity, refreshed in report.refreshed.items():
            del self._todo[identity]
            # What LML refuses now it will refuse in a minute.
            if refreshed.worth_a_retry and not report.refused and self._try_again(identity):
                continue
            if refreshed.status is not Status.ERROR:
                self._circuit.answered()
            self._tally.count(refreshed)
        if report.fault is None:
            if not report.refused:
                self._circuit.replied()
                self._failed_in_a_row, self._went_well = 0, True
            return
        for identity in report.lost:
            del self._todo[identity]
            if not self._try_again(identity):
                self._tally.count(Refreshed(identity, Status.ERROR))
        self._circuit.failed(report.fault)
        self._failed_in_a_row += 1
        _log.warning("refresh failed", reason=str(report.fault), in_a_row=self._failed_in_a_row)
        most = _FAILED_CALLS if self._went_well else _FAILED_AT_ONCE
        if isinstance(report.fault, LmlRefusedError):
            raise RunHaltedError(str(report.fault)) from report.fault
        if self._failed_in_a_row >= most:
            message = f"{self._failed_in_a_row} refresh calls in a row failed, the last one: "
            raise RunHaltedError(message + str(report.fault)) from report.fault

    def _try_again(self, identity: int) -> bool:
        tries = self._tries[identity] = self._tries.get(identity, 0) + 1
        if tries >= _TRIES:
            return False
        self._again[identity] = now() + _RETRY.delay(tries).total_seconds()
        return True
