"""Warms LML's caches for rotation rows as soon as they change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import structlog

from listener.domain.budget import RefreshCause
from listener.domain.change import Batch
from listener.domain.faults import (
    SERVICE_FAULTS,
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    PageRefusedError,
)
from listener.domain.question import Failing
from listener.domain.refreshing import (
    Played,
    Refreshed,
    RotationFailure,
    RotationTally,
    Status,
)
from listener.domain.retrying import LONGEST_DETAIL, RetryPolicy
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.isolating import isolate
from listener.engine.outcome import BatchOutcome
from listener.engine.ports import Rotation, Warming
from listener.engine.refresher import Refresher, Report

_log = structlog.stdlib.get_logger()

# A batch that the budget does not allow goes back untried after this: a stop waits no longer.
_PATIENCE = timedelta(seconds=1)
# How many rows that failed once are refreshed together; those that failed more often go alone.
_TOGETHER = 10


@dataclass(slots=True)
class _Work:
    """One batch on its way, and what became of its rows.

    `failing` has what was remembered of each row's failures when it was read last. `failures` are
    not in the ledger yet; rows that are `left` to the next walk never get there.
    """

    batch: Batch
    read_at: float = 0.0
    failing: dict[int, Failing | None] = field(default_factory=dict)
    failures: list[RotationFailure] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)


@dataclass(eq=False, kw_only=True)
class Warmer:
    """Has identities minted for changed rotation rows that lack one, and all of them refreshed.

    A row that fails again and again is left to the next walk. `circuit` is shared with all that ask
    the same of LML. `tally` counts identities, and rows that were minted for.
    """

    rotation: Rotation
    warming: Warming
    refresher: Refresher
    circuit: Circuit
    policy: RetryPolicy
    tally: RotationTally = field(default_factory=RotationTally)

    async def handle(self, batch: Batch) -> BatchOutcome:
        """Handle a batch; rows that the budget does not allow now are left untried.

        A fault of a service is in the outcome, and ends it early: what was done by then stays.
        """
        work = _Work(batch)

        async def warm(rows: Sequence[int]) -> None:
            await self._handle(work, [row for row in rows if row not in work.outcome.settled])

        try:
            await isolate(batch.row_ids, warm, partial(self._failed, work))
            await self._record(work)
        except SERVICE_FAULTS as fault:
            work.outcome.fault = fault
        finally:
            self.circuit.end_trial()
        return work.outcome

    async def _handle(self, work: _Work, rows: Sequence[int]) -> None:
        # A change starts a row over, whatever failed before it.
        played = [
            replace(row, failing=None) if work.batch.changes[row.row_id] else row
            for row in await self.rotation.read(rows)
        ]
        work.read_at = now()
        work.failing |= {row.row_id: row.failing for row in played}
        if albums := sorted({row.album_id for row in played if row.album_id is not None}):
            # Before anything is settled: their place in the outbox must be safe by then.
            await self.rotation.raise_releases(albums)
        named = [row for row in played if row.identity_id is not None]
        bare = [row for row in played if row.identity_id is None and row.discogs_release_id]
        unasked = set(rows) - {row.row_id for row in (*named, *bare)}
        work.outcome.unasked |= unasked
        await self._settle(work, unasked)
        try:
            await self._warm(work, named)
            await self._warm(work, await self._mint(work, bare))
        except Exception:
            # Now: rows that failed by then are not tried once more while others are isolated.
            await self._record(work)
            raise
        await self._record(work)

    async def _warm(self, work: _Work, named: Sequence[Played]) -> None:
        for group in _groups(named):
            rows: defaultdict[int, set[int]] = defaultdict(set)
            known: dict[int, bool] = {}
            for row in group:
                if row.identity_id is not None:
                    rows[row.identity_id].add(row.row_id)
                    known[row.identity_id] = row.known
            reports = self.refresher.refresh(
                RefreshCause.CHANGE, dict(sorted(known.items())), _PATIENCE
            )
            async with aclosing(reports):
                async for report in reports:
                    self.tally.calls += 1
                    self.tally.latency += report.took
                    await self._take(work, rows, report)

    async def _take(self, work: _Work, rows: Mapping[int, set[int]], report: Report) -> None:
        for each in (
            *report.refreshed.values(),
            *(Refreshed(i, Status.ERROR) for i in report.lost),
        ):
            self.tally.count(each)
        if report.fault is not None:
            lost = [row for identity in report.lost for row in sorted(rows[identity])]
            self._not_answered(work, lost, report.fault)
            return
        self.circuit.replied()
        done: set[int] = set()
        for identity, refreshed in report.refreshed.items():
            if refreshed.worth_a_retry:
                self._failed(work, rows[identity], "LML could not refresh the identity")
                continue
            if refreshed.status is not Status.ERROR:
                self.circuit.answered()
            done.update(rows[identity])
        await self._settle(work, done)

    async def _mint(self, work: _Work, bare: Sequence[Played]) -> list[Played]:
        """Return the rows that have an identity now."""
        minted: dict[int, int] = {}
        try:
            await self._mint_each(work, bare, minted)
        except Exception:
            # What was minted by then is kept.
            await self._fill(work, bare, minted)
            raise
        return await self._fill(work, bare, minted)

    async def _mint_each(self, work: _Work, bare: Sequence[Played], minted: dict[int, int]) -> None:
        rows: defaultdict[int, set[int]] = defaultdict(set)
        for row in bare:
            rows[row.discogs_release_id or 0].add(row.row_id)
        for release in sorted(rows):
            asking = rows.pop(release)
            try:
                minted[release] = await self.warming.mint(release)
                self.circuit.replied()
                self.circuit.answered()
            except PageRefusedError as fault:
                self.circuit.replied()
                _log.error(
                    "identity cannot be minted",
                    discogs_release_id=release,
                    rows=sorted(asking)[:10],
                    reason=str(fault),
                )
                self.tally.mints["refused"] += len(asking)
                self._failed(work, asking, str(fault))
            except LmlRefusedError as fault:
                # An LML without that route can still refresh: rows with an identity need not wait.
                _log.error("identities cannot be minted", reason=str(fault))
                self._failed(work, asking.union(*rows.values()), str(fault))
                return
            except LmlUnavailableError as fault:
                self._not_answered(work, sorted(asking), fault)

    def _not_answered(self, work: _Work, rows: Sequence[int], fault: LmlUnavailableError) -> None:
        """Note rows of an interrupted call; raise the fault if LML may be to blame."""
        about_rows = all(
            self.circuit.others_answered(work.failing.get(row), work.read_at) for row in rows
        )
        if isinstance(fault, CallInterruptedError):
            self._failed(work, rows, str(fault))
            if about_rows:
                return
        self.circuit.failed(fault)
        raise fault

    def _failed(self, work: _Work, rows: Iterable[int], detail: str) -> None:
        """Note rows to be tried again, or to be left to the walk."""
        for row in sorted(rows):
            past = work.failing.get(row)
            others_answered = self.circuit.others_answered(past, work.read_at)
            retry = self.policy.retry(past, others_answered=others_answered)
            if retry.parked:
                _log.error("row left to the next walk", row_id=row, failures=retry.failures)
                work.left.add(row)
            else:
                work.failures.append(RotationFailure(row, detail[:LONGEST_DETAIL], retry))

    async def _record(self, work: _Work) -> None:
        failures, work.failures = work.failures, []
        await self._settle(work, work.left - work.outcome.settled)
        if failures:
            rows = frozenset(failure.row_id for failure in failures)
            await self.rotation.fail(failures, work.batch.entries(rows))
            _log.warning(
                "rotation rows failed, tried again later",
                rows=sorted(rows)[:10],
                count=len(rows),
                reason=failures[0].detail,
            )
            work.outcome.failed |= rows
            work.outcome.settled |= rows

    async def _fill(
        self, work: _Work, bare: Sequence[Played], minted: Mapping[int, int]
    ) -> list[Played]:
        rows = [row for row in bare if row.discogs_release_id in minted]
        if not rows:
            return []
        written = await self.rotation.fill(minted, rows)
        raced = {row_id for row_id, ours in written.items() if not ours}
        self.tally.mints["minted"] += len(written) - len(raced)
        self.tally.mints["raced"] += len(raced)
        # A change of its own is in the outbox for each of them.
        await self._settle(work, raced)
        self._failed(
            work, {row.row_id for row in rows} - written.keys(), "another session keeps it locked"
        )
        return [
            replace(row, identity_id=minted[row.discogs_release_id or 0])
            for row in rows
            if written.get(row.row_id)
        ]

    async def _settle(self, work: _Work, rows: AbstractSet[int]) -> None:
        if rows:
            await self.rotation.settle(work.batch.entries(rows), sorted(rows))
            work.outcome.settled |= rows


def _groups(rows: Sequence[Played]) -> list[list[Played]]:
    """Return rows to be refreshed together: those that failed before in few or alone, and last."""
    fresh = [row for row in rows if row.failing is None]
    once = [row for row in rows if row.failing is not None and row.failing.failures == 1]
    often = [row for row in rows if row.failing is not None and row.failing.failures > 1]
    groups = [fresh, *(once[start : start + _TOGETHER] for start in range(0, len(once), _TOGETHER))]
    return [group for group in (*groups, *([row] for row in often)) if group]
