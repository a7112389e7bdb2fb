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
from listener.domain.change import Batch, BatchOutcome
from listener.domain.faults import (
    SERVICE_FAULTS,
    BatchRefusedError,
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
)
from listener.domain.latest import FAILED, LatestAnswers, rotation_answer
from listener.domain.refreshing import (
    Played,
    Refreshed,
    RefreshStatus,
    RotationFailure,
    RotationTally,
)
from listener.domain.retrying import LONGEST_DETAIL, Failing, RetryPolicy
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.isolating import isolate
from listener.engine.ports import Rotation, Warming
from listener.engine.refresher import Refresher, Report

_log = structlog.stdlib.get_logger()

# A batch without budget goes back untried after this time, so that a stop need not wait longer.
_PATIENCE = timedelta(seconds=1)
# How many rows that failed once are refreshed together; rows that failed more often go alone.
_TOGETHER = 10


@dataclass(slots=True)
class _Warmed:
    """A batch in progress, and the outcomes of its rows.

    `played` holds the rows as last read. `failures` are not recorded yet; rows that are `left` to
    the next walk never will be.
    """

    batch: Batch
    read_at: float = 0.0
    played: dict[int, Played] = field(default_factory=dict)
    failures: list[RotationFailure] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)

    def failing(self, row: int) -> Failing | None:
        """Return the recorded failures of a row, if any."""
        played = self.played.get(row)
        return played.failing if played is not None else None


