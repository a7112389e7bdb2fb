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
    CallBrokenOffError,
    LmlRefusedError,
    LmlUnavailableError,
    RefusedInARowError,
    StoreUnavailableError,
    first_of,
)
from listener.domain.pacing import TRIAL, Backoff, Breaker, Pause
from listener.domain.run import RunKind, Search
from listener.domain.tally import Skip, Tally
from listener.engine.handling import Handled
from listener.engine.ports import Due, Runs, Telemetry
from listener.engine.resolver import Resolver
from listener.engine.silent import NoTelemetry

_log = structlog.stdlib.get_logger()

# Several calls may be in flight when LML goes; a few more in a row are no coincidence.
_FAILED_BATCHES = 5
# Nothing went well yet: who begins while LML is down should find out at little cost.
_FAILED_AT_ONCE = 2
# A run that somebody waits for finds out soon whether it makes sense to go on.
RUN_SILENCE = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=5))
_LOOK_AGAIN = timedelta(seconds=1)
_SPREAD_OVER = 20_000
# So many rows of calls that broke off are kept until the end of a run; more stay due.
_PUT_OFF = 20_000
# Changes are looked for this often during a silence, and go first.
_STAND_BACK = timedelta(milliseconds=250)
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
    """Searches for due rows, page by page, and has each page answered by a resolver.

    `breaker` is shared with whoever else asks the same of LML.
    """

    def __init__(
        self,
        due: Due,
        runs: Runs,
        resolver: Callable[[], Resolver],
        limits: ReconcilerLimits,
        *,
        telemetry: Telemetry | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self._due = due
        self._runs = runs
        self._resolver = resolver
        self._limits = limits
        self._telemetry = telemetry or NoTelemetry()
        self._breaker = breaker or Breaker(RUN_SILENCE)

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
            walk = _Walk(resolver, self._limits.batches, self._breaker)
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

    def __init__(self, resolver: Resolver, batches: int, breaker: Breaker) -> None:
        self._resolver = resolver
        self._batches = batches
        self._breaker = breaker
        self._pause = Pause(RUN_SILENCE)
        self._failed_in_a_row = 0
        self._failed_at = float("-inf")
        self._alone = asyncio.Lock()
        self._batch_ids = itertools.count(1)
        self._went_well = False
        self._last_fault: Exception | None = None
        # Rows of calls that broke off are asked again at the end, in smaller calls: LML may fail
        # at one of them. They count as failed once nothing comes of that either.
        self._again: list[Sequence[DueRow]] = []
        self._broken: set[int] = set()

    async def through(
        self, pages: AsyncGenerator[list[DueRow], None], note: Callable[[], Awaitable[None]]
    ) -> None:
        waiting: asyncio.Queue[Sequence[DueRow]] = asyncio.Queue(maxsize=1)
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._keep_book(note))]
                helpers += [tasks.create_task(self._work(waiting)) for _ in range(self._batches)]
                async with aclosing(pages):
                    async for page in pages:
                        await waiting.put(page)
                await waiting.join()
                while self._again:
                    again, self._again = self._again, []
                    for rows in again:
                        await waiting.put(rows)
                    await waiting.join()
                for helper in helpers:
                    helper.cancel()
        finally:
            self._resolver.tally.skip(Skip.LML_ERROR, len(self._broken))
        if self._last_fault is not None and not self._went_well:
            raise RunHaltedError(f"every batch failed, the last one: {self._last_fault}")

    async def _keep_book(self, note: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_NOTE_EVERY.total_seconds())
            await note()

    async def _work(self, waiting: asyncio.Queue[Sequence[DueRow]]) -> None:
        while True:
            page = await waiting.get()
            structlog.contextvars.bind_contextvars(batch_id=next(self._batch_ids))
            await self._handle(page)
            waiting.task_done()

    async def _handle(self, page: Sequence[DueRow]) -> None:
        most = len(page)
        while page:
            try:
                page = page[await self._advance(page[:most]) :]
            except RefusedInARowError:
                # Neighbours may be bad together, as releases of one artist are. In pages so small
                # each of them is found out.
                most = TRIAL

    async def _advance(self, page: Sequence[DueRow]) -> int:
        """Return how many rows of the page are seen to: LML's failure leaves them all due."""
        loop = asyncio.get_running_loop()
        # After a failure one batch goes ahead alone: it tells whether the service is back.
        async with self._alone if self._failing else nullcontext():
            await self._keep_silent()
            rows = page[:TRIAL] if self._breaker.begin_trial(loop.time()) else page
            began = loop.time()
            self._broken.difference_update(row.library_id for row in rows)
            try:
                handled = await self._resolver.handle(Batch({row.library_id: () for row in rows}))
            except LmlRefusedError as fault:
                self._breaker.failed(loop.time())
                raise RunHaltedError(str(fault)) from fault
            except RefusedInARowError:
                self._breaker.end_trial()
                raise
            except LmlUnavailableError as fault:
                self._breaker.failed(loop.time(), fault.retry_after)
                self._fail(fault, began)
                return len(page)
            except StoreUnavailableError as fault:
                self._breaker.end_trial()
                self._pause.failed(loop.time())
                self._fail(fault, began)
                return 0
        self._learn(handled, rows, began)
        return len(rows)

    def _learn(self, handled: Handled, rows: Sequence[DueRow], began: float) -> None:
        done = handled.tried
        if len(done) >= TRIAL and done == handled.failed:
            self._fail(RefusedInARowError(f"none of {len(done)} rows could be answered"), began)
        elif handled.fault is None or handled.answered:
            self._succeed(handled, rows)
        if handled.fault is not None:
            self._put_off([row for row in rows if row.library_id not in done])
            if not handled.about_rows:
                self._breaker.failed(asyncio.get_running_loop().time(), handled.fault.retry_after)
                self._fail(handled.fault, began)

    def _put_off(self, rows: Sequence[DueRow]) -> None:
        if rows and len(self._broken) < _PUT_OFF:
            self._again.append(rows)
            self._broken.update(row.library_id for row in rows)
        else:
            self._resolver.tally.skip(Skip.LML_ERROR, len(rows))

    @property
    def _failing(self) -> bool:
        return bool(self._failed_in_a_row or self._breaker.failures)

    async def _keep_silent(self) -> None:
        loop = asyncio.get_running_loop()
        pauses = (self._pause, self._breaker)
        # Others may hear meanwhile that LML is back.
        while quiet := max(pause.remaining(loop.time()) for pause in pauses):
            nap = min(quiet, _LOOK_AGAIN.total_seconds())
            if nap == quiet and self._breaker.failures:
                nap += _STAND_BACK.total_seconds()
            await asyncio.sleep(nap)

    def _succeed(self, handled: Handled, rows: Sequence[DueRow]) -> None:
        self._pause.succeeded()
        if handled.answered:
            self._breaker.succeeded()
        else:
            self._breaker.end_trial()
        self._failed_in_a_row = 0
        self._went_well = True
        changed = {row.library_id for row in rows if row.reason is Reason.CHANGED}
        self._resolver.tally.capture_missed += len(changed & handled.tried - handled.unasked)

    def _fail(self, fault: LmlUnavailableError | StoreUnavailableError, began: float) -> None:
        if not isinstance(fault, RefusedInARowError):
            self._last_fault = fault
        # Batches that were on their way together fail for one reason.
        if began < self._failed_at:
            return
        self._failed_at = asyncio.get_running_loop().time()
        self._failed_in_a_row += 1
        _log.warning("batch failed", reason=str(fault), in_a_row=self._failed_in_a_row)
        # It takes a few broken calls until a row is asked alone.
        may_be_rows = isinstance(fault, RefusedInARowError | CallBrokenOffError)
        down = isinstance(fault, LmlUnavailableError) and not (may_be_rows or self._went_well)
        if self._failed_in_a_row >= (_FAILED_AT_ONCE if down else _FAILED_BATCHES):
            message = f"{self._failed_in_a_row} batches in a row failed, the last one: {fault}"
            raise RunHaltedError(message) from fault
