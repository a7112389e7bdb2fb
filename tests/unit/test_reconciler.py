"""Getting answers for due rows: each once, in bounded batches, until too many calls fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.change import Stream
from listener.domain.due import DueRow, Reason, RunKind, Scope, Search
from listener.domain.faults import (
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    StoreUnavailableError,
)
from listener.domain.judging import Invalid
from listener.domain.pacing import LML_BACKOFF, TRIAL, BreakerState
from listener.domain.question import Asking, Question
from listener.domain.refreshing import RotationTally
from listener.domain.retrying import ISOLATED, SUSPECT, RetryPolicy
from listener.domain.tally import Skip, Tally
from listener.domain.verdict import Verdict
from listener.engine.circuit import Circuit, Permits, Priority
from listener.engine.reconciler import RUN_BACKOFF, Reconciler, RunHaltedError
from listener.engine.resolver import Resolver
from tests.unit import fakes
from tests.unit.clock import eventually, for_a_while, now, virtually
from tests.unit.fakes import Outbox, Verdicts

SCOPE = Scope()
CALL = 2.0


@dataclass
class Due:
    """Rows found by each search, window by window; `fault` breaks a search after its last one."""

    by: dict[Search, list[list[DueRow]]] = field(default_factory=dict)
    fault: Exception | None = None
    searched: list[tuple[Search, Scope]] = field(default_factory=list)
    windows: int = 0

    def failed(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        return self._find(Search.FAILED, scope)

    def by_time(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        return self._find(Search.BY_TIME, scope)

    def compilations(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        return self._find(Search.COMPILATIONS, scope)

    def by_content(self, scope: Scope) -> AsyncIterator[Sequence[DueRow]]:
        return self._find(Search.BY_CONTENT, scope)

    async def _find(self, search: Search, scope: Scope) -> AsyncGenerator[Sequence[DueRow], None]:
        self.searched.append((search, scope))
        for rows in self.by.get(search, []):
            await asyncio.sleep(0)
            self.windows += 1
            yield rows
        if self.fault is not None:
            raise self.fault


@dataclass
class Runs:
    """Records runs and how they ended; saving the tally raises `fault`."""

    entered: list[tuple[RunKind, Scope, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    noted: list[tuple[float, int]] = field(default_factory=list)
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
        async def note() -> None:
            if self.fault is not None:
                raise self.fault
            self.noted.append((now(), tally.scanned))

        self.entered.append((kind, scope, cause))
        try:
            yield note
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("done")


@dataclass
class Lml(fakes.Lml):
    """Takes some time for each batch."""

    seconds: float = CALL
    in_flight: int = 0
    most_in_flight: int = 0
    asked_at: list[float] = field(default_factory=list)

    async def resolve(self, questions: Sequence[Question]) -> Sequence[Verdict | Invalid]:
        self.asked_at.append(now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
            return await super().resolve(questions)
        finally:
            self.in_flight -= 1


@dataclass
class Library(fakes.Library):
    """Fails with the next of `faults` at each read; None lets the read succeed."""

    faults: list[Exception | None] = field(default_factory=list)
    reads: list[tuple[float, list[int]]] = field(default_factory=list)

    async def read(self, row_ids: Sequence[int]) -> Asking:
        self.reads.append((now(), list(row_ids)))
        await asyncio.sleep(0)
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        return await super().read(row_ids)


class Case:
    """A reconciler between a search, a library, LML and a database of its own."""

    def __init__(
        self,
        by_time: Iterable[list[DueRow]] = (),
        by_content: Iterable[list[DueRow]] = (),
        *,
        batch_size: int = 3,
        batches: int = 1,
        circuit: Circuit | None = None,
    ) -> None:
        self.due = Due({Search.BY_TIME: list(by_time), Search.BY_CONTENT: list(by_content)})
        self.runs = Runs()
        self.library = Library()
        self.lml = Lml()
        self.verdicts = Verdicts(Outbox())
        self.library.ledger = self.verdicts.ledger
        self.circuit = circuit or Circuit(Stream.LIBRARY, RUN_BACKOFF)
        self.permits = Permits(10)
        self.reconciler = Reconciler(
            self.due,
            self.runs,
            self._resolver,
            batch_size=batch_size,
            compilation_batch_size=2,
            batches=batches,
            circuit=self.circuit,
        )

    def _resolver(self) -> Resolver:
        return Resolver(
            library=self.library,
            lml=self.lml,
            verdicts=self.verdicts,
            outbox=self.verdicts.outbox,
            permit=lambda: self.permits.hold(Priority.SEARCH),
            compilation_batch_size=2,
            policy=RetryPolicy(3, timedelta(days=180)),
            circuit=self.circuit,
        )

    async def run(
        self, kind: RunKind = RunKind.SWEEP, limit: int | None = None, tally: Tally | None = None
    ) -> Tally:
        return await self.reconciler.run(kind, SCOPE, cause="command", limit=limit, tally=tally)

    @property
    def asked(self) -> list[int]:
        return [row for batch in self.lml.batches for row in batch]


def due(*rows: int, reason: Reason = Reason.NEVER) -> list[DueRow]:
    return [DueRow(row, reason, compilation=False) for row in rows]


def full_batches(count: int) -> list[list[DueRow]]:
    """Make windows that fill one batch each."""
    return [due(3 * number + 1, 3 * number + 2, 3 * number + 3) for number in range(count)]


def fails(*calls: int) -> Callable[[int], Exception | None]:
    """Make LML unavailable to these of the calls, counted from 1."""

    def fault(call: int) -> Exception | None:
        return LmlUnavailableError("ConnectError") if call in calls else None

    return fault


@given(
    st.lists(st.lists(st.booleans(), max_size=12), max_size=6),
    st.integers(0, 6),
    st.integers(1, 4),
)
def test_every_due_row_is_asked_once_and_compilations_in_calls_of_their_own(
    finds: list[list[bool]], by_time: int, batches: int
) -> None:
    numbers = iter(range(1, 1000))
    windows = [[DueRow(next(numbers), Reason.NEVER, kind) for kind in find] for find in finds]
    rows = {row.library_id: row.compilation for window in windows for row in window}
    case = Case(windows[:by_time], windows[by_time:], batches=batches)
    tally = virtually(case.run())
    assert sorted(case.asked) == sorted(rows)
    assert case.verdicts.written.keys() == rows.keys()
    assert tally.scanned == tally.unresolved == len(rows)
    for batch in case.lml.batches:
        assert len({rows[row] for row in batch}) == 1
        assert len(batch) <= (2 if rows[batch[0]] else 3)
    full = [batch for batch in case.lml.batches if len(batch) == (2 if rows[batch[0]] else 3)]
    assert len(case.lml.batches) - len(full) <= 2


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("limit", [1, 3, 7, 14, 15, 99])
async def test_no_more_rows_than_the_limit_are_asked(limit: int, batches: int) -> None:
    case = Case(full_batches(3), [due(10, 11, 12, 13, 14, 15)], batches=batches)
    tally = await case.run(limit=limit)
    assert sorted(case.asked) == list(range(1, min(limit, 15) + 1))
    assert tally.scanned == min(limit, 15)


async def test_search_ends_with_the_row_that_reaches_the_limit() -> None:
    case = Case(full_batches(3), full_batches(3))
    await case.run(limit=6)
    assert case.due.windows == 2
    assert case.due.searched == [(Search.FAILED, SCOPE), (Search.BY_TIME, SCOPE)]


@pytest.mark.parametrize(
    ("kind", "searches"),
    [
        (RunKind.SWEEP, [Search.FAILED, Search.BY_TIME, Search.BY_CONTENT]),
        (RunKind.REFRESH, [Search.BY_TIME]),
        (RunKind.AUDIT, [Search.BY_CONTENT]),
        (RunKind.BACKFILL, [Search.BY_CONTENT]),
        (RunKind.RECHECK, [Search.COMPILATIONS]),
    ],
)
async def test_each_kind_of_run_makes_its_searches(kind: RunKind, searches: list[Search]) -> None:
    case = Case([due(7, 8, 9)], [due(1, 2, 3)])
    case.due.by[Search.COMPILATIONS] = [due(4, 5, 6)]
    case.due.by[Search.FAILED] = [due(10, 11, 12, reason=Reason.FAILED)]
    scope = Scope(since_id=5, partition=1, partitions=3)
    await case.reconciler.run(kind, scope, cause="schedule")
    assert case.due.searched == [(search, scope) for search in searches]
    assert case.runs.entered == [(kind, scope, "schedule")]
    found = {
        Search.BY_TIME: [7, 8, 9],
        Search.BY_CONTENT: [1, 2, 3],
        Search.COMPILATIONS: [4, 5, 6],
        Search.FAILED: [10, 11, 12],
    }
    assert case.lml.batches == [found[search] for search in searches]


async def test_rows_of_both_searches_share_a_call() -> None:
    case = Case([due(7)], [due(1, 2)])
    await case.run()
    assert case.lml.batches == [[1, 2, 7]]


async def test_changed_rows_that_were_asked_are_those_that_capture_missed() -> None:
    changed = due(1, 2, 3, 4, 5, 6, reason=Reason.CHANGED)
    case = Case((), [changed, due(7), due(8, reason=Reason.FAILED)])
    # A change to this row was being handled while the search ran: nothing was missed.
    case.library.answered = frozenset({2})
    case.library.gone = frozenset({3})
    case.library.nameless = frozenset({4})
    case.verdicts.superseded = frozenset({5})
    tally = await case.run(RunKind.AUDIT)
    assert sorted(case.asked) == [1, 5, 6, 7, 8]
    assert tally.capture_missed == 3
    assert tally.scanned == 8


async def test_rows_that_are_due_for_another_reason_were_not_missed() -> None:
    reasons = [reason for reason in Reason if reason is not Reason.CHANGED]
    rows = [DueRow(row, reason, compilation=False) for row, reason in enumerate(reasons, 1)]
    tally = await Case((), [rows]).run(RunKind.AUDIT)
    assert (tally.scanned, tally.capture_missed) == (len(reasons), 0)


async def test_changed_rows_of_a_batch_that_lml_failed_do_not_count_as_missed() -> None:
    case = Case((), [due(1, 2, 3, reason=Reason.CHANGED), due(4, reason=Reason.CHANGED)])
    case.lml.fault = fails(1)
    assert (await case.run(RunKind.AUDIT)).capture_missed == 1


async def test_failed_batch_is_counted_and_the_run_continues() -> None:
    case = Case((), full_batches(4))
    case.lml.fault = fails(2)
    tally = await case.run()
    assert case.verdicts.written.keys() == {1, 2, 3, 7, 8, 9, 10, 11, 12}
    assert tally.skipped == {Skip.LML_ERROR: 3}
    # The third batch is asked in two calls: one row shows that LML is back.
    assert (tally.unresolved, tally.scanned, tally.lml_calls) == (9, 12, 5)
    assert case.asked == list(range(1, 13))
    assert case.runs.ended == ["done"]


async def test_five_failed_batches_in_a_row_halt_the_run() -> None:
    case = Case(full_batches(9))
    case.lml.fault = fails(*range(3, 99))
    tally = Tally()
    message = "gave up after 5 failures in a row: ConnectError"
    with pytest.raises(RunHaltedError, match=message):
        await case.run(tally=tally)
    assert len(case.lml.batches) == 2 + 5
    assert (tally.unresolved, tally.skipped) == (6, {Skip.LML_ERROR: 15})
    assert case.runs.ended == ["RunHaltedError"]


async def test_batches_that_fail_together_halt_the_run_too() -> None:
    case = Case(full_batches(40), batches=4)
    case.lml.fault = fails(*range(99))
    with pytest.raises(RunHaltedError):
        await case.run()
    assert len(case.lml.batches) <= 4 + 4
    assert case.lml.in_flight == 0


async def test_batches_that_fail_together_count_as_one_failure() -> None:
    case = Case((), full_batches(6), batches=4)
    case.lml.fault = fails(1, 2, 3, 4)
    assert (await case.run()).skipped == {Skip.LML_ERROR: 12}
    assert case.runs.ended == ["done"]


@pytest.mark.parametrize("first", [1, 185, 481])
async def test_many_adjacent_bad_rows_spoil_neither_other_rows_nor_the_run(first: int) -> None:
    bad = frozenset(range(first, first + 20))
    case = Case((), [due(*range(1, 501))], batch_size=500)
    case.lml.poison = bad
    tally = await case.run()
    assert case.verdicts.failed.keys() == bad
    assert case.verdicts.written.keys() == set(range(1, 501)) - bad
    assert (tally.scanned, tally.skipped) == (500, {Skip.LML_ERROR: 20})
    assert tally.lml_calls == len(case.lml.batches) < 150
    assert case.runs.ended == ["done"]


@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize("deadly", [1, 250, 481])
async def test_row_that_interrupts_its_calls_leaves_every_other_row_answered(
    deadly: int, batches: int
) -> None:
    case = Case((), [due(*range(1, 501))], batch_size=500, batches=batches)
    case.lml.deadly = frozenset({deadly})
    tally = await case.run()
    assert case.verdicts.ledger.entries.keys() == {deadly}
    assert case.verdicts.failed[deadly].suspicion == ISOLATED
    assert case.verdicts.written.keys() == set(range(1, 501)) - {deadly}
    assert (tally.scanned, tally.skipped) == (500, {Skip.LML_ERROR: 1})
    assert tally.lml_calls == len(case.lml.batches) <= 40
    assert case.runs.ended == ["done"]
    assert case.circuit.failures == 0


async def test_rows_that_failed_together_are_left_to_their_next_attempt() -> None:
    case = Case(full_batches(1), [due(*range(11, 14))])
    case.lml.deadly = frozenset({11, 12, 13})
    tally = await case.run()
    assert case.lml.batches == [[1, 2, 3], [11, 12, 13], [13], [11]]
    assert (tally.scanned, tally.skipped) == (6, {Skip.LML_ERROR: 3})
    assert case.verdicts.ledger.entries.keys() == {11, 12, 13}
    assert case.runs.ended == ["done"]


async def test_rows_that_failed_together_in_one_run_go_in_small_batches_in_the_next() -> None:
    case = Case((), [due(*range(1, 251))], batch_size=250)
    case.lml.deadly = frozenset(range(1, 251))
    with pytest.raises(
        RunHaltedError, match=r"^every batch failed, the last with: LML answered 502"
    ):
        await case.run()
    assert {failure.suspicion for failure in case.verdicts.failed.values()} == {SUSPECT}
    case.lml.deadly = frozenset()
    case.circuit.replied()
    case.lml.batches.clear()
    assert (await case.run()).unresolved == 250
    assert [len(batch) for batch in case.lml.batches] == [100, 100, 50]


async def test_row_that_crashes_lml_is_isolated_in_place() -> None:
    case = Case((), [due(*range(1, 401))], batch_size=400)
    case.lml.deadly = frozenset({250})
    tally = await case.run()
    assert [len(batch) for batch in case.lml.batches if 250 in batch] == [400, 50, 1]
    assert case.lml.once == [False] + [True] * (len(case.lml.batches) - 1)
    assert (tally.unresolved, tally.skipped) == (399, {Skip.LML_ERROR: 1})


async def test_last_rows_that_fail_together_do_not_halt_a_run_that_went_well() -> None:
    case = Case(full_batches(1), [due(11, 12, 13)])
    case.lml.deadly = frozenset({11})
    tally = await case.run()
    assert case.verdicts.ledger.entries.keys() == {11}
    assert (tally.unresolved, tally.skipped) == (5, {Skip.LML_ERROR: 1})
    assert len(case.lml.batches) <= 8
    assert case.runs.ended == ["done"]


@pytest.mark.parametrize("first", [1, 95, 490])
@pytest.mark.parametrize("many", [2, 12])
async def test_rows_that_crash_lml_do_not_keep_others_unanswered(first: int, many: int) -> None:
    windows = [due(*range(begin, begin + 500)) for begin in range(1, 2001, 500)]
    case = Case((), windows, batch_size=500, batches=2)
    case.lml.deadly = frozenset(range(first, first + many))
    tally = await case.run()
    assert case.runs.ended == ["done"]
    left = case.verdicts.ledger.entries.keys()
    assert left == case.lml.deadly
    assert case.verdicts.written.keys() == set(range(1, 2001)) - left
    assert (tally.scanned, tally.skipped) == (2000, {Skip.LML_ERROR: len(left)})
    assert tally.lml_calls == len(case.lml.batches) < 200


async def test_rows_that_failed_together_count_once_although_lml_then_refuses_us() -> None:
    case = Case((), [due(*range(1, 41))], batch_size=40)
    faults: list[Exception] = [CallInterruptedError("ReadTimeout"), LmlRefusedError("401")]
    case.lml.fault = lambda call: faults[min(call, 2) - 1]
    tally = Tally()
    with pytest.raises(RunHaltedError, match="401"):
        await case.run(tally=tally)
    assert (tally.scanned, tally.skipped) == (40, {Skip.LML_ERROR: 40})


async def test_rows_of_an_interrupted_call_count_although_the_next_one_finds_lml_down() -> None:
    case = Case((), [due(*range(1, 41))], batch_size=40)
    faults: list[Exception] = [CallInterruptedError("ReadTimeout"), LmlUnavailableError("503")]
    case.lml.fault = lambda call: faults[call - 1]
    tally = Tally()
    with pytest.raises(RunHaltedError, match="503"):
        await case.run(tally=tally)
    assert case.verdicts.ledger.entries.keys() == set(range(1, 41))
    assert (tally.scanned, tally.skipped) == (40, {Skip.LML_ERROR: 40})


async def test_rows_that_never_get_an_answer_count_once() -> None:
    case = Case(full_batches(1), [due(*range(11, 41))], batch_size=30)
    case.lml.fault = lambda call: (
        CallInterruptedError("ReadTimeout") if max(case.lml.batches[-1]) > 20 else None
    )
    tally = await case.run()
    left = case.verdicts.ledger.entries.keys()
    # The last batch is 38 to 40: its trial failed, so the other two were not asked about.
    untried = {39, 40}
    assert left >= set(range(21, 39))
    assert untried.isdisjoint(case.asked)
    assert case.verdicts.written.keys() == {1, 2, 3, *range(11, 41)} - left - untried
    assert tally.scanned == 33
    assert tally.skipped == {Skip.LML_ERROR: len(left) + len(untried)}
    assert case.runs.ended == ["done"]


async def test_rows_that_failed_together_count_once_although_the_run_is_cancelled() -> None:
    case = Case((), [due(*range(1, 301))], batch_size=300)
    case.lml.fault = lambda call: CallInterruptedError("ReadTimeout") if call == 1 else None
    tally = Tally()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(case.run(tally=tally))
        await eventually(lambda: len(case.verdicts.written) > 100)
        running.cancel()
    assert len(case.verdicts.written) == tally.unresolved < 300
    assert tally.scanned <= 300


async def test_many_rows_whose_calls_were_too_long_are_answered_in_shorter_ones() -> None:
    windows = [due(*range(begin, begin + 1000)) for begin in range(1, 8001, 1000)]
    case = Case((), windows, batch_size=1000)
    case.lml.fault = lambda call: (
        CallInterruptedError("ReadTimeout") if len(case.lml.batches[-1]) > 100 else None
    )
    tally = await case.run()
    assert case.runs.ended == ["done"]
    assert len(case.verdicts.written) == tally.unresolved == tally.scanned == 8000
    # Each batch, one row alone, eight parts that are still too long, and eight parts of each.
    assert len(case.lml.batches) == 8 * (1 + 1 + 8 + 64)


async def test_changed_rows_that_failed_together_count_as_missed_once() -> None:
    changed = due(*range(1, 401), reason=Reason.CHANGED)
    case = Case((), [changed], batch_size=400)
    case.lml.deadly = frozenset({250})
    tally = await case.run(RunKind.AUDIT)
    assert (tally.scanned, tally.capture_missed) == (400, 400)


@pytest.mark.parametrize("good", [0, 40])
async def test_calls_that_are_all_interrupted_halt_a_run_and_each_row_counts_once(
    good: int,
) -> None:
    case = Case((), [due(*range(1, 201))], batch_size=20, batches=1)
    case.lml.deadly = frozenset(range(good + 1, 201))
    tally = Tally()
    with pytest.raises(RunHaltedError, match=r"^gave up after 5 failures in a row"):
        await case.run(tally=tally)
    assert case.verdicts.written.keys() == set(range(1, good + 1))
    # All rows of the first batch were asked about, and the trial rows of the next ones.
    assert len(case.verdicts.ledger.entries) == 20 + 4 * TRIAL
    assert {failure.suspicion for failure in case.verdicts.failed.values()} == {SUSPECT}
    # The rows not asked about stay due, and count as well.
    assert tally.skipped == {Skip.LML_ERROR: 5 * 20}
    assert tally.scanned == good + 5 * 20
    # Two rows of the first batch were asked about alone.
    assert len(case.lml.batches) == good / 20 + 5 + 2


async def test_lml_that_refuses_every_row_costs_few_calls_a_batch() -> None:
    case = Case((), [due(*range(1, 1001))], batch_size=500)
    case.lml.poison = frozenset(range(1, 1001))
    tally = await case.run()
    assert case.verdicts.ledger.entries.keys() == set(range(1, 1001))
    assert (tally.scanned, tally.skipped) == (1000, {Skip.LML_ERROR: 1000})
    assert len(case.lml.batches) <= 2 * (66 + 4 * 7)
    assert case.runs.ended == ["done"]
    assert case.circuit.failures == 0


async def test_run_over_only_bad_rows_completes() -> None:
    case = Case((), [due(*range(1, 21))], batch_size=20)
    case.lml.poison = frozenset(range(1, 21))
    assert (await case.run()).skipped == {Skip.LML_ERROR: 20}
    assert case.runs.ended == ["done"]


async def test_rows_due_by_time_are_spread_over_the_library() -> None:
    case = Case([due(*range(1, 101)), due(*range(101, 201))], batches=1)
    await case.run(RunKind.REFRESH)
    assert sorted(case.asked) == list(range(1, 201))
    neighbours = sum(
        abs(first - second) == 1
        for batch in case.lml.batches
        for first in batch
        for second in batch
    )
    # A batch of 3 in order would hold four such pairs.
    assert neighbours < len(case.lml.batches)


async def test_batch_that_is_answered_resets_the_count_of_failures() -> None:
    case = Case(full_batches(16))
    # Four batches fail, then one is answered in two calls: a row alone, then the others.
    case.lml.fault = fails(*(call for call in range(1, 20) if call % 6 > 1))
    tally = await case.run()
    assert len(case.lml.batches) == 1 + 3 * (4 + 2)
    assert tally.skipped == {Skip.LML_ERROR: 36}


async def test_lml_that_is_down_from_the_beginning_halts_a_run_at_little_cost() -> None:
    case = Case(full_batches(15), batches=1)
    case.lml.fault = fails(*range(99))
    with pytest.raises(RunHaltedError, match="gave up after 5 failures in a row"):
        await case.run()
    # All but the first are about one row.
    assert [len(batch) for batch in case.lml.batches] == [3, 1, 1, 1, 1]


def lml_is_down(circuit: Circuit) -> Circuit:
    circuit.failed(LmlUnavailableError("ConnectError"))
    return circuit


async def test_run_asks_nothing_while_others_find_lml_down() -> None:
    circuit = lml_is_down(Circuit(Stream.LIBRARY))
    case = Case((), full_batches(1), circuit=circuit)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.run())
        await for_a_while(7.0)
        assert case.asked == []
        circuit.replied()
        await eventually(lambda: case.asked == [1, 2, 3])


async def test_circuit_records_a_failed_batch_and_the_next_success() -> None:
    circuit = Circuit(Stream.LIBRARY)
    case = Case((), full_batches(3), circuit=circuit)
    case.lml.fault = fails(2)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.run())
        await eventually(lambda: len(case.lml.batches) == 2)
        assert circuit.state is BreakerState.OPEN
        assert circuit.paused_for() > timedelta(seconds=7)
        await eventually(lambda: len(case.lml.batches) == 3)
    first, second, third, _ = case.lml.asked_at
    assert second - first < CALL + 0.1
    assert third - second >= CALL + LML_BACKOFF.first.total_seconds()
    assert circuit.failures == 0


async def test_rows_that_needed_no_question_prove_nothing_about_lml() -> None:
    circuit = lml_is_down(Circuit(Stream.LIBRARY))
    case = Case((), full_batches(1), circuit=circuit)
    case.library.answered = frozenset({1, 2, 3})
    await case.run()
    assert not case.asked
    assert (circuit.failures, circuit.paused_for()) == (1, timedelta())


async def test_first_call_after_an_outage_is_about_one_row_and_others_wait_for_it() -> None:
    circuit = lml_is_down(Circuit(Stream.LIBRARY))
    case = Case((), [due(*range(40))], batch_size=20, batches=3, circuit=circuit)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.run())
        await eventually(lambda: case.lml.in_flight == 1, within=20.0)
        assert circuit.state is BreakerState.HALF_OPEN
        assert circuit.paused_for().total_seconds() > CALL
    assert len(case.lml.batches[0]) == TRIAL
    assert sorted(case.asked) == list(range(40))
    assert circuit.failures == 0


async def test_runs_and_changes_together_ask_lml_that_is_down_four_times_a_minute() -> None:
    circuit = Circuit(Stream.LIBRARY)
    case = Case((), full_batches(40), batches=3, circuit=circuit)
    case.lml.fault = fails(*range(999))
    case.lml.seconds = 0.01
    others: list[float] = []

    async def follow_changes() -> None:
        while True:
            await asyncio.sleep(circuit.paused_for().total_seconds() or 0.01)
            if not circuit.paused_for():
                circuit.begin_trial()
                others.append(now())
                await asyncio.sleep(0.01)
                lml_is_down(circuit)

    async def run_again_and_again() -> None:
        while True:
            with pytest.raises(RunHaltedError):
                await case.run()

    began = now()
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(work()) for work in (follow_changes, run_again_and_again)]
        await for_a_while(600.0)
        for task in working:
            task.cancel()
    calls = sorted(others + case.lml.asked_at)
    # The first calls may be in flight together when they find LML down.
    later = [at for at in calls if at > began + 1.0]
    assert others
    assert len(later) <= 4 * 10


@pytest.mark.parametrize(
    "fault", [LmlUnavailableError("ConnectError"), LmlRefusedError("LML answered 401")]
)
async def test_untried_rows_of_a_failed_batch_count_and_stay_due(
    fault: LmlUnavailableError,
) -> None:
    circuit = lml_is_down(Circuit(Stream.LIBRARY))
    case = Case((), [due(*range(1, 41))], batch_size=40, circuit=circuit)
    case.library.gone = frozenset({1})
    case.lml.fault = lambda call: fault if call == 2 else None
    tally = Tally()
    # Row 1 proves nothing; row 2 proves that LML is back.
    if isinstance(fault, LmlRefusedError):
        with pytest.raises(RunHaltedError, match="401"):
            await case.run(tally=tally)
    else:
        await case.run(tally=tally)
    assert (tally.unresolved, tally.skipped) == (1, {Skip.GONE: 1, Skip.LML_ERROR: 38})
    assert tally.scanned == 40
    assert not case.verdicts.ledger.entries


async def test_pause_for_the_database_starts_over_after_a_success() -> None:
    case = Case((), full_batches(3))
    gone = StoreUnavailableError("connection refused")
    case.library.faults = [gone, gone, None, gone, None]
    await case.run()
    tries = [at for at, _ in case.library.reads]
    waits = [round(b - a, 1) for a, b in pairwise(tries)]
    # One call separates the successful reads.
    assert waits == [0.5, 1.0, CALL, 0.5, CALL]
    assert case.asked == list(range(1, 10))


async def test_batch_that_the_database_failed_is_tried_again_after_growing_delays() -> None:
    case = Case((), full_batches(2))
    case.library.faults = [StoreUnavailableError("connection refused") for _ in range(4)]
    tally = await case.run()
    assert [rows for _, rows in case.library.reads] == [[1, 2, 3]] * 5 + [[4, 5, 6]]
    tries = [at for at, _ in case.library.reads][:5]
    assert [round(b - a, 2) for a, b in pairwise(tries)] == [0.5, 1, 2, 4]
    assert case.asked == [1, 2, 3, 4, 5, 6]
    assert tally.scanned == 6


async def test_database_that_stays_away_halts_the_run() -> None:
    case = Case(full_batches(3))
    case.library.faults = [StoreUnavailableError("connection refused") for _ in range(99)]
    with pytest.raises(
        RunHaltedError, match="gave up after 5 failures in a row: connection refused"
    ):
        await case.run()
    assert len(case.library.reads) == 5
    assert not case.asked


@pytest.mark.parametrize("batches", [1, 2, 5])
async def test_no_more_than_the_given_number_of_batches_run_at_a_time(batches: int) -> None:
    case = Case(full_batches(20), batches=batches)
    began = now()
    await case.run()
    assert case.lml.most_in_flight == batches
    assert now() - began == pytest.approx(20 / batches * CALL, abs=0.1)


async def test_search_does_not_run_ahead_of_the_asking() -> None:
    case = Case((), full_batches(100), batches=2)
    case.lml.seconds = 1000.0
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(case.run())
        await for_a_while(100.0)
        # Two batches are asked, one is queued, and one was found and waits for the queue.
        assert case.due.windows == 4
        running.cancel()


async def test_cancelled_run_leaves_nothing_running() -> None:
    case = Case(full_batches(50), batches=3)
    before = asyncio.all_tasks()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(case.run())
        await eventually(lambda: len(case.lml.batches) > 6)
        running.cancel()
    assert running.cancelled()
    assert case.lml.in_flight == 0
    assert asyncio.all_tasks() == before
    assert case.runs.ended == ["CancelledError"]
    calls = len(case.lml.asked_at)
    await for_a_while(60.0)
    assert len(case.lml.asked_at) == calls
    assert asyncio.all_tasks() == before


async def test_given_tally_is_filled_during_the_run() -> None:
    case = Case(full_batches(4))
    given = Tally(resolved=5, lml_calls=1)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(case.run(tally=given))
        await for_a_while(2.5 * CALL)
        assert (given.resolved, given.unresolved) == (5, 6)
    assert running.result() is given
    assert (given.resolved, given.unresolved, given.lml_calls) == (5, 12, 5)


async def test_each_run_counts_for_itself() -> None:
    case = Case(full_batches(2))
    first, second = await case.run(), await case.run()
    assert first is not second
    assert (first.scanned, second.scanned) == (6, 6)


async def test_tally_is_stored_during_the_run() -> None:
    case = Case((), full_batches(3))
    case.lml.seconds = 4.5
    began = now()
    await case.run()
    assert [(round(at - began), scanned) for at, scanned in case.runs.noted] == [
        (2, 0),
        (4, 0),
        (6, 3),
        (8, 3),
        (10, 6),
        (12, 6),
    ]


async def test_search_that_fails_ends_the_run() -> None:
    case = Case(full_batches(6))
    case.due.fault = StoreUnavailableError("connection refused")
    with pytest.raises(StoreUnavailableError, match="connection refused"):
        await case.run()
    assert case.due.searched == [(Search.FAILED, SCOPE)]
    assert case.runs.ended == ["StoreUnavailableError"]
    assert case.lml.in_flight == 0


async def test_run_that_lost_its_lock_ends() -> None:
    case = Case(full_batches(50))
    case.runs.fault = StoreUnavailableError("terminating connection")
    with pytest.raises(StoreUnavailableError, match="terminating connection"):
        await case.run()
    assert len(case.lml.asked_at) <= 2
    assert case.lml.in_flight == 0


async def test_unforeseen_exception_at_one_row_ends_neither_its_batch_nor_the_run() -> None:
    case = Case(full_batches(5), batches=2)
    case.library.faults = [ZeroDivisionError("a bug")]
    tally = await case.run()
    assert case.runs.ended == ["done"]
    # The rows of the first batch are read again one by one.
    assert (tally.scanned, tally.unresolved) == (15, 15)


async def test_bug_in_the_search_ends_the_run_and_is_not_hidden() -> None:
    case = Case(full_batches(5), batches=2)
    case.due.fault = ZeroDivisionError("a bug")
    with pytest.raises(ExceptionGroup) as caught:
        await case.run()
    assert caught.group_contains(ZeroDivisionError)
    assert case.lml.in_flight == 0


async def test_run_without_due_rows_asks_nothing() -> None:
    case = Case([[], []], [[]])
    assert await case.run() == Tally()
    assert not case.lml.batches
    assert case.runs.ended == ["done"]


async def test_count_asks_nothing_and_records_no_run() -> None:
    compilations = [DueRow(row, Reason.NEVER, compilation=True) for row in (8, 9)]
    case = Case(full_batches(1), [due(4), compilations, [*due(5), *compilations[:1]]])
    assert await case.reconciler.count(RunKind.SWEEP, SCOPE) == {False: 5, True: 3}
    assert await case.reconciler.count(RunKind.BACKFILL, SCOPE) == {False: 2, True: 3}
    assert await case.reconciler.count(RunKind.REFRESH, SCOPE) == {False: 3, True: 0}
    assert not case.library.reads
    assert not case.asked
    assert not case.runs.entered
