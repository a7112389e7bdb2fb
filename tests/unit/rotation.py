"""In-memory fakes for both ends of the rotation refreshes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from listener.domain.budget import (
    COLD_COST,
    Grant,
    RefreshCause,
    RefreshLimits,
    Spent,
    Wait,
    decide,
)
from listener.domain.change import Stream
from listener.domain.due import RunKind, Scope
from listener.domain.faults import BatchRefusedError, CallInterruptedError, RunGoesOnError
from listener.domain.refreshing import (
    Played,
    Refreshed,
    RefreshStatus,
    RotationCoverage,
    RotationFailure,
    RotationTally,
    Standing,
)
from listener.domain.retrying import Failing
from listener.domain.tally import Tally
from tests.unit.clock import now
from tests.unit.fakes import Outbox

LIMITS = RefreshLimits(calls=30, in_flight=2, call_timeout=timedelta(minutes=6))


def warmed(identity: int) -> Refreshed:
    return Refreshed(identity, RefreshStatus.WARMED, releases=1, artists=3, parts=4)


@dataclass
class Warming:
    """Reports each identity as in `statuses`, by default warmed; mints identity 1000 + release.

    A batch takes `fixed` seconds, plus `cold` seconds for each identity that is new to it. `fault`
    receives the number of calls so far and returns the error of the current one. Batches with a
    `poison` identity are refused, batches with a `deadly` one interrupted; `silent` identities are
    left out of replies.
    """

    statuses: dict[int, str] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()
    poison: frozenset[int] = frozenset()
    fault: Callable[[int], Exception | None] = lambda call: None
    mint_faults: dict[int, Exception] = field(default_factory=dict)
    deadly: frozenset[int] = frozenset()
    fixed: float = 0.1
    cold: float = 0.0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[list[int]] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    minted: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    async def refresh(self, identity_ids: Sequence[int]) -> Mapping[int, Refreshed]:
        self.asked.append(list(identity_ids))
        self.asked_at.append(now())
        fault = self.fault(len(self.asked))
        if fault is not None:
            raise fault
        if not self.deadly.isdisjoint(identity_ids):
            message = "LML answered 502"
            raise CallInterruptedError(message)
        if not self.poison.isdisjoint(identity_ids):
            message = "LML answered 422"
            raise BatchRefusedError(message)
        new = set(identity_ids) - self.seen
        self.seen |= new
        await asyncio.sleep(self.fixed + self.cold * len(new))
        await self.gate.wait()
        return {i: self._said(i) for i in identity_ids if i not in self.silent}

    def _said(self, identity: int) -> Refreshed:
        word = self.statuses.get(identity, "warmed")
        if word == "warmed":
            return warmed(identity)
        if word in set(RefreshStatus):
            return Refreshed(identity, RefreshStatus(word))
        return Refreshed(identity, RefreshStatus.ERROR, word=word)

    async def mint(self, discogs_release_id: int) -> int:
        self.minted.append(discogs_release_id)
        await asyncio.sleep(0)
        if discogs_release_id in self.mint_faults:
            raise self.mint_faults[discogs_release_id]
        return 1000 + discogs_release_id


@dataclass
class _Call:
    cost: int
    known: bool
    identities: int
    started: float
    ended: float = float("inf")
    answered: int = 0


@dataclass
class Refreshes:
    """The recorded refresh calls in memory; `spent_by_others` adds to the cost of a window."""

    limits: RefreshLimits = LIMITS
    calls: list[_Call] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)
    granted: list[tuple[str, bool, int]] = field(default_factory=list)
    spent_by_others: int = 0

    async def take(self, cause: RefreshCause, *, known: bool, wanted: int) -> Grant | Wait:
        await asyncio.sleep(0)
        decision = decide(self.limits, self.spent(known=known), cause, known=known)
        if isinstance(decision, Wait):
            return decision
        size = min(decision.identities, wanted)
        cost = -(-decision.cost * size // decision.identities)
        self.calls.append(_Call(cost, known, size, now()))
        self.granted.append((str(cause), known, size))
        return Grant(len(self.calls) - 1, size)

    def spent(self, *, known: bool) -> Spent:
        since = now() - self.limits.window.total_seconds()
        counted = [call for call in self.calls if call.ended > since]
        in_flight = [call for call in self.calls if call.ended == float("inf")]
        learned = [c for c in self.calls if c.known is known and c.answered][-10:]
        return Spent(
            cost=sum(call.cost for call in counted) + self.spent_by_others,
            calls=sum(call.started > since for call in self.calls),
            in_flight=len(in_flight),
            cold_in_flight=sum(
                round(call.cost / COLD_COST) if call.known else call.identities
                for call in in_flight
            ),
            frees_in=None,
            learned_cost=sum(call.cost for call in learned),
            learned_identities=sum(call.answered for call in learned),
        )

    async def end(
        self, grant: Grant, *, cost: int, answered: int, refreshed: Mapping[int, Refreshed]
    ) -> None:
        call = self.calls[grant.refresh_id]
        assert call.ended == float("inf"), "a call ends once"
        call.ended, call.cost, call.answered = now(), cost, answered
        for identity, each in refreshed.items():
            failed = each.status is RefreshStatus.ERROR
            self.failures[identity] = self.failures.get(identity, 0) + 1 if failed else 0


@dataclass
class Rotation:
    """Rows being played; `locked` ones cannot be written, others wrote `faster` ones first.

    `failures` holds the recorded failures of rows, with the times of the first and last one.
    """

    outbox: Outbox = field(default_factory=Outbox)
    rows: dict[int, Played] = field(default_factory=dict)
    failures: dict[int, tuple[float, float, RotationFailure]] = field(default_factory=dict)
    failed: list[RotationFailure] = field(default_factory=list)
    locked: set[int] = field(default_factory=set)
    faster: set[int] = field(default_factory=set)
    raised: list[list[int]] = field(default_factory=list)

    def play(
        self,
        row: int,
        identity: int | None = None,
        release: int | None = None,
        album: int | None = None,
        *,
        known: bool = False,
    ) -> None:
        self.rows[row] = Played(row, identity, release, album, known)

    async def read(self, row_ids: Sequence[int]) -> Sequence[Played]:
        played = [self.rows[row] for row in sorted(row_ids) if row in self.rows]
        return [replace(row, failing=self._failing(row.row_id)) for row in played]

    def _failing(self, row: int) -> Failing | None:
        if row not in self.failures:
            return None
        since, at, failure = self.failures[row]
        lasting, ago = timedelta(seconds=now() - since), timedelta(seconds=now() - at)
        return Failing(failure.retry.failures, lasting, ago)

    async def settle(self, entries: Sequence[tuple[int, int]], row_ids: Sequence[int]) -> None:
        assert {row for _, row in entries} <= set(row_ids)
        await self.outbox.settle(Stream.ROTATION, entries)
        for row in row_ids:
            self.failures.pop(row, None)

    async def fail(
        self, failures: Sequence[RotationFailure], entries: Sequence[tuple[int, int]]
    ) -> None:
        rows = [failure.row_id for failure in failures]
        assert len(set(rows)) == len(rows), "a statement writes each row once"
        assert {row for _, row in entries} <= set(rows)
        await self.outbox.settle(Stream.ROTATION, entries)
        self.failed += failures
        for failure in failures:
            former = self.failures.get(failure.row_id)
            since = former[0] if former is not None and failure.retry.failures > 1 else now()
            self.failures[failure.row_id] = (since, now(), failure)

    async def fill(self, minted: Mapping[int, int], rows: Sequence[Played]) -> Mapping[int, bool]:
        written = {row.row_id: row.row_id not in self.faster for row in rows}
        for row in rows:
            release = row.discogs_release_id
            assert release is not None
            if row.row_id not in self.locked | self.faster:
                self.rows[row.row_id] = replace(row, identity_id=minted[release])
        return {row: ours for row, ours in written.items() if row not in self.locked}

    async def raise_releases(self, library_ids: Sequence[int]) -> int:
        self.raised.append(list(library_ids))
        return len(library_ids)


@dataclass
class PlayedIdentities:
    """The identities being played: whether each is known, and the latest status of some."""

    known: dict[int, bool]
    answered: dict[int, RefreshStatus] = field(default_factory=dict)
    covered: tuple[int, int] = (100, 100)
    since: list[datetime] = field(default_factory=list)

    async def identities(self, since: datetime) -> Mapping[int, Standing]:
        self.since.append(since)
        ordered = sorted(self.known, key=lambda i: (not self.known[i], i))
        return {i: Standing(self.known[i], self.answered.get(i)) for i in ordered}

    async def coverage(self) -> RotationCoverage:
        resolved, named = self.covered
        share = resolved / named if named else 1.0
        return RotationCoverage(named, named, resolved, resolved, share, resolved, 0)


@dataclass
class Runs:
    """The record of runs; `busy` while another walk is running."""

    busy: bool = False
    entered: list[tuple[RunKind, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    notes: int = 0
    fault: Exception | None = None

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
        assert not wait
        if self.busy:
            message = "another walk is already running"
            raise RunGoesOnError(message)
        self.entered.append((kind, cause))
        try:
            yield self._note
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("done")

    async def _note(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.notes += 1