@dataclass(eq=False, kw_only=True)
class Warmer:
    """Refreshes the identities of changed rotation rows, and has missing ones minted.

    A row that keeps failing is left to the next walk. `circuit` is shared by all callers of the
    stream. `tally` counts identities, and the rows that were minted for; `latest` keeps answers.
    """

    rotation: Rotation
    warming: Warming
    refresher: Refresher
    circuit: Circuit
    policy: RetryPolicy
    tally: RotationTally = field(default_factory=RotationTally)
    latest: LatestAnswers = field(default_factory=LatestAnswers)

    async def handle(self, batch: Batch) -> BatchOutcome:
        """Handle a batch; rows for which the budget has no room now are left untried.

        A service fault ends this early and is part of the outcome; work already done stays.
        """
        work = _Warmed(batch)

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

    async def _handle(self, work: _Warmed, rows: Sequence[int]) -> None:
        # A change resets the failures of its row.
        played = [
            replace(row, failing=None) if work.batch.changes[row.row_id] else row
            for row in await self.rotation.read(rows)
        ]
        work.read_at = now()
        work.played |= {row.row_id: row for row in played}
        if albums := sorted({row.album_id for row in played if row.album_id is not None}):
            # Before anything is settled: first their questions must be safe in the outbox.
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
            # Record failures now, so that isolating other rows does not retry these.
            await self._record(work)
            raise
        await self._record(work)

    async def _warm(self, work: _Warmed, named: Sequence[Played]) -> None:
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

    async def _take(self, work: _Warmed, rows: Mapping[int, set[int]], report: Report) -> None:
        for each in (
            *report.refreshed.values(),
            *(Refreshed(i, RefreshStatus.ERROR) for i in report.lost),
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
            if refreshed.status is not RefreshStatus.ERROR:
                self.circuit.answered()
            done.update(rows[identity])
            self._note(work, rows[identity], refreshed.word or refreshed.status)
        await self._settle(work, done)

    async def _mint(self, work: _Warmed, bare: Sequence[Played]) -> list[Played]:
        """Mint identities for rows that lack one; return the rows that have one now."""
        minted: dict[int, int] = {}
        try:
            await self._mint_each(work, bare, minted)
        except Exception:
            # Keep the identities that are minted already.
            await self._fill(work, bare, minted)
            raise
        return await self._fill(work, bare, minted)

    async def _mint_each(
        self, work: _Warmed, bare: Sequence[Played], minted: dict[int, int]
    ) -> None:
        rows: defaultdict[int, set[int]] = defaultdict(set)
        for row in bare:
            rows[row.discogs_release_id or 0].add(row.row_id)
        for release in sorted(rows):
            asking = rows.pop(release)
            try:
                minted[release] = await self.warming.mint(release)
                self.circuit.replied()
                self.circuit.answered()
            except BatchRefusedError as fault:
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
                # An LML without this route can still refresh: rows with an identity need not wait.
                _log.error("identities cannot be minted", reason=str(fault))
                self._failed(work, asking.union(*rows.values()), str(fault))
                return
            except LmlUnavailableError as fault:
                self._not_answered(work, sorted(asking), fault)

    def _not_answered(self, work: _Warmed, rows: Sequence[int], fault: LmlUnavailableError) -> None:
        """Record the rows of an interrupted call as failed; raise if LML may be to blame."""
        about_rows = all(
            self.circuit.others_answered(work.failing(row), work.read_at) for row in rows
        )
        if isinstance(fault, CallInterruptedError):
            self._failed(work, rows, str(fault))
            if about_rows:
                return
        self.circuit.failed(fault)
        raise fault

    def _failed(self, work: _Warmed, rows: Iterable[int], detail: str) -> None:
        """Record failed rows for a retry, or leave them to the next walk."""
        self._note(work, rows, FAILED, detail)
        for row in sorted(rows):
            past = work.failing(row)
            others_answered = self.circuit.others_answered(past, work.read_at)
            retry = self.policy.retry(past, others_answered=others_answered)
            if retry.parked:
                _log.error("row left to the next walk", row_id=row, failures=retry.failures)
                work.left.add(row)
            else:
                work.failures.append(RotationFailure(row, detail[:LONGEST_DETAIL], retry))

    def _note(self, work: _Warmed, rows: Iterable[int], outcome: str, detail: str = "") -> None:
        known = [work.played[row] for row in sorted(rows) if row in work.played]
        at = now()
        self.latest.note(
            rotation_answer(row, outcome, work.batch, at, detail=detail) for row in known
        )

    async def _record(self, work: _Warmed) -> None:
        failures, work.failures = work.failures, []
        await self._settle(work, work.left - work.outcome.settled)
        if failures:
            rows = frozenset(failure.row_id for failure in failures)
            await self.rotation.fail(failures, work.batch.entries(rows))
            _log.warning(
                "rotation rows failed, retrying later",
                rows=sorted(rows)[:10],
                count=len(rows),
                reason=failures[0].detail,
            )
            work.outcome.failed |= rows
            work.outcome.settled |= rows

    async def _fill(
        self, work: _Warmed, bare: Sequence[Played], minted: Mapping[int, int]
    ) -> list[Played]:
        rows = [row for row in bare if row.discogs_release_id in minted]
        if not rows:
            return []
        written = await self.rotation.fill(minted, rows)
        raced = {row_id for row_id, ours in written.items() if not ours}
        self.tally.mints["minted"] += len(written) - len(raced)
        self.tally.mints["raced"] += len(raced)
        # Each of these rows has a newer change in the outbox.
        await self._settle(work, raced)
        self._failed(
            work, {row.row_id for row in rows} - written.keys(), "locked by another session"
        )
        return [
            replace(row, identity_id=minted[row.discogs_release_id or 0])
            for row in rows
            if written.get(row.row_id)
        ]

    async def _settle(self, work: _Warmed, rows: AbstractSet[int]) -> None:
        if rows:
            await self.rotation.settle(work.batch.entries(rows), sorted(rows))
            work.outcome.settled |= rows


def _groups(rows: Sequence[Played]) -> list[list[Played]]:
    """Group rows to refresh together: rows that failed before come last, in few or alone."""
    fresh = [row for row in rows if row.failing is None]
    once = [row for row in rows if row.failing is not None and row.failing.failures == 1]
    often = [row for row in rows if row.failing is not None and row.failing.failures > 1]
    groups = [fresh, *(once[start : start + _TOGETHER] for start in range(0, len(once), _TOGETHER))]
    return [group for group in (*groups, *([row] for row in often)) if group]
