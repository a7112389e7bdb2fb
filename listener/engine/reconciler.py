"""Finds due rows and has them answered; sweep, audit and backfill differ in the search alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta

import structlog

from listener.domain.change import Batch
from listener.domain.due import DueRow, Pages, Reason, Scope, spread
from listener.domain.faults import (
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    ServiceFault,
    StoreUnavailableError,
    first_of,
)
from listener.domain.pacing import Backoff, Pause
from listener.domain.run import RunKind, Search
from listener.domain.tally import Skip, Tally
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.outcome import BatchOutcome
from listener.engine.ports import Due, Runs, Telemetry
from listener.engine.resolver import Resolver
from listener.engine.silent import NoTelemetry

_log = structlog.stdlib.get_logger()

# Several calls may be in flight when LML goes down; a few more in a row are no coincidence.
_FAILED_BATCHES = 5
# Nothing went well yet: a run that begins while LML is down ends at little cost.
_FAILED_AT_ONCE = 2
# Somebody waits for a run on command: it finds out soon whether it makes sense to go on.
RUN_SILENCE = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=5))
_NAP = timedelta(seconds=1)
_SPREAD_OVER = 20_000
# How long a run waits until it asks again about rows that failed together.
_RETRY_SUSPECTS = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=5))
_SUSPECTS_TOGETHER = 500
_ROUNDS_IN_VAIN = 4
# Longer than a consumer takes to notice the end of a silence: changes go first.
_STAND_BACK = timedelta(milliseconds=250)
_NOTE_EVERY = timedelta(seconds=2)


class RunHaltedError(Exception):
    """A run was refused or ended early; the message says why. What was not asked stays due."""


@dataclass(frozen=True, slots=True)
class ReconcilerLimits:
    """How many rows of each kind one call asks about; `batches` are handled at a time."""

    batch_size: int
    compilation_batch_size: int
    batches: int


@dataclass(eq=False)
class Reconciler:
    """Searches for due rows, page by page, and has each page answered by a resolver.

    `circuit` is shared with all that ask the same of LML. With `retries` a run asks again about
    rows that failed together; a daemon does without, as its retriers do that.
    """

    due: Due
    runs: Runs
    resolver: Callable[[], Resolver]
    limits: ReconcilerLimits
    _: KW_ONLY
    circuit: Circuit
    telemetry: Telemetry = field(default_factory=NoTelemetry)
    retries: bool = False

    async def run(
        self,
        kind: RunKind,
        scope: Scope,
        *,
        cause: str,
        limit: int | None = None,
        tally: Tally | None = None,
    ) -> Tally:
        """Make one run; returns its tally: the one given, kept up to date, or one of its own.

        Raises `RunHaltedError` once several batches in a row failed, if LML refuses to answer, or
        if no batch went well; `StoreUnavailableError` if the search cannot reach the database.
        """
        resolver = self.resolver()
        resolver.tally = tally = tally if tally is not None else Tally()
        async with self.runs.enter(kind, scope, cause, tally) as note:
            walk = _Walk(resolver, self.limits.batches, self.circuit)
            with self.telemetry.run(kind.value, tally):
                try:
                    pages = self._pages(kind, scope, limit)
                    await walk.through(pages, note, retries=self.retries)
                except* (RunHaltedError, StoreUnavailableError) as group:
                    fault = first_of(group)
                    raise fault from fault.__cause__
        return tally

    async def count(self, kind: RunKind, scope: Scope) -> dict[bool, int]:
        """Return how many rows a run would ask about: compilations under True, others under False.

        Asks nothing.
        """
        found = {False: 0, True: 0}
        async for rows in self._search(kind, scope):
            for row in rows:
                found[row.compilation] += 1
        return found

    async def _pages(
        self, kind: RunKind, scope: Scope, limit: int | None
    ) -> AsyncGenerator[list[DueRow], None]:
        pages = Pages(self.limits.batch_size, self.limits.compilation_batch_size)
        left = limit
        async with aclosing(self._search(kind, scope, limit)) as search:
            async for found in search:
                for page in pages.add(found[:left]):
                    yield page
                if left is not None:
                    left -= len(found[:left])
                    if not left:
                        break
        for page in pages.rest():
            yield page

    async def _search(
        self, kind: RunKind, scope: Scope, limit: int | None = None
    ) -> AsyncGenerator[Sequence[DueRow], None]:
        most = _SPREAD_OVER if limit is None else min(limit, _SPREAD_OVER)
        # Rows whose time has come go first: they need not wait for the look at every row.
        if Search.FAILED in kind.searches:
            async for rows in self.due.failed(scope):
                yield rows
        if Search.BY_TIME in kind.searches:
            group: list[DueRow] = []
            async for rows in self.due.by_time(scope):
                group += rows
                while len(group) >= most:
                    yield spread(group[:most])
                    group = group[most:]
            yield spread(group)
        if Search.BY_CONTENT in kind.searches:
            async for rows in self.due.by_content(scope):
                yield rows
        if Search.COMPILATIONS in kind.searches:
            async for rows in self.due.compilations(scope):
                yield rows


@dataclass(eq=False)
class _Walk:
    """One run on its way: handles several batches at a time, until too many in a row fail.

    `suspects` are rows that failed together, most of which may be well, in the order in which they
    failed: the next trial is about others. `answered` counts rows.
    """

    resolver: Resolver
    batches: int
    circuit: Circuit
    _: KW_ONLY
    pause: Pause = field(default_factory=lambda: Pause(RUN_SILENCE))
    failed_in_a_row: int = 0
    failed_at: float = float("-inf")
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    batch_ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    went_well: bool = False
    last_fault: Exception | None = None
    suspects: dict[int, None] = field(default_factory=dict)
    answered: int = 0

    async def through(
        self,
        pages: AsyncGenerator[list[DueRow], None],
        note: Callable[[], Awaitable[None]],
        *,
        retries: bool,
    ) -> None:
        waiting: asyncio.Queue[Sequence[DueRow]] = asyncio.Queue(maxsize=1)
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._keep_book(note))]
                helpers += [tasks.create_task(self._work(waiting)) for _ in range(self.batches)]
                async with aclosing(pages):
                    async for page in pages:
                        await waiting.put(page)
                await waiting.join()
                if retries:
                    await self._come_back(waiting)
                for helper in helpers:
                    helper.cancel()
        finally:
            self.resolver.tally.skip(Skip.LML_ERROR, len(self.suspects))
        if self.last_fault is not None and not self.went_well:
            raise RunHaltedError(f"every batch failed, the last one: {self.last_fault}")

    async def _come_back(self, waiting: asyncio.Queue[Sequence[DueRow]]) -> None:
        """Ask about suspects until all are cleared or isolated, or none is answered any more."""
        in_vain = 0
        while self.suspects and in_vain < _ROUNDS_IN_VAIN:
            await asyncio.sleep(_RETRY_SUSPECTS.delay(in_vain + 1).total_seconds())
            # The search is over: failures now keep no other row from being asked.
            self.failed_in_a_row = 0
            answered = self.answered
            # From the other end after a round in vain: rows that fail are often neighbours.
            rows = list(self.suspects)[:: -1 if in_vain % 2 else 1]
            for start in range(0, len(rows), _SUSPECTS_TOGETHER):
                part = rows[start : start + _SUSPECTS_TOGETHER]
                await waiting.put([DueRow(row, Reason.FAILED, compilation=False) for row in part])
            await waiting.join()
            in_vain = 0 if self.answered > answered else in_vain + 1

    async def _keep_book(self, note: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_NOTE_EVERY.total_seconds())
            await note()

    async def _work(self, waiting: asyncio.Queue[Sequence[DueRow]]) -> None:
        while True:
            page = await waiting.get()
            structlog.contextvars.bind_contextvars(batch_id=next(self.batch_ids))
            while page:
                page = await self._advance(page)
            waiting.task_done()

    async def _advance(self, page: Sequence[DueRow]) -> Sequence[DueRow]:
        """Handle a page, or its first rows; return what is left to handle."""
        # After a failure one batch goes ahead alone: it shows whether the service is back.
        failing = self.failed_in_a_row or self.circuit.failures
        async with self.alone if failing else nullcontext():
            await self._keep_silent()
            rows = page[: self.circuit.begin_trial()]
            began = now()
            # First: if the call is cancelled nobody knows what became of them.
            again = [row.library_id for row in rows if row.library_id in self.suspects]
            for suspect in again:
                del self.suspects[suspect]
            outcome = await self.resolver.handle(Batch({row.library_id: () for row in rows}))
        self.suspects |= dict.fromkeys(row for row in again if row not in outcome.tried)
        self._learn(outcome, rows)
        if outcome.fault is None:
            return page[len(rows) :]
        untried = [row for row in page if row.library_id not in outcome.tried]
        return self._left(untried, outcome.fault, began)

    def _left(
        self, untried: Sequence[DueRow], fault: ServiceFault, began: float
    ) -> Sequence[DueRow]:
        """Return what is left to handle after a fault: nothing if LML failed, the rows stay due."""
        if isinstance(fault, StoreUnavailableError):
            self.pause.failed(now())
            self._fail(fault, began)
            return untried
        # Rows that failed together before are counted at the end of the run.
        counted = [row for row in untried if row.library_id not in self.suspects]
        self.resolver.tally.skip(Skip.LML_ERROR, len(counted))
        if isinstance(fault, LmlRefusedError):
            raise RunHaltedError(str(fault)) from fault
        self._fail(fault, began)
        return ()

    def _learn(self, outcome: BatchOutcome, rows: Sequence[DueRow]) -> None:
        self.suspects |= dict.fromkeys(sorted(outcome.suspects))
        self.answered += len(outcome.settled - outcome.failed - outcome.unasked)
        if outcome.fault is None:
            self.pause.succeeded()
            self.failed_in_a_row = 0
        if outcome.fault is None or outcome.settled - outcome.failed:
            self.went_well = True
        changed = {row.library_id for row in rows if row.reason is Reason.CHANGED}
        self.resolver.tally.capture_missed += len(changed & outcome.tried - outcome.unasked)

    async def _keep_silent(self) -> None:
        # In naps: others may hear meanwhile that LML is back.
        while quiet := max(timedelta(seconds=self.pause.remaining(now())), self.circuit.silence()):
            nap = min(quiet, _NAP)
            if nap == quiet and self.circuit.failures:
                nap += _STAND_BACK
            await asyncio.sleep(nap.total_seconds())

    def _fail(self, fault: ServiceFault, began: float) -> None:
        self.last_fault = fault
        # Batches that were in flight together fail for one reason.
        if began < self.failed_at:
            return
        self.failed_at = now()
        self.failed_in_a_row += 1
        _log.warning("batch failed", reason=str(fault), in_a_row=self.failed_in_a_row)
        # An interrupted call may be about a row: the next call shows whether LML is down.
        down = isinstance(fault, LmlUnavailableError) and not (
            isinstance(fault, CallInterruptedError) or self.went_well
        )
        if self.failed_in_a_row >= (_FAILED_AT_ONCE if down else _FAILED_BATCHES):
            message = f"{self.failed_in_a_row} batches in a row failed, the last one: {fault}"
            raise RunHaltedError(message) from fault
