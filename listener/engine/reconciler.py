"""Finds due rows and has them answered; sweep, audit and backfill differ in the search alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import structlog

from listener.domain.change import Batch
from listener.domain.due import DueRow, Pages, Reason, Scope, spread
from listener.domain.faults import (
    LmlRefusedError,
    LmlUnavailableError,
    StoreUnavailableError,
    first_of,
)
from listener.domain.pacing import Backoff
from listener.domain.run import RunKind, Search
from listener.domain.tally import Tally
from listener.engine.ports import Due, Runs, Telemetry
from listener.engine.resolver import Resolver
from listener.engine.silent import NoTelemetry

_log = structlog.stdlib.get_logger()

# Several calls may be in flight when LML goes; a few more in a row are no coincidence.
_FAILED_BATCHES = 5
# Nothing went well yet: who begins while LML is down should find out at little cost.
_FAILED_AT_ONCE = 2
_PAUSE = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=5))
_SPREAD_OVER = 20_000
_NOTE_EVERY = timedelta(seconds=2)


class RunHaltedError(Exception):
    """A run ended early, because one batch after another failed; what was not asked stays due."""


@dataclass(frozen=True, slots=True)
class ReconcilerLimits:
    """How many rows are asked in one call, of each kind, and how many batches are on their way."""

    batch_size: int
    compilation_batch_size: int
    batches: int


class Reconciler:
    """Searches for due rows, page by page, and has each page answered by a resolver."""

    def __init__(
        self,
        due: Due,
        runs: Runs,
        resolver: Callable[[], Resolver],
        limits: ReconcilerLimits,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._due = due
        self._runs = runs
        self._resolver = resolver
        self._limits = limits
        self._telemetry = telemetry or NoTelemetry()

    async def run(
        self,
        kind: RunKind,
        scope: Scope,
        *,
        cause: str,
        limit: int | None = None,
        tally: Tally | None = None,
    ) -> Tally:
        """Make one run; returns its tally, which is the one given, if so, kept up to date.

        Raises `RunHaltedError` once several batches in a row failed, `StoreUnavailableError` if
        the database goes.
        """
        resolver = self._resolver()
        resolver.tally = tally = tally if tally is not None else Tally()
        async with self._runs.enter(kind, scope, cause, tally) as note:
            walk = _Walk(resolver, self._limits.batches)
            with self._telemetry.run(kind.value, tally):
                try:
                    await walk.through(self._pages(kind, scope, limit), note)
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
        pages = Pages(self._limits.batch_size, self._limits.compilation_batch_size)
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
        # The rows whose time has come first: the look at everything holds nothing back.
        if Search.BY_TIME in kind.searches:
            group: list[DueRow] = []
            async for rows in self._due.by_time(scope):
                group += rows
                while len(group) >= most:
                    yield spread(group[:most])
                    group = group[most:]
            yield spread(group)
        if Search.BY_CONTENT in kind.searches:
            async for rows in self._due.by_content(scope):
                yield rows
        if Search.COMPILATIONS in kind.searches:
            async for rows in self._due.compilations(scope):
                yield rows


class _Walk:
    """One run on its way: some batches being handled at a time, stopped by failures in a row."""

    def __init__(self, resolver: Resolver, batches: int) -> None:
        self._resolver = resolver
        self._batches = batches
        self._failed_in_a_row = 0
        self._failed_at = self._quiet_until = float("-inf")
        self._alone = asyncio.Lock()
        self._batch_ids = itertools.count(1)
        self._went_well = False
        self._last_fault: Exception | None = None

    async def through(
        self, pages: AsyncGenerator[list[DueRow], None], note: Callable[[], Awaitable[None]]
    ) -> None:
        waiting: asyncio.Queue[list[DueRow]] = asyncio.Queue(maxsize=1)
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(self._keep_book(note))]
            helpers += [tasks.create_task(self._work(waiting)) for _ in range(self._batches)]
            async with aclosing(pages):
                async for page in pages:
                    await waiting.put(page)
            await waiting.join()
            for helper in helpers:
                helper.cancel()
        if self._last_fault is not None and not self._went_well:
            raise RunHaltedError(f"every batch failed, the last one: {self._last_fault}")

    async def _keep_book(self, note: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_NOTE_EVERY.total_seconds())
            await note()

    async def _work(self, waiting: asyncio.Queue[list[DueRow]]) -> None:
        while True:
            page = await waiting.get()
            structlog.contextvars.bind_contextvars(batch_id=next(self._batch_ids))
            await self._handle(page)
            waiting.task_done()

    async def _handle(self, page: Sequence[DueRow]) -> None:
        while not await self._tried(page):
            pass

    async def _tried(self, page: Sequence[DueRow]) -> bool:
        """Return whether the page is done with: LML's failure leaves its rows due."""
        loop = asyncio.get_running_loop()
        # After a failure one batch goes ahead alone: it tells whether the service is back.
        async with self._alone if self._failed_in_a_row else nullcontext():
            if (quiet_for := self._quiet_until - loop.time()) > 0:
                await asyncio.sleep(quiet_for)
            began = loop.time()
            try:
                handled = await self._resolver.handle(Batch({row.library_id: () for row in page}))
            except LmlRefusedError as fault:
                raise RunHaltedError(str(fault)) from fault
            except (LmlUnavailableError, StoreUnavailableError) as fault:
                self._fail(fault, began, loop.time())
                return isinstance(fault, LmlUnavailableError)
        self._failed_in_a_row = 0
        self._went_well = True
        changed = {row.library_id for row in page if row.reason is Reason.CHANGED}
        self._resolver.tally.capture_missed += len(changed - handled.unasked)
        return True

    def _fail(
        self, fault: LmlUnavailableError | StoreUnavailableError, began: float, now: float
    ) -> None:
        self._last_fault = fault
        # Batches that were on their way together fail for one reason.
        if began < self._failed_at:
            return
        self._failed_at = now
        self._failed_in_a_row += 1
        self._quiet_until = now + _PAUSE.delay(self._failed_in_a_row).total_seconds()
        _log.warning("batch failed", reason=str(fault), in_a_row=self._failed_in_a_row)
        down = isinstance(fault, LmlUnavailableError) and not self._went_well
        if self._failed_in_a_row >= (_FAILED_AT_ONCE if down else _FAILED_BATCHES):
            message = f"{self._failed_in_a_row} batches in a row failed, the last one: {fault}"
            raise RunHaltedError(message) from fault
