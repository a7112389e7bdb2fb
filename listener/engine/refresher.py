"""Refreshes identities call by call, within the budget that all processes share."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from listener.domain.budget import COLD_COST, Grant, RefreshCause, cost_of
from listener.domain.faults import LmlUnavailableError, PageRefusedError, StoreUnavailableError
from listener.domain.judging import LoggedOnce
from listener.domain.refreshing import Refreshed, RefreshStatus
from listener.engine.clock import now
from listener.engine.isolating import parts
from listener.engine.ports import Refreshes, Warming
from listener.engine.telemetry import Telemetry, TelemetryFanOut

_log = structlog.stdlib.get_logger()

# Three adjacent bad identities in a page of 50 cause fewer refusals in a row than this. After more,
# LML is at fault rather than identities, and the remaining pages are not split.
_REFUSALS_IN_A_ROW = 12


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one call.

    `refreshed` holds every identity with a final status. If the call failed, `fault` says why, and
    `lost` holds the identities that it asked about. `refused` says that LML refused the page.
    """

    took: timedelta
    refreshed: Mapping[int, Refreshed] = field(default_factory=dict)
    lost: tuple[int, ...] = ()
    fault: LmlUnavailableError | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Page:
    identities: tuple[int, ...]
    known: bool


@dataclass(eq=False)
class Refresher:
    """Asks LML for pages as large as the budget allows, and splits pages that it refuses.

    `refreshed` counts identities by the status that LML reported.
    """

    warming: Warming
    refreshes: Refreshes
    telemetry: Telemetry = field(default_factory=TelemetryFanOut)
    refreshed: Counter[str] = field(default_factory=Counter)
    _odd: LoggedOnce = field(default_factory=LoggedOnce, init=False)

    async def refresh(
        self, cause: RefreshCause, wanted: Mapping[int, bool], patience: timedelta | None = None
    ) -> AsyncGenerator[Report, None]:
        """Yield the outcome of every call; `wanted` maps each identity to whether it is known.

        A refused page that will be split is not reported. Ends early after a call that failed, and
        when the budget allows no call for as long as `patience`; identities without a report were
        not asked about. Raises `StoreUnavailableError`.
        """
        pages = deque(
            _Page(tuple(i for i in wanted if wanted[i] is known), known) for known in (True, False)
        )
        refused = 0
        while pages:
            page = pages.popleft()
            if not page.identities:
                continue
            grant = await self._granted(cause, page, patience)
            if grant is None:
                return
            pages.appendleft(replace(page, identities=page.identities[grant.identities :]))
            page = replace(page, identities=page.identities[: grant.identities])
            report = await self._call(grant, page)
            refused = refused + 1 if report.refused else 0
            if report.refused and len(page.identities) > 1:
                if refused <= _REFUSALS_IN_A_ROW:
                    smaller = [_Page(tuple(part), page.known) for part in parts(page.identities)]
                    pages.extendleft(reversed(smaller))
                    continue
                errors = {i: Refreshed(i, RefreshStatus.ERROR) for i in page.identities}
                report = Report(report.took, errors, refused=True)
            self._count(report)
            yield report
            if report.fault is not None:
                return

    async def _granted(
        self, cause: RefreshCause, page: _Page, patience: timedelta | None
    ) -> Grant | None:
        until = float("inf") if patience is None else now() + patience.total_seconds()
        while True:
            taken = await self.refreshes.take(cause, known=page.known, wanted=len(page.identities))
            if isinstance(taken, Grant):
                return taken
            left = until - now()
            if left <= 0:
                return None
            await asyncio.sleep(min(taken.at_most.total_seconds(), left))

    async def _call(self, grant: Grant, page: _Page) -> Report:
        began = now()

        def took() -> timedelta:
            return timedelta(seconds=now() - began)

        try:
            with self.telemetry.refresh(len(page.identities)):
                said = await self.warming.refresh(page.identities)
        except PageRefusedError as fault:
            _log.warning(
                "identities cannot be refreshed",
                identities=page.identities[:10],
                count=len(page.identities),
                reason=str(fault),
            )
            return await self._refused(grant, page, took())
        except LmlUnavailableError as fault:
            await self._end_failed(grant, page, took())
            return Report(took(), lost=page.identities, fault=fault)
        except BaseException:
            # Otherwise the budget would count the call as in flight until it times out.
            with suppress(StoreUnavailableError):
                await asyncio.shield(self._end_failed(grant, page, took()))
            raise
        return await self._answered(grant, page, said, took())

    async def _answered(
        self, grant: Grant, page: _Page, said: Mapping[int, Refreshed], took: timedelta
    ) -> Report:
        refreshed = {i: said.get(i) or Refreshed(i, RefreshStatus.ERROR) for i in page.identities}
        self._note_words(refreshed)
        reported = sum(each.parts for each in refreshed.values())
        await self.refreshes.end(
            grant,
            cost=cost_of(self.refreshes.limits, len(refreshed), reported, took),
            answered=sum(each.status is not RefreshStatus.ERROR for each in refreshed.values()),
            refreshed=refreshed,
        )
        return Report(took, refreshed)

    async def _refused(self, grant: Grant, page: _Page, took: timedelta) -> Report:
        if len(page.identities) > 1:
            await self._end_failed(grant, page, took)
            return Report(took, refused=True)
        (identity,) = page.identities
        refreshed = {identity: Refreshed(identity, RefreshStatus.ERROR)}
        await self.refreshes.end(grant, cost=0, answered=0, refreshed=refreshed)
        return Report(took, refreshed, refused=True)

    async def _end_failed(self, grant: Grant, page: _Page, took: timedelta) -> None:
        # Its real cost is unknown.
        asked = len(page.identities)
        cost = cost_of(self.refreshes.limits, asked, COLD_COST * asked, took)
        await self.refreshes.end(grant, cost=cost, answered=0, refreshed={})

    def _count(self, report: Report) -> None:
        said = report.refreshed.values()
        self.refreshed.update("other" if each.word else str(each.status) for each in said)
        if report.lost:
            self.refreshed[RefreshStatus.ERROR] += len(report.lost)

    def _note_words(self, refreshed: Mapping[int, Refreshed]) -> None:
        for word in (each.word for each in refreshed.values()):
            if word is not None and self._odd.first(word):
                _log.warning("unknown status, counted as an error, logged once", status=word[:40])
