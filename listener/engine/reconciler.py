"""Finds due rows and gets answers; sweep, audit and backfill differ only in their searches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta

import structlog

from listener.domain.change import Batch, BatchOutcome
from listener.domain.due import Batches, DueRow, Reason, RunKind, Scope, Search, spread
from listener.domain.faults import (
    FixableError,
    LmlRefusedError,
    ServiceFault,
    StoreUnavailableError,
    first_of,
)
from listener.domain.pacing import Backoff, Pause
from listener.domain.tally import Skip, Tally
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.ports import Due, Runs
from listener.engine.resolver import Resolver
from listener.engine.telemetry import Telemetry, TelemetryFanOut

_log = structlog.stdlib.get_logger()

# A run ends after this many failures in a row: within seconds in a command, which pauses briefly.
_GIVE_UP = 5
# A person waits for a command, so it should soon find out whether continuing makes sense.
RUN_BACKOFF = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=5))
_SPREAD_OVER = 20_000
_NOTE_EVERY = timedelta(seconds=2)


class RunHaltedError(FixableError):
    """A run was refused or ended early; the message says why. Rows not asked about stay due."""


def give_up(fault: ServiceFault, in_a_row: int) -> None:
    """Raise `RunHaltedError` if it is pointless to continue after `in_a_row` failures."""
    if isinstance(fault, LmlRefusedError):
        raise RunHaltedError(str(fault)) from fault
    if in_a_row >= _GIVE_UP:
        raise RunHaltedError(f"gave up after {in_a_row} failures in a row: {fault}") from fault


@dataclass(eq=False)
class Reconciler:
    """Searches for due rows, batch by batch, and gives each batch to a resolver.

    `batch_size` and `compilation_batch_size` rows go into one call, and `batches` of them run at a
    time. `circuit` is shared by all callers of the stream.
    """

    due: Due
    runs: Runs
    resolver: Callable[[], Resolver]
    _: KW_ONLY
    batch_size: int
    compilation_batch_size: int
    batches: int
    circuit: Circuit
    telemetry: Telemetry = field(default_factory=TelemetryFanOut)

    async def run(
        self,
        kind: RunKind,
        scope: Scope,
        *,
        cause: str,
        limit: int | None = None,
        tally: Tally | None = None,
    ) -> Tally:
        """Make one run and return its tally, which is `tally` if given and is updated as it goes.

        Raises `RunHaltedError` when a service fails several times in a row, when LML refuses to
        answer, or when no batch succeeded; `StoreUnavailableError` if the search cannot reach the
        database.
        """
        resolver = self.resolver()
        resolver.tally = tally = tally if tally is not None else Tally()
        async with self.runs.enter(kind, scope, cause, tally) as note:
            run = _Run(resolver, self.batches, self.circuit)
            with self.telemetry.run(kind.value, tally):
                try:
                    await run.through(self._batches(kind, scope, limit), note)
                except* (RunHaltedError, StoreUnavailableError) as group:
                    fault = first_of(group)
                    raise fault from fault.__cause__
        return tally

    async def count(self, kind: RunKind, scope: Scope) -> dict[bool, int]:
        """Count the rows that a run would ask about, without asking.

        Returns the number of compilations under True, of other rows under False.
        """
        found = {False: 0, True: 0}
        async for rows in self._search(kind, scope):
            for row in rows:
                found[row.compilation] += 1
        return found

    async def _batches(
        self, kind: RunKind, scope: Scope, limit: int | None
    ) -> AsyncGenerator[list[DueRow], None]:
        batches = Batches(self.batch_size, self.compilation_batch_size)
        left = limit
        async with aclosing(self._search(kind, scope, limit)) as search:
            async for found in search:
                for batch in batches.add(found[:left]):
                    yield batch
                if left is not None:
                    left -= len(found[:left])
                    if not left:
                        break
        for batch in batches.rest():
            yield batch

    async def _search(
        self, kind: RunKind, scope: Scope, limit: int | None = None
    ) -> AsyncGenerator[Sequence[DueRow], None]:
        most = _SPREAD_OVER if limit is None else min(limit, _SPREAD_OVER)
        # Rows due by time go first: they need not wait for the scan of every row.
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
class _Run:
    """A run in progress: handles several batches at a time, until a service keeps failing."""

    resolver: Resolver
    batches: int
    circuit: Circuit
    _: KW_ONLY
    pause: Pause = field(default_factory=lambda: Pause(RUN_BACKOFF))
    batch_ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    went_well: bool = False
    last_fault: Exception | None = None

    @property
    def failures(self) -> int:
        """How many times in a row a service failed; concurrent batches count once."""
        return max(self.pause.failures, self.circuit.failures)

    async def through(
        self, batches: AsyncGenerator[list[DueRow], None], note: Callable[[], Awaitable[None]]
    ) -> None:
        waiting: asyncio.Queue[Sequence[DueRow]] = asyncio.Queue(maxsize=1)
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(self._save_tally(note))]
            helpers += [tasks.create_task(self._work(waiting)) for _ in range(self.batches)]
            async with aclosing(batches):
                async for batch in batches:
                    await waiting.put(batch)
            await waiting.join()
            for helper in helpers:
                helper.cancel()
        if self.last_fault is not None and not self.went_well:
            raise RunHaltedError(f"every batch failed, the last with: {self.last_fault}")

    async def _save_tally(self, note: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_NOTE_EVERY.total_seconds())
            await note()

    async def _work(self, waiting: asyncio.Queue[Sequence[DueRow]]) -> None:
        while True:
            batch = await waiting.get()
            structlog.contextvars.bind_contextvars(batch_id=next(self.batch_ids))
            while batch:
                batch = await self._advance(batch)
            waiting.task_done()

    async def _advance(self, batch: Sequence[DueRow]) -> Sequence[DueRow]:
        """Handle a batch, or its first rows; return the rest of it."""
        await asyncio.sleep(self.pause.remaining(now()))
        await self.circuit.wait()
        rows = batch[: self.circuit.begin_trial()]
        outcome = await self.resolver.handle(Batch({row.library_id: () for row in rows}))
        self._learn(outcome, rows)
        if outcome.fault is None:
            return batch[len(rows) :]
        untried = [row for row in batch if row.library_id not in outcome.tried]
        if isinstance(outcome.fault, StoreUnavailableError):
            self.pause.failed(now())
        else:
            # These rows stay due.
            self.resolver.tally.skip(Skip.LML_ERROR, len(untried))
            untried = []
        self.last_fault = outcome.fault
        _log.warning("batch failed", reason=str(outcome.fault), in_a_row=self.failures)
        give_up(outcome.fault, self.failures)
        return untried

    def _learn(self, outcome: BatchOutcome, rows: Sequence[DueRow]) -> None:
        if outcome.fault is None:
            self.pause.succeeded()
        if outcome.fault is None or outcome.settled - outcome.failed:
            self.went_well = True
        changed = {row.library_id for row in rows if row.reason is Reason.CHANGED}
        self.resolver.tally.capture_missed += len(changed & outcome.tried - outcome.unasked)
