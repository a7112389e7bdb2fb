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
from listener.domain.faults import BatchRefusedError, LmlUnavailableError, StoreUnavailableError
from listener.domain.judging import LoggedOnce
from listener.domain.refreshing import Refreshed, RefreshStatus
from listener.engine.clock import now
from listener.engine.isolating import parts
from listener.engine.ports import Refreshes, Warming
from listener.engine.telemetry import Telemetry, TelemetryFanOut

_log = structlog.stdlib.get_logger()

# Three adjacent bad identities among 50 cause fewer refusals in a row than this. After more, LML is
# at fault rather than identities, and the remaining batches are not split.
_REFUSALS_IN_A_ROW = 12


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one call.

    `refreshed` holds every identity with a final status. If the call failed, `fault` says why, and
    `lost` holds the identities that it asked about. `refused` says that LML refused the batch.
    """

    took: timedelta
    refreshed: Mapping[int, Refreshed] = field(default_factory=dict)
    lost: tuple[int, ...] = ()
    fault: LmlUnavailableError | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Batch:
    identities: tuple[int, ...]
    known: bool


@dataclass(eq=False)
class Refresher:
    """Asks LML for batches as large as the budget allows, and splits batches that it refuses.

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

        A refused batch that will be split is not reported. Ends early after a call that failed, and
        when the budget allows no call for as long as `patience`; identities without a report were
        not asked about. Raises `StoreUnavailableError`.
        """
        batches = deque(
            _Batch(tuple(i for i in wanted if wanted[i] is known), known) for known in (True, False)
        )
        refused = 0
        while batches:
            batch = batches.popleft()
            if not batch.identities:
                continue
            grant = await self._granted(cause, batch, patience)
            if grant is None:
                return
            batches.appendleft(replace(batch, identities=batch.identities[grant.identities :]))
            batch = replace(batch, identities=batch.identities[: grant.identities])
            report = await self._call(grant, batch)
            refused = refused + 1 if report.refused else 0
            if report.refused and len(batch.identities) > 1:
                if refused <= _REFUSALS_IN_A_ROW:
                    smaller = [_Batch(tuple(part), batch.known) for part in parts(batch.identities)]
                    batches.extendleft(reversed(smaller))
                    continue
                errors = {i: Refreshed(i, RefreshStatus.ERROR) for i in batch.identities}
                report = Report(report.took, errors, refused=True)
            self._count(report)
            yield report
            if report.fault is not None:
                return

    async def _granted(
        self, cause: RefreshCause, batch: _Batch, patience: timedelta | None
    ) -> Grant | None:
        until = float("inf") if patience is None else now() + patience.total_seconds()
        while True:
            taken = await self.refreshes.take(
                cause, known=batch.known, wanted=len(batch.identities)
            )
            if isinstance(taken, Grant):
                return taken
            left = until - now()
            if left <= 0:
                return None
            await asyncio.sleep(min(taken.at_most.total_seconds(), left))

    async def _call(self, grant: Grant, batch: _Batch) -> Report:
        began = now()

        def took() -> timedelta:
            return timedelta(seconds=now() - began)

        try:
            with self.telemetry.refresh(len(batch.identities)):
                said = await self.warming.refresh(batch.identities)
        except BatchRefusedError as fault:
            _log.warning(
                "identities cannot be refreshed",
                identities=batch.identities[:10],
                count=len(batch.identities),
                reason=str(fault),
            )
            return await self._refused(grant, batch, took())
        except LmlUnavailableError as fault:
            await self._end_failed(grant, batch, took())
            return Report(took(), lost=batch.identities, fault=fault)
        except BaseException:
            # Otherwise the budget would count the call as in flight until it times out.
            with suppress(StoreUnavailableError):
                await asyncio.shield(self._end_failed(grant, batch, took()))
            raise
        return await self._answered(grant, batch, said, took())

    async def _answered(
        self, grant: Grant, batch: _Batch, said: Mapping[int, Refreshed], took: timedelta
    ) -> Report:
        refreshed = {i: said.get(i) or Refreshed(i, RefreshStatus.ERROR) for i in batch.identities}
        self._note_words(refreshed)
        reported = sum(each.parts for each in refreshed.values())
        await self.refreshes.end(
            grant,
            cost=cost_of(self.refreshes.limits, len(refreshed), reported, took),
            answered=sum(each.status is not RefreshStatus.ERROR for each in refreshed.values()),
            refreshed=refreshed,
        )
        return Report(took, refreshed)

    async def _refused(self, grant: Grant, batch: _Batch, took: timedelta) -> Report:
        if len(batch.identities) > 1:
            await self._end_failed(grant, batch, took)
            return Report(took, refused=True)
        (identity,) = batch.identities
        refreshed = {identity: Refreshed(identity, RefreshStatus.ERROR)}
        await self.refreshes.end(grant, cost=0, answered=0, refreshed=refreshed)
        return Report(took, refreshed, refused=True)

    async def _end_failed(self, grant: Grant, batch: _Batch, took: timedelta) -> None:
        # Its real cost is unknown.
        asked = len(batch.identities)
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
