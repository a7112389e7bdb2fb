"""Warms LML's caches for what is being played, as soon as it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from listener.domain.budget import Errand
from listener.domain.change import Batch, Stream
from listener.domain.faults import (
    CallBrokenOffError,
    LmlRefusedError,
    LmlUnavailableError,
    PageRefusedError,
)
from listener.domain.refreshing import Played, RotationTally
from listener.engine.handling import Handled
from listener.engine.ports import Outbox, Rotation, Warming
from listener.engine.refresher import Refresher, Report

_log = structlog.stdlib.get_logger()

# While the budget is spent a batch goes back untried after this: a stop need not wait for it.
_PATIENCE = timedelta(seconds=1)
_SUSPECTS = 1000


@dataclass(slots=True)
class _Work:
    """One batch on its way: what became of its rows, and why it cannot go on, if so."""

    batch: Batch
    settled: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    unasked: set[int] = field(default_factory=set)
    fault: LmlUnavailableError | None = None

    def handled(self) -> Handled:
        return Handled(
            settled=frozenset(self.settled),
            late=frozenset(self.late),
            failed=frozenset(self.failed),
            unasked=frozenset(self.unasked),
            fault=self.fault,
        )


class Warmer:
    """Has identities minted for changed rotation rows that lack one, and all of them refreshed.

    A row whose identity failed `attempts` times in a row is left to the walk. `tally` counts
    identities, each once it is done with; `mints` counts rows by what became of them: `minted`,
    `raced` (somebody else was faster) and `refused`.
    """

    def __init__(
        self,
        *,
        rotation: Rotation,
        warming: Warming,
        refresher: Refresher,
        outbox: Outbox,
        attempts: int,
    ) -> None:
        self.tally = RotationTally()
        self.mints: Counter[str] = Counter()
        self._rotation = rotation
        self._warming = warming
        self._refresher = refresher
        self._outbox = outbox
        self._attempts = attempts
        # Releases that LML may fail at as a whole: they come last.
        self._broke_off: set[int] = set()

    async def handle(self, batch: Batch) -> Handled:
        """Handle a batch; rows that the budget does not allow now are left untried.

        Raises `StoreUnavailableError`.
        """
        work = _Work(batch)
        played = await self._rotation.read(batch.row_ids)
        if albums := sorted({row.album_id for row in played if row.album_id is not None}):
            # Before anything is settled: their place in the outbox must be safe by then.
            await self._rotation.raise_releases(albums)
        named = [row for row in played if row.identity_id is not None]
        bare = [row for row in played if row.identity_id is None and row.discogs_release_id]
        asked = {row.row_id for row in (*named, *bare)}
        work.unasked = set(batch.changes) - asked
        await self._settle(work, work.unasked)
        await self._warm(work, named)
        if work.fault is None:
            await self._warm(work, await self._mint(work, bare))
        return work.handled()

    async def _warm(self, work: _Work, named: Sequence[Played]) -> None:
        rows: defaultdict[int, set[int]] = defaultdict(set)
        known: dict[int, bool] = {}
        for row in named:
            if row.identity_id is not None:
                rows[row.identity_id].add(row.row_id)
                known[row.identity_id] = row.known
        reports = self._refresher.refresh(Errand.CHANGE, dict(sorted(known.items())), _PATIENCE)
        async with aclosing(reports):
            async for report in reports:
                self.tally.calls += 1
                self.tally.latency += report.took
                work.fault = work.fault or report.fault
                await self._take(work, rows, report)

    async def _take(self, work: _Work, rows: Mapping[int, set[int]], report: Report) -> None:
        done: set[int] = set()
        for identity, refreshed in report.refreshed.items():
            failures = report.failures.get(identity, 1)
            if refreshed.worth_a_retry and failures < self._attempts:
                work.failed.update(rows[identity])
                continue
            if refreshed.worth_a_retry:
                _log.error("identity left to the walk", identity_id=identity, failures=failures)
            self.tally.count(refreshed)
            done.update(rows[identity])
        await self._settle(work, done)

    async def _mint(self, work: _Work, bare: Sequence[Played]) -> list[Played]:
        """Return the rows that have an identity now."""
        minted: dict[int, int] = {}
        releases = {row.discogs_release_id or 0 for row in bare}
        for release in sorted(releases, key=lambda release: (release in self._broke_off, release)):
            asking = {row.row_id for row in bare if row.discogs_release_id == release}
            try:
                minted[release] = await self._warming.mint(release)
                self._broke_off.discard(release)
            except PageRefusedError as fault:
                await self._leave(work, release, asking, fault)
            except LmlRefusedError as fault:
                # An LML without that route can refresh all the same: the others need not wait.
                _log.error("identities cannot be minted", reason=str(fault))
                work.failed |= asking
            except LmlUnavailableError as fault:
                if release not in self._broke_off or not minted:
                    self._suspect(release, fault)
                    work.fault = fault
                    break
                # LML minted others just before, and breaks this call off once more.
                await self._leave(work, release, asking, fault)
        return await self._fill(work, [r for r in bare if r.discogs_release_id in minted], minted)

    async def _leave(self, work: _Work, release: int, asking: set[int], fault: Exception) -> None:
        """Settle rows whose release is not minted now; it is tried again before the next walk."""
        _log.error(
            "identity cannot be minted",
            discogs_release_id=release,
            rows=sorted(asking)[:10],
            reason=str(fault),
        )
        self._broke_off.discard(release)
        self.mints["refused"] += len(asking)
        await self._settle(work, asking)

    def _suspect(self, release: int, fault: LmlUnavailableError) -> None:
        if isinstance(fault, CallBrokenOffError):
            # Bounded: who is forgotten is only tried sooner.
            if len(self._broke_off) >= _SUSPECTS:
                self._broke_off.clear()
            self._broke_off.add(release)

    async def _fill(
        self, work: _Work, rows: Sequence[Played], minted: Mapping[int, int]
    ) -> list[Played]:
        if not rows:
            return []
        written = await self._rotation.fill(minted, rows)
        raced = {row_id for row_id, ours in written.items() if not ours}
        self.mints["minted"] += len(written) - len(raced)
        self.mints["raced"] += len(raced)
        # What changed such a row meanwhile is in the outbox itself.
        await self._settle(work, raced)
        work.late |= {row.row_id for row in rows} - written.keys()
        return [
            replace(row, identity_id=minted[row.discogs_release_id or 0])
            for row in rows
            if written.get(row.row_id)
        ]

    async def _settle(self, work: _Work, rows: set[int]) -> None:
        if rows:
            await self._outbox.settle(Stream.ROTATION, work.batch.entries(frozenset(rows)))
            work.settled |= rows
