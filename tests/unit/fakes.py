"""Both ends of the engine, in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from listener.domain.change import Batch, BatchOutcome, Change, Look, Snapshot, Stream
from listener.domain.faults import (
    BatchRefusedError,
    CallInterruptedError,
    LaneLostError,
    StatementRefusedError,
)
from listener.domain.judging import Invalid
from listener.domain.pulse import WakeMode
from listener.domain.question import Asking, Question
from listener.domain.retrying import Failing, Failure
from listener.domain.tracks import TrackCount
from listener.domain.verdict import Kind, Verdict, VerdictBatch, Written
from tests.unit.clock import now


@dataclass
class Outbox:
    """A list of committed entries; `xmin` stands still while a transaction is open.

    `calls` lists the calls to the outbox and to its lane, in order.
    """

    entries: dict[int, int] = field(default_factory=dict)
    next_id: int = 100
    open_since: int | None = None
    looks: list[tuple[float, int, int]] = field(default_factory=list)
    settled: list[tuple[int, int]] = field(default_factory=list)
    claimed: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    fault: Exception | None = None
    _last_seq: int = 0

    def record(self, *rows: int) -> None:
        for row in rows:
            self._last_seq += 1
            self.entries[self._last_seq] = row
        self.next_id += 1

    def reserve(self) -> int:
        """Draw a seq whose transaction commits later, if at all."""
        self._last_seq += 1
        return self._last_seq

    def open_transaction(self) -> None:
        self.open_since, self.next_id = self.next_id, self.next_id + 1

    def draw_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    async def look(
        self, stream: Stream, *, after: int, held: Sequence[int], limit: int, mark: bool = False
    ) -> Look:
        self.calls.append("look")
        xmin = self.next_id if self.open_since is None else self.open_since
        snapshot = Snapshot(xmin, self.draw_id() if mark else None)
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        free = sorted(seq for seq in self.entries if seq > after and seq not in held)
        found = [Change(seq, self.entries[seq], timedelta(0)) for seq in free[:limit]]
        self.looks.append((now(), after, len(found)))
        self.claimed += [change.seq for change in found]
        return Look(tuple(found), snapshot, complete=len(found) < limit)

    async def settle(self, stream: Stream, entries: Sequence[tuple[int, int]]) -> None:
        for seq, row in entries:
            assert self.entries.pop(seq) == row
        self.settled += entries


@dataclass
class Lane:
    """A lane whose writers wake it by hand."""

    outbox: Outbox
    waits: list[float] = field(default_factory=list)
    lost: bool = False
    fault: Exception | None = None
    wake_mode: WakeMode = WakeMode.NOTIFY
    _awake: bool = False
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self._woken.set()

    def lose(self) -> None:
        self.lost = True
        self.wake()

    def break_with(self, fault: Exception) -> None:
        self.fault = fault
        self.wake()

    def awake(self) -> bool:
        """Whether writers skip wake-ups."""
        return self._awake

    async def rouse(self) -> None:
        self.outbox.calls.append("rouse")
        self._awake = True

    async def doze(self) -> int | None:
        if not self._awake:
            return None
        self.outbox.calls.append("doze")
        self._awake = False
        return self.outbox.draw_id()

    async def wait(self, at_most: timedelta) -> bool:
        self.outbox.calls.append("wait")
        self.waits.append(at_most.total_seconds())
        woken = True
        try:
            async with asyncio.timeout(at_most.total_seconds()):
                await self._woken.wait()
        except TimeoutError:
            woken = False
        self._woken.clear()
        if self.fault is not None:
            raise self.fault
        if self.lost:
            message = "another daemon follows the stream now"
            raise LaneLostError(message)
        return woken


@dataclass
class Lanes:
    """Holds the lane that `take` returns, and records when it is handed over."""

    take: Callable[[Stream], Awaitable[Lane]]
    held: dict[Stream, int] = field(default_factory=dict)
    handed_over: list[Stream] = field(default_factory=list)

    @asynccontextmanager
    async def hold(self, stream: Stream) -> AsyncIterator[Lane]:
        lane = await self.take(stream)
        self.held[stream] = self.held.get(stream, 0) + 1
        try:
            yield lane
        finally:
            self.handed_over.append(stream)


@dataclass
class Worker:
    """Handles batches: settles their entries once `gate` is open; `answer` decides the outcome."""

    outbox: Outbox
    stream: Stream = Stream.LIBRARY
    batches: list[Batch] = field(default_factory=list)
    begun_at: list[float] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    cancelled: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Callable[[Batch], BatchOutcome] | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def rows(self) -> list[list[int]]:
        return [batch.row_ids for batch in self.batches]

    async def handle(self, batch: Batch) -> BatchOutcome:
        self.batches.append(batch)
        self.begun_at.append(now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            settled = frozenset(batch.changes)
            outcome = self.answer(batch) if self.answer else BatchOutcome(settled=settled)
            await self.outbox.settle(self.stream, batch.entries(outcome.settled))
            return outcome
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1


@dataclass
class Ledger:
    """The failures that a database remembers, as time passes."""

    entries: dict[int, tuple[float, float, Failure]] = field(default_factory=dict)

    def enter(self, failure: Failure) -> None:
        former = self.entries.get(failure.library_id)
        since = former[0] if former is not None and failure.retry.failures > 1 else now()
        self.entries[failure.library_id] = (since, now(), failure)

    def failing(self, row: int) -> Failing | None:
        if row not in self.entries:
            return None
        since, at, failure = self.entries[row]
        lasting, ago = timedelta(seconds=now() - since), timedelta(seconds=now() - at)
        retry = failure.retry
        return Failing(retry.failures, lasting, ago, failure.suspicion, retry.parked)

    def due_at(self, *, suspects: bool | None = None) -> dict[int, float]:
        """Return the retry times of suspects, of other rows, or of both."""
        return {
            row: at + failure.retry.after.total_seconds()
            for row, (_, at, failure) in self.entries.items()
            if suspects is None or bool(failure.suspicion) is suspects
        }

    def due(self, limit: int, *, suspects: bool) -> list[int]:
        """Return rows whose retry time has come, the longest due first."""
        times = self.due_at(suspects=suspects)
        ripe = sorted((time, row) for row, time in times.items() if time <= now())
        return [row for _, row in ripe][:limit]


@dataclass
class Library:
    """Rows that all have a question, except those in the named groups."""

    answered: frozenset[int] = frozenset()
    nameless: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
    order: int = 0
    compilations: frozenset[int] = frozenset()
    failing: dict[int, Failing] = field(default_factory=dict)
    unreadable: frozenset[int] = frozenset()
    ledger: Ledger | None = None

    async def read(self, row_ids: Sequence[int]) -> Asking:
        self.order += 1
        if not self.unreadable.isdisjoint(row_ids):
            message = "invalid byte sequence"
            raise StatementRefusedError(message)
        asked = frozenset(row_ids)
        rest = sorted(asked - self.answered - self.nameless - self.gone)
        return Asking(
            self.order,
            tuple(self._question(row) for row in rest),
            self.answered & asked,
            self.nameless & asked,
            self.gone & asked,
        )

    def _question(self, row: int) -> Question:
        compilation, failing = row in self.compilations, self.failing.get(row)
        if self.ledger is not None:
            failing = self.ledger.failing(row)
        return Question(row, "Broadcast", f"Album {row}", None, b"%d" % row, compilation, failing)


def unresolved(question: Question) -> list[Verdict | Invalid]:
    return [Verdict(question.library_id, Kind.UNRESOLVED)]


@dataclass
class Reply:
    """A reply whose results are given."""

    results: Sequence[Verdict | Invalid]
    cache_stats: Mapping[str, float] = field(default_factory=dict)

    async def read(self) -> Sequence[Verdict | Invalid]:
        return self.results


@dataclass
class Lml:
    """Answers each question by `reply`; refuses every batch that holds a poison row.

    A deadly row interrupts the call, as if LML were down.
    """

    poison: frozenset[int] = frozenset()
    reply: Callable[[Question], list[Verdict | Invalid]] = unresolved
    fault: Callable[[int], Exception | None] = lambda call: None
    batches: list[list[int]] = field(default_factory=list)
    with_tracks: list[bool] = field(default_factory=list)
    deadly: frozenset[int] = frozenset()
    once: list[bool] = field(default_factory=list)

    async def ask(
        self, questions: Sequence[Question], *, with_tracks: bool = False, once: bool = False
    ) -> Reply:
        self.with_tracks.append(with_tracks)
        self.once.append(once)
        return Reply(await self.resolve(questions))

    async def resolve(self, questions: Sequence[Question]) -> Sequence[Verdict | Invalid]:
        rows = [question.library_id for question in questions]
        self.batches.append(rows)
        fault = self.fault(len(self.batches))
        if fault is not None:
            raise fault
        if not self.deadly.isdisjoint(rows):
            message = "LML answered 502"
            raise CallInterruptedError(message)
        if not self.poison.isdisjoint(rows):
            message = "LML answered 422"
            raise BatchRefusedError(message)
        return [result for question in questions for result in self.reply(question)]


@dataclass
class Verdicts:
    """Writes verdicts that are not superseded; refuses every batch with a row it cannot store.

    It does not record failures of `unrecordable` rows, whose ledger entries are locked.
    """

    outbox: Outbox
    unstorable: frozenset[int] = frozenset()
    unrecordable: frozenset[int] = frozenset()
    superseded: frozenset[int] = frozenset()
    locked: frozenset[int] = frozenset()
    withdrawn: frozenset[int] = frozenset()
    tracks: Callable[[int], Counter[TrackCount]] = lambda row: Counter()
    batches: list[VerdictBatch] = field(default_factory=list)
    written: dict[int, Verdict] = field(default_factory=dict)
    failed: dict[int, Failure] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    async def write(self, batch: VerdictBatch) -> Written:
        self.batches.append(batch)
        rows = frozenset(verdict.library_id for verdict in batch.verdicts)
        assert {row for _, row in batch.entries} <= rows
        assert rows <= batch.questions.keys()
        if not self.unstorable.isdisjoint(rows):
            message = "value too long"
            raise StatementRefusedError(message)
        written = rows - self.superseded - self.locked
        self.written |= {v.library_id: v for v in batch.verdicts if v.library_id in written}
        for row in written:
            self.ledger.entries.pop(row, None)
        kept = [(seq, row) for seq, row in batch.entries if row in written]
        await self.outbox.settle(Stream.LIBRARY, kept)
        visited = {verdict.library_id for verdict in batch.verdicts if verdict.tracks is not None}
        tracks = {row: self.tracks(row) for row in sorted(visited & written)}
        withdrawn = written & self.withdrawn
        return Written(
            written, rows & self.locked, withdrawn, kept=1, unresolved_now=2, tracks=tracks
        )

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        rows = [failure.library_id for failure in failures]
        assert len(set(rows)) == len(rows), "a statement writes each row once"
        assert {row for _, row in entries} <= set(rows)
        if not self.unrecordable.isdisjoint(rows):
            message = "canceling statement due to lock timeout"
            raise StatementRefusedError(message)
        self.failed |= {failure.library_id: failure for failure in failures}
        recorded = frozenset(rows) - self.superseded
        for failure in failures:
            if failure.library_id in recorded:
                self.ledger.enter(failure)
        kept = [(seq, row) for seq, row in entries if row in recorded]
        await self.outbox.settle(Stream.LIBRARY, kept)
        return recorded
