"""Getting verdicts for library rows, whatever happens to some of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import (
    BatchRefusedError,
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    StoreRefusedError,
    StoreUnavailableError,
    TracksRefusedError,
)
from listener.domain.judging import Invalid
from listener.domain.pacing import BreakerState
from listener.domain.question import Asking, IncludeTracks, Question
from listener.domain.retrying import ISOLATED, SUSPECT, Failing, Failure, Retry, RetryPolicy
from listener.domain.tally import Skip
from listener.domain.tracks import TrackCount, TrackKey, Tracks
from listener.domain.verdict import Identity, Kind, Verdict, VerdictBatch, Written
from listener.engine.circuit import Circuit, Permits, Priority
from listener.engine.resolver import Resolver
from tests.unit.clock import for_a_while, virtually
from tests.unit.fakes import Library, Lml, Outbox, Reply, Verdicts, unresolved

BATCH = range(1, 501)
# What a batch of 500 costs if it is refused like everything before it.
CALLS = 9
Logged = list[MutableMapping[str, Any]]


@dataclass
class NotingVerdicts(Verdicts):
    """Keeps the order, rows and entries of recorded failures.

    A row of `crashing` raises an unforeseen exception.
    """

    crashing: frozenset[int] = frozenset()
    fault: StoreUnavailableError | None = None
    fail_calls: list[tuple[int, list[int], list[tuple[int, int]]]] = field(default_factory=list)

    async def write(self, batch: VerdictBatch) -> Written:
        if self.fault is not None:
            raise self.fault
        crash_at(self.crashing, (verdict.library_id for verdict in batch.verdicts))
        return await super().write(batch)

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        rows = [failure.library_id for failure in failures]
        self.fail_calls.append((order, rows, list(entries)))
        return await super().fail(order, failures, entries)


@dataclass
class CrashingLibrary(Library):
    crashing: frozenset[int] = frozenset()

    async def read(self, row_ids: Sequence[int]) -> Asking:
        crash_at(self.crashing, row_ids)
        return await super().read(row_ids)


@dataclass
class CrashingLml(Lml):
    """Raises an unforeseen exception when it is asked or when its reply is read."""

    crashing: frozenset[int] = frozenset()
    while_reading: bool = False

    async def ask(
        self, questions: Sequence[Question], *, with_tracks: bool = False, once: bool = False
    ) -> Reply:
        reply = await super().ask(questions, with_tracks=with_tracks, once=once)
        rows = {question.library_id for question in questions}
        if not self.while_reading:
            crash_at(self.crashing, rows)
        return CrashingReply(reply.results, crashing=self.crashing & rows)


@dataclass
class CrashingReply(Reply):
    crashing: frozenset[int] = frozenset()

    async def read(self) -> Sequence[Verdict | Invalid]:
        crash_at(self.crashing, self.crashing)
        return await super().read()


def crash_at(crashing: frozenset[int], rows: Iterable[int]) -> None:
    for row in rows:
        if row in crashing:
            raise KeyError(row)


class SlowLml(Lml):
    """Takes two seconds for each batch."""

    async def resolve(self, questions: Sequence[Question]) -> Sequence[Verdict | Invalid]:
        await asyncio.sleep(2.0)
        return await super().resolve(questions)


@dataclass
class SlowVerdicts(NotingVerdicts):
    """Takes a minute for each batch; `most` is how many were ever written at a time."""

    writing: int = 0
    most: int = 0

    async def write(self, batch: VerdictBatch) -> Written:
        self.writing += 1
        self.most = max(self.most, self.writing)
        await asyncio.sleep(60.0)
        self.writing -= 1
        return await super().write(batch)


class Case:
    """A resolver between a library, LML and a database of its own."""

    def __init__(
        self,
        rows: Iterable[int] = BATCH,
        library: Library | None = None,
        lml: Lml | None = None,
        include_tracks: IncludeTracks = IncludeTracks.COMPILATIONS,
        *,
        defer_compilations: bool = False,
    ) -> None:
        self.outbox = Outbox()
        self.outbox.record(*rows)
        self.library = library or Library()
        self.lml = lml or Lml()
        self.verdicts = NotingVerdicts(self.outbox)
        self.permits = Permits(2)
        self.circuit = Circuit(Stream.LIBRARY)
        self.policy = RetryPolicy(attempts=3, parked_for=timedelta(days=180))
        self.resolver = Resolver(
            library=self.library,
            lml=self.lml,
            verdicts=self.verdicts,
            outbox=self.outbox,
            permit=lambda: self.permits.hold(Priority.CHANGE),
            compilation_batch_size=100,
            policy=self.policy,
            include_tracks=include_tracks,
            defer_compilations=defer_compilations,
            circuit=self.circuit,
        )
        self.tally = self.resolver.tally

    async def handle(self) -> BatchOutcome:
        rows: dict[int, tuple[int, ...]] = {}
        for seq, row in self.outbox.entries.items():
            rows[row] = (*rows.get(row, ()), seq)
        return await self.resolver.handle(Batch(rows))

    async def retry(self, *rows: int) -> BatchOutcome:
        """Handle rows without a change in the outbox."""
        return await self.resolver.handle(Batch(dict.fromkeys(rows, ())))

    @property
    def waiting(self) -> set[int]:
        return set(self.outbox.entries.values())

    @property
    def suspicions(self) -> dict[int, int]:
        return {row: failure.suspicion for row, failure in self.verdicts.failed.items()}

    @property
    def suspects(self) -> set[int]:
        """The rows that failed together with others."""
        return {row for row, suspicion in self.suspicions.items() if suspicion == SUSPECT}


def some(*rows: int) -> frozenset[int]:
    return frozenset(rows)


def all_but(failed: Iterable[int], rows: Iterable[int] = BATCH) -> BatchOutcome:
    """All rows are settled; those that failed wait in the ledger."""
    return BatchOutcome(settled=frozenset(rows), failed=frozenset(failed))


def failing(
    failures: int = 1,
    suspicion: int = 0,
    lasting: timedelta = timedelta(minutes=1),
    ago: timedelta = timedelta(seconds=30),
) -> Failing:
    return Failing(failures, lasting, ago, suspicion)


def asked_of(batches: Sequence[Sequence[int]]) -> Counter[int]:
    return Counter(row for batch in batches for row in batch)


def compilation(question: Question, *, visited: bool = False) -> list[Verdict | Invalid]:
    key = TrackKey("Artist", "Title", "Artist", 0.9, None, 0)
    tracks = Tracks((key,), invalid_entries=2, invalid_confidences=1) if visited else None
    return [Verdict(question.library_id, Kind.COMPILATION, tracks=tracks)]


def compilation_of_ten(question: Question) -> list[Verdict | Invalid]:
    keys = [TrackKey("Artist", str(number), None, None, None, 0) for number in range(10)]
    return [Verdict(question.library_id, Kind.COMPILATION, tracks=Tracks(tuple(keys)))]


def single_artist(row: int, skipped_sources: int = 0) -> Verdict:
    identity = Identity("exact", 0.9, None, None, None, ())
    return Verdict(row, Kind.SINGLE_ARTIST, identity, skipped_sources)


async def test_batch_without_trouble_is_one_call_and_one_write() -> None:
    case = Case()
    handled = await case.handle()
    assert handled == BatchOutcome(settled=frozenset(BATCH))
    assert (len(case.lml.batches), len(case.verdicts.batches)) == (1, 1)
    assert not case.waiting


async def test_batch_carries_the_order_and_the_questions_it_was_read_with() -> None:
    case = Case([7, 7, 8], Library(order=41))
    await case.handle()
    batch = case.verdicts.batches[0]
    assert batch.order == 42
    assert {row: question.album_title for row, question in batch.questions.items()} == {
        7: "Album 7",
        8: "Album 8",
    }
    assert batch.entries == [(1, 7), (2, 7), (3, 8)]


async def test_gone_nameless_and_answered_rows_are_settled_without_asking() -> None:
    library = Library(frozenset({1}), frozenset({2, 3}), frozenset({4}))
    case = Case([1, 2, 3, 4, 4], library)
    rows = frozenset({1, 2, 3, 4})
    assert await case.handle() == BatchOutcome(settled=rows, unasked=rows)
    assert not case.lml.batches
    assert not case.waiting
    assert case.tally.skipped == {Skip.ALREADY_ANSWERED: 1, Skip.NULL_ARTIST: 2, Skip.GONE: 1}


async def test_rows_without_a_question_do_not_delay_the_others() -> None:
    case = Case([1, 2, 3], Library(gone=frozenset({2})))
    assert await case.handle() == BatchOutcome(settled=frozenset({1, 2, 3}), unasked=frozenset({2}))
    assert case.lml.batches == [[1, 3]]


async def test_superseded_rows_are_late_and_keep_their_changes() -> None:
    case = Case([1, 2, 3])
    case.verdicts.superseded = frozenset({2})
    assert await case.handle() == BatchOutcome(settled=frozenset({1, 3}), late=frozenset({2}))
    assert case.waiting == {2}
    assert case.tally.skipped == {Skip.SUPERSEDED: 1}
    assert case.tally.unresolved == 2


async def test_outcomes_are_counted_by_kind() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        kinds = [
            single_artist(question.library_id, skipped_sources=2),
            Verdict(question.library_id, Kind.UNRESOLVED),
            Verdict(question.library_id, Kind.COMPILATION),
        ]
        return [kinds[question.library_id % 3]]

    case = Case(range(7), lml=Lml(reply=reply))
    await case.handle()
    assert (case.tally.resolved, case.tally.unresolved) == (3, 2)
    assert case.tally.skipped == {Skip.COMPILATION: 2}
    assert case.tally.source_rows_skipped_null_confidence == 6
    assert case.tally.scanned == 7


async def test_changes_to_identities_are_counted_in_addition_to_rows() -> None:
    case = Case(range(1, 13))
    case.verdicts.withdrawn = frozenset((3, 4))
    case.verdicts.unstorable = frozenset((12,))
    with capture_logs() as logs:
        await case.handle()
    # Batches that were written count, refused ones do not.
    answered = [
        {verdict.library_id for verdict in batch.verdicts} for batch in case.verdicts.batches
    ]
    batches = sum(12 not in rows for rows in answered)
    tally = case.tally
    assert (tally.identities_withdrawn, tally.kept_manual) == (2, batches)
    assert tally.resolved_now_unresolved == 2 * batches
    assert tally.scanned == 12
    entries = [entry["rows"] for entry in logs if entry["event"].startswith("identities withdrawn")]
    assert entries == [[3, 4]]


async def test_rows_that_the_reply_does_not_answer_fail_and_the_others_are_written() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        row = question.library_id
        answers: dict[int, list[Verdict | Invalid]] = {
            1: [],
            2: [Invalid(2, "kind: enum")],
            3: [Verdict(3, Kind.UNRESOLVED), Verdict(3, Kind.COMPILATION)],
            4: [Verdict(4, Kind.UNRESOLVED), Verdict(99, Kind.UNRESOLVED)],
            5: [Invalid(None, "result: model_type"), Verdict(5, Kind.UNRESOLVED)],
        }
        return answers[row]

    case = Case([1, 2, 3, 4, 5], lml=Lml(reply=reply))
    with capture_logs() as logs:
        assert await case.handle() == all_but({1, 2, 3}, range(1, 6))
    (entry,) = (log for log in logs if log["event"] == "rows cannot be answered")
    assert (entry["rows"], entry["count"]) == ([1, 2, 3], 3)
    assert entry["reasons"] == {"lml_untrusted_library_id": 1, "lml_invalid": 2}
    assert case.verdicts.written.keys() == {4, 5}
    assert not case.waiting
    # An answer about another row takes the place of the missing one.
    assert case.tally.skipped == {Skip.UNTRUSTED: 1, Skip.INVALID: 2}
    assert {
        row: (failure.reason, failure.detail, failure.suspicion)
        for row, failure in case.verdicts.failed.items()
    } == {
        1: (Skip.UNTRUSTED, "LML answered about another row", 0),
        2: (Skip.INVALID, "kind: enum", 0),
        3: (Skip.INVALID, "two conflicting answers", 0),
    }


async def test_reply_without_answers_writes_nothing() -> None:
    case = Case([1, 2], lml=Lml(reply=lambda question: []))
    assert await case.handle() == all_but({1, 2}, {1, 2})
    assert not case.verdicts.batches


@pytest.mark.parametrize("position", [0, 1, 7, 249, 250, 498, 499])
async def test_poison_row_is_found_in_a_few_more_calls(position: int) -> None:
    poison = frozenset({BATCH[position]})
    case = Case(lml=Lml(poison))
    assert await case.handle() == all_but(poison)
    # In parts of 63, 8 and 1, eight of each.
    assert len(case.lml.batches) <= 1 + 3 * 8
    assert case.tally.lml_calls == len(case.lml.batches)
    assert not case.waiting
    assert case.tally.skipped == {Skip.LML_ERROR: 1}
    assert case.tally.scanned == len(BATCH)
    (failure,) = case.verdicts.failed.values()
    assert (failure.detail, failure.suspicion) == ("LML answered 422", ISOLATED)
    assert failure.retry == Retry(1, timedelta(seconds=5))
    assert case.circuit.state is BreakerState.CLOSED


@pytest.mark.parametrize("position", [0, 1, 250, 499])
async def test_row_that_cannot_be_written_is_found_in_a_few_more_writes(position: int) -> None:
    unstorable = frozenset({BATCH[position]})
    case = Case()
    case.verdicts.unstorable = unstorable
    assert await case.handle() == all_but(unstorable)
    assert len(case.lml.batches) == 1
    assert len(case.verdicts.batches) <= 1 + 3 * 8
    assert not case.waiting
    assert case.tally.skipped == {Skip.WRITER_ERROR: 1}


@given(st.sampled_from([1, 2, 3, 5, 50, 500, 1000]), st.integers(1, 3), st.randoms())
def test_few_poison_rows_anywhere_are_isolated(size: int, count: int, random: Random) -> None:
    rows = range(1, size + 1)
    poison = frozenset(random.sample(rows, min(count, size)))
    case = Case(rows, lml=Lml(poison))
    assert virtually(case.handle()) == all_but(poison, rows)
    assert case.verdicts.written.keys() == set(rows) - poison
    assert len(case.lml.batches) <= (60 if size <= 500 else 64)
    assert max(asked_of(case.lml.batches).values()) <= 5
    # If nothing was answered, LML may be at fault.
    assert set(case.suspicions.values()) == {ISOLATED if len(poison) < size else SUSPECT}


@given(st.integers(1, 3), st.randoms())
def test_few_rows_that_cannot_be_written_are_isolated_without_asking_again(
    count: int, random: Random
) -> None:
    case = Case()
    case.verdicts.unstorable = unstorable = frozenset(random.sample(BATCH, count))
    assert virtually(case.handle()) == all_but(unstorable)
    assert case.verdicts.written.keys() == set(BATCH) - unstorable
    assert len(case.lml.batches) == 1
    assert len(case.verdicts.batches) <= 60


@given(st.integers(1, 961))
def test_forty_bad_neighbours_anywhere_in_a_batch_fail_alone(first: int) -> None:
    rows, poison = range(1, 1001), frozenset(range(first, first + 40))
    case = Case(rows, lml=Lml(poison))
    assert virtually(case.handle()) == all_but(poison, rows)
    assert case.verdicts.written.keys() == set(rows) - poison
    assert set(case.suspicions.values()) == {ISOLATED}
    assert max(asked_of(case.lml.batches).values()) <= 5


@pytest.mark.parametrize("first", [1, 2, 123, 245, 249, 491])
@pytest.mark.parametrize("count", [2, 3, 10])
async def test_neighbouring_poison_rows_are_isolated(first: int, count: int) -> None:
    poison = frozenset(range(first, first + count))
    case = Case(lml=Lml(poison))
    assert await case.handle() == all_but(poison)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12, 50])
async def test_few_poison_rows_alone_are_not_mistaken_for_an_outage(size: int) -> None:
    rows = range(1, size + 1)
    case = Case(rows, lml=Lml(frozenset(rows)))
    assert await case.handle() == all_but(rows, rows)
    assert set(case.suspicions.values()) == {SUSPECT}
    assert case.tally.skipped == {Skip.LML_ERROR: size}
    assert case.circuit.failures == 0


async def test_row_refused_alone_is_isolated_if_another_was_answered_meanwhile() -> None:
    case = Case([1], lml=SlowLml(frozenset({1})))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(case.handle())
        await for_a_while(1.0)
        case.circuit.answered()
    assert case.suspicions == {1: ISOLATED}


async def test_row_refused_alone_is_isolated_if_another_was_answered_since_it_failed() -> None:
    case = Case([1], lml=Lml(frozenset({1})))
    case.library.ledger = case.verdicts.ledger
    assert await case.handle() == all_but({1}, {1})
    assert case.suspicions == {1: SUSPECT}
    await for_a_while(5.0)
    assert await case.retry(1) == all_but({1}, {1})
    assert case.suspicions == {1: SUSPECT}
    await for_a_while(5.0)
    await case.retry(2)
    assert await case.retry(1) == all_but({1}, {1})
    assert case.suspicions == {1: ISOLATED}
    # It stays isolated, whatever is answered later.
    await for_a_while(5.0)
    await case.retry(1)
    assert case.suspicions == {1: ISOLATED}


@pytest.mark.parametrize("size", [100, 500, 1000])
async def test_lml_that_refuses_everything_costs_few_calls_and_parks_no_row(size: int) -> None:
    rows = range(1, size + 1)
    case = Case(rows, lml=Lml(frozenset(rows)))
    outcome = await case.handle()
    assert outcome.settled == outcome.failed == frozenset(rows)
    assert outcome.fault is None
    assert len(case.lml.batches) <= 66 + 4 * 7
    assert max(asked_of(case.lml.batches).values()) <= 5
    assert not case.verdicts.batches
    assert not case.waiting
    assert not any(failure.retry.parked for failure in case.verdicts.failed.values())
    # None of the rows is blamed, not even those refused alone.
    assert any(len(batch) == 1 for batch in case.lml.batches)
    assert case.suspects == set(rows)
    assert case.tally.scanned == case.tally.skipped[Skip.LML_ERROR] == size
    assert case.circuit.state is BreakerState.CLOSED


async def test_lml_that_keeps_refusing_everything_costs_a_few_calls_a_batch() -> None:
    case = Case((), lml=Lml(frozenset(range(1, 5001))))
    assert await calls_of(case, 1) > 66
    assert [await calls_of(case, first) for first in range(501, 4501, 500)] == [CALLS] * 8
    assert case.verdicts.failed.keys() == set(range(1, 4501))
    assert set(case.suspicions.values()) == {SUSPECT}


async def test_batch_that_lml_accepts_resets_the_count_of_refusals() -> None:
    case = Case((), lml=Lml(frozenset(range(1, 5001))))
    fresh = await calls_of(case, 1)
    assert await calls_of(case, 501) == CALLS
    await case.retry(9000)
    assert await calls_of(case, 1001) == fresh
    assert await calls_of(case, 1501) == CALLS


async def test_part_that_lml_accepts_after_refusing_everything_is_written() -> None:
    case = Case((), lml=Lml(frozenset(range(1, 5001))))
    await calls_of(case, 1)
    case.lml.poison = frozenset({600})
    await calls_of(case, 501)
    assert case.verdicts.written.keys() == set(range(501, 1001)) - {600}
    assert case.suspicions[600] == ISOLATED


async def calls_of(case: Case, first: int) -> int:
    """Handle 500 rows; return how many calls that took."""
    before = len(case.lml.batches)
    await case.retry(*range(first, first + 500))
    return len(case.lml.batches) - before


async def test_lml_that_starts_refusing_everything_costs_few_extra_calls() -> None:
    def fault(call: int) -> Exception | None:
        return BatchRefusedError("LML answered 500") if call > 20 else None

    case = Case(lml=Lml(frozenset({300, 450}), fault=fault))
    outcome = await case.handle()
    assert outcome.settled == frozenset(BATCH)
    assert outcome.failed == frozenset(BATCH) - case.verdicts.written.keys()
    assert len(case.lml.batches) <= 20 + 66 + 4 * 7
    assert case.verdicts.written


async def test_database_that_refuses_everything_costs_few_writes_and_parks_no_row() -> None:
    case = Case()
    case.verdicts.unstorable = frozenset(BATCH)
    outcome = await case.handle()
    assert outcome.settled == outcome.failed == frozenset(BATCH)
    assert outcome.fault is None
    assert len(case.lml.batches) == 1
    assert len(case.verdicts.batches) <= 66 + 4 * 7
    assert {failure.retry for failure in case.verdicts.failed.values()} == {
        Retry(1, timedelta(seconds=5))
    }
    assert {failure.reason for failure in case.verdicts.failed.values()} == {Skip.WRITER_ERROR}
    assert any(len(batch.verdicts) == 1 for batch in case.verdicts.batches)
    assert case.suspects == set(BATCH)
    # LML keeps refusing: the next batch costs less.
    before = len(case.verdicts.batches)
    case.verdicts.unstorable = frozenset(range(1, 1001))
    await case.retry(*range(501, 1001))
    assert len(case.lml.batches) == 2
    assert len(case.verdicts.batches) - before == CALLS
    # One write that it accepts ends that.
    await case.retry(9000)
    case.verdicts.unstorable = frozenset(range(1001, 1041))
    assert await case.retry(*range(1001, 1501)) == all_but(range(1001, 1041), range(1001, 1501))


@pytest.mark.parametrize("rows", [range(100, 108), range(1, 501, 50), range(200, 240)])
async def test_rows_that_cannot_be_written_fail_alone(rows: range) -> None:
    unstorable = frozenset(rows)
    case = Case()
    case.verdicts.unstorable = unstorable
    assert await case.handle() == all_but(unstorable)
    assert set(case.suspicions.values()) == {ISOLATED}


async def test_verdicts_written_before_lml_went_down_stay() -> None:
    gone = LmlUnavailableError("ConnectError")
    case = Case(
        range(1, 5), lml=Lml(frozenset({4}), fault=lambda call: gone if call == 3 else None)
    )
    assert await case.handle() == BatchOutcome(settled=some(1), fault=gone)
    assert case.verdicts.written.keys() == {1}
    assert case.waiting == {2, 3, 4}
    assert (case.circuit.failures, case.circuit.fault) == (1, gone)


async def test_failures_before_lml_went_down_are_recorded() -> None:
    gone = LmlUnavailableError("ConnectError")
    case = Case(
        range(1, 5), lml=Lml(frozenset({1}), fault=lambda call: gone if call == 4 else None)
    )
    assert await case.handle() == BatchOutcome(settled=some(1, 2), failed=some(1), fault=gone)
    assert case.waiting == {3, 4}


@pytest.mark.parametrize(
    "fault",
    [
        LmlUnavailableError("ConnectError"),
        LmlUnavailableError("LML answered 503", timedelta(seconds=40)),
        LmlRefusedError("LML answered 401"),
    ],
)
async def test_lml_that_is_unavailable_opens_the_circuit_and_blames_no_row(
    fault: LmlUnavailableError,
) -> None:
    case = Case(lml=Lml(fault=lambda call: fault))
    assert await case.handle() == BatchOutcome(fault=fault)
    assert len(case.lml.batches) == 1
    assert not case.verdicts.failed
    assert case.waiting == set(BATCH)
    assert case.circuit.state is BreakerState.OPEN
    assert case.circuit.paused_for() >= (fault.retry_after or timedelta(seconds=7.9))


async def test_readable_reply_closes_the_circuit_whatever_its_content() -> None:
    gone = LmlUnavailableError("ConnectError")
    answers: list[Exception | None] = [gone, BatchRefusedError("LML answered 422"), None]
    case = Case([1], lml=Lml(fault=lambda call: answers[call - 1]))
    await case.handle()
    assert case.circuit.failures == 1
    await case.handle()
    assert case.circuit.failures == 0


async def test_trial_without_a_reply_allows_the_next_call() -> None:
    case = Case([1], Library(gone=some(1)))
    case.circuit.failed(LmlUnavailableError("ConnectError"))
    await for_a_while(20.0)
    assert case.circuit.begin_trial() == 1
    assert case.circuit.paused_for() > timedelta()
    await case.handle()
    assert (case.circuit.failures, case.circuit.paused_for()) == (1, timedelta())


async def test_database_that_goes_down_ends_the_batch_and_blames_no_row() -> None:
    gone = StoreUnavailableError("connection refused")
    case = Case()
    case.verdicts.fault = gone
    assert await case.handle() == BatchOutcome(fault=gone)
    assert not case.verdicts.failed
    assert case.waiting == set(BATCH)
    assert case.circuit.failures == 0


@pytest.mark.parametrize("where", ["library", "ask", "reply", "write"])
@pytest.mark.parametrize("bad", [some(1), some(7, 250, 500)])
async def test_unforeseen_exception_is_isolated_to_its_rows(
    where: str, bad: frozenset[int], logged: Logged
) -> None:
    library = CrashingLibrary(crashing=bad if where == "library" else some())
    lml = CrashingLml(
        crashing=bad if where in ("ask", "reply") else some(), while_reading=where == "reply"
    )
    case = Case(library=library, lml=lml)
    case.verdicts.crashing = bad if where == "write" else some()
    assert await case.handle() == all_but(bad)
    assert case.verdicts.written.keys() == set(BATCH) - bad
    reason = Skip.LML_ERROR if where in ("ask", "reply") else Skip.WRITER_ERROR
    assert {row: (f.reason, f.detail) for row, f in case.verdicts.failed.items()} == dict.fromkeys(
        bad, (reason, "unexpected KeyError")
    )
    assert (case.tally.scanned, case.tally.skipped) == (500, {reason: len(bad)})
    entries = [event for event in logged if event["log_level"] == "error"]
    assert [(event["event"], event["exc_info"]) for event in entries] == [
        ("unexpected error, isolating its rows", True)
    ]
    assert len(lml.batches) <= 60
    assert case.circuit.failures == 0


async def test_only_the_unreadable_row_is_recorded_as_failed() -> None:
    case = Case(library=Library(unreadable=some(123)))
    assert await case.handle() == all_but({123})
    failure = case.verdicts.failed[123]
    assert (failure.reason, failure.detail) == (Skip.WRITER_ERROR, "invalid byte sequence")
    assert failure.suspicion == ISOLATED
    assert case.tally.scanned == 500
    assert case.circuit.failures == 0


@pytest.mark.parametrize("size", [1, 3, 500])
async def test_database_is_at_fault_if_no_row_can_be_read(size: int) -> None:
    rows = range(1, size + 1)
    case = Case(rows, Library(unreadable=frozenset(rows)))
    outcome = await case.handle()
    assert isinstance(outcome.fault, StoreRefusedError)
    assert str(outcome.fault) == "invalid byte sequence"
    assert outcome == BatchOutcome(fault=outcome.fault)
    assert not case.verdicts.fail_calls
    assert case.waiting == set(rows)
    assert case.tally.scanned == 0


async def test_rows_of_an_interrupted_call_fail_together_if_lml_answers_none_alone() -> None:
    case = Case(lml=Lml(deadly=frozenset(BATCH)))
    outcome = await case.handle()
    assert outcome.settled == outcome.failed == case.suspects == frozenset(BATCH)
    assert type(outcome.fault) is CallInterruptedError
    assert set(case.suspicions.values()) == {SUSPECT}
    assert not case.waiting
    assert case.circuit.state is BreakerState.OPEN
    assert case.lml.batches == [list(BATCH), [500], [1]]
    assert case.lml.once == [False, True, True]
    assert (case.tally.scanned, case.tally.skipped) == (500, {Skip.LML_ERROR: 500})
    assert {(f.reason, f.detail) for f in case.verdicts.failed.values()} == {
        (Skip.LML_ERROR, "LML answered 502")
    }


@pytest.mark.parametrize("deadly", [1, 7, 250, 493, 500])
async def test_row_that_crashes_lml_is_isolated_at_once_if_another_is_answered(
    deadly: int,
) -> None:
    case = Case(lml=Lml(deadly=some(deadly)))
    assert await case.handle() == all_but({deadly})
    failure = case.verdicts.failed[deadly]
    assert (failure.reason, failure.detail) == (Skip.LML_ERROR, "LML answered 502")
    assert failure.suspicion == ISOLATED
    assert case.circuit.state is BreakerState.CLOSED
    assert len(case.lml.batches) <= 40
    assert asked_of(case.lml.batches)[deadly] <= 4
    # Calls that isolate rows are not repeated at once.
    assert case.lml.once == [False] + [True] * (len(case.lml.batches) - 1)
    assert (case.tally.scanned, case.tally.skipped) == (500, {Skip.LML_ERROR: 1})


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("position", [0, 1, -1])
async def test_few_rows_with_one_that_crashes_lml_are_answered_at_once(
    size: int, position: int
) -> None:
    rows = range(1, size + 1)
    deadly = rows[position]
    case = Case(rows, lml=Lml(deadly=some(deadly)))
    assert await case.handle() == all_but({deadly}, rows)
    assert case.suspicions == {deadly: ISOLATED}
    assert case.circuit.state is BreakerState.CLOSED


@pytest.mark.parametrize("first", [1, 7, 245, 485])
@pytest.mark.parametrize("many", [2, 5, 12])
async def test_adjacent_rows_that_crash_lml_are_isolated_at_once(first: int, many: int) -> None:
    deadly = frozenset(range(first, first + many))
    case = Case(lml=Lml(deadly=deadly))
    assert await case.handle() == all_but(deadly)
    assert set(case.suspicions.values()) == {ISOLATED}
    assert case.circuit.state is BreakerState.CLOSED
    assert len(case.lml.batches) <= 80


@pytest.mark.parametrize("many", [2, 5, 12])
async def test_bad_rows_at_the_end_leave_the_others_answered(many: int) -> None:
    deadly = frozenset(range(501 - many, 501))
    case = Case(lml=Lml(deadly=deadly))
    outcome = await case.handle()
    assert case.verdicts.written.keys() == set(BATCH) - deadly
    # No other row is left whose answer could prove that LML is up.
    assert outcome.settled == frozenset(BATCH)
    assert outcome.failed == deadly
    assert set(case.suspicions.values()) <= {SUSPECT, ISOLATED}
    assert len(case.lml.batches) <= 80


async def test_probe_that_is_refused_shows_that_lml_is_up() -> None:
    case = Case(range(1, 6), lml=Lml(poison=some(5), deadly=some(2)))
    assert await case.handle() == all_but({2, 5}, range(1, 6))
    assert case.suspicions == {2: ISOLATED, 5: ISOLATED}
    assert case.circuit.state is BreakerState.CLOSED
    assert case.lml.batches[:2] == [[1, 2, 3, 4, 5], [5]]


async def test_row_whose_probe_brings_no_useful_answer_fails_once() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        return [] if question.library_id == 5 else unresolved(question)

    case = Case(range(1, 6), lml=Lml(deadly=some(2), reply=reply))
    assert await case.handle() == all_but({2, 5}, range(1, 6))
    assert case.suspicions == {2: ISOLATED, 5: 0}
    assert asked_of(case.lml.batches)[5] == 2
    assert case.tally.skipped == {Skip.LML_ERROR: 1, Skip.MISMATCH: 1}


async def test_lml_that_dies_during_isolation_is_noticed_by_the_next_larger_call() -> None:
    case = Case(lml=Lml(deadly=some(7)))

    def fault(call: int) -> Exception | None:
        # The first two parts and the whole of the third are about the row.
        return CallInterruptedError("ReadTimeout") if call > 20 else None

    case.lml.fault = fault
    outcome = await case.handle()
    assert type(outcome.fault) is CallInterruptedError
    assert case.circuit.state is BreakerState.OPEN
    # Then the next call in vain, and the rows at both ends.
    assert len(case.lml.batches) <= 20 + 1 + 8 + 3
    assert outcome.settled == frozenset(BATCH)
    blamed = {row for row, suspicion in case.suspicions.items() if suspicion == ISOLATED}
    assert len(blamed) <= 1 + 8 + 2
    assert case.suspects == outcome.failed - blamed


async def test_row_that_brings_lml_down_is_suspect_with_its_batch() -> None:
    case = Case(range(1, 6))
    faults = [CallInterruptedError("LML answered 502"), LmlUnavailableError("ConnectError")]
    case.lml.fault = lambda call: faults[call - 1]
    outcome = await case.handle()
    assert outcome.fault is faults[1]
    assert len(case.lml.batches) == 2
    assert outcome.settled == outcome.failed == case.suspects == frozenset(range(1, 6))
    assert case.circuit.state is BreakerState.OPEN


async def test_nothing_is_probed_while_the_circuit_has_failures() -> None:
    case = Case(lml=Lml(deadly=some(7)))
    case.circuit.failed(LmlUnavailableError("ConnectError"))
    await case.handle()
    assert case.lml.batches == [list(BATCH)]
    assert case.suspects == frozenset(BATCH)
    assert case.circuit.state is BreakerState.OPEN


async def test_interrupted_suspects_are_split_once_others_were_answered() -> None:
    rows = range(1, 251)
    library = Library(failing=dict.fromkeys(rows, failing(suspicion=SUSPECT)))
    case = Case([], library, Lml(deadly=some(250)))
    case.circuit.answered()
    outcome = await case.retry(*rows)
    assert [len(batch) for batch in case.lml.batches] == [100, 100, 50, *[7] * 7, 1]
    # Calls about suspects are not repeated at once.
    assert set(case.lml.once) == {True}
    assert outcome == all_but({250}, rows)
    assert case.suspicions == {250: ISOLATED}
    assert case.circuit.state is BreakerState.CLOSED
    assert case.tally.scanned == 250


@pytest.mark.parametrize("size", [2, 8])
async def test_few_suspects_that_are_all_to_blame_are_isolated_at_once(size: int) -> None:
    rows = range(1, size + 1)
    library = Library(failing=dict.fromkeys(rows, failing(suspicion=SUSPECT)))
    case = Case([], library, Lml(deadly=frozenset(rows)))
    case.circuit.answered()
    assert await case.retry(*rows) == all_but(rows, rows)
    assert set(case.suspicions.values()) == {ISOLATED}
    assert case.circuit.state is BreakerState.CLOSED


async def test_many_suspects_that_are_all_to_blame_are_isolated_bit_by_bit() -> None:
    rows = range(1, 41)
    library = Library(failing=dict.fromkeys(rows, failing(suspicion=SUSPECT)))
    case = Case([], library, Lml(deadly=frozenset(rows)))
    case.circuit.answered()
    outcome = await case.retry(*rows)
    # LML may have gone down since the others were answered.
    assert type(outcome.fault) is CallInterruptedError
    assert outcome.failed - case.suspects == {1, 40}
    assert outcome.settled == frozenset(rows)
    assert case.lml.batches == [list(rows), [1, 2, 3, 4, 5], [40], [1]]


async def test_isolated_rows_are_asked_alone() -> None:
    rows = range(1, 26)
    library = Library(failing=dict.fromkeys(rows, failing(suspicion=ISOLATED)))
    case = Case([], library, Lml(deadly=some(25)))
    case.circuit.answered()
    assert await case.retry(*rows) == all_but({25}, rows)
    assert case.lml.batches == [[row] for row in rows]
    assert set(case.lml.once) == {True}
    assert case.suspicions == {25: ISOLATED}
    assert case.circuit.state is BreakerState.CLOSED


async def test_suspects_wait_until_the_others_of_their_batch_are_answered() -> None:
    library = Library(failing={1: failing(suspicion=ISOLATED), 2: failing(suspicion=SUSPECT)})
    case = Case(range(1, 5), library)
    await case.handle()
    assert case.lml.batches == [[3, 4], [2], [1]]
    assert case.lml.once == [False, True, True]


async def test_answer_within_the_batch_blames_a_later_interruption_on_its_rows() -> None:
    library = Library(failing={1: failing(suspicion=SUSPECT)})
    case = Case([1, 2], library, Lml(deadly=some(1)))
    assert await case.handle() == all_but({1}, [1, 2])
    assert case.suspicions == {1: ISOLATED}
    assert case.circuit.failures == 0


async def test_answer_within_a_call_that_takes_long_counts_for_it() -> None:
    # The call takes longer than the time since the last failure.
    failed = failing(suspicion=SUSPECT, ago=timedelta(seconds=1))
    case = Case([], Library(failing={1: failed}), SlowLml(deadly=some(1)))
    async with asyncio.TaskGroup() as tasks:
        retrying = tasks.create_task(case.retry(1))
        await for_a_while(0.5)
        case.circuit.answered()
    assert retrying.result().fault is None
    assert case.suspicions == {1: ISOLATED}
    assert case.circuit.failures == 0


async def test_answer_before_the_last_failure_of_a_suspect_shows_nothing() -> None:
    failed = failing(suspicion=SUSPECT, ago=timedelta(seconds=30))
    case = Case([], Library(failing={1: failed, 2: failed}), Lml(deadly=some(1, 2)))
    case.circuit.answered()
    await for_a_while(31.0)
    outcome = await case.retry(1, 2)
    assert type(outcome.fault) is CallInterruptedError
    assert case.circuit.state is BreakerState.OPEN
    # LML may be at fault, so no row becomes more suspect.
    assert case.suspicions == {1: SUSPECT, 2: SUSPECT}


async def test_trial_that_is_interrupted_blames_no_suspect_though_others_were_answered() -> None:
    failed = failing(suspicion=SUSPECT, ago=timedelta(seconds=30))
    case = Case([], Library(failing={1: failed}), Lml(deadly=some(1)))
    case.circuit.answered()
    # LML may have gone down since.
    case.circuit.failed(LmlUnavailableError("ConnectError"))
    outcome = await case.retry(1)
    assert type(outcome.fault) is CallInterruptedError
    assert case.suspicions == {1: SUSPECT}


async def test_row_whose_call_is_interrupted_alone_is_not_to_blame_for_it_at_first() -> None:
    case = Case([1], lml=Lml(deadly=some(1)))
    case.circuit.answered()
    outcome = await case.handle()
    assert type(outcome.fault) is CallInterruptedError
    assert case.suspicions == {1: SUSPECT}


async def test_interrupted_call_that_also_holds_fresh_rows_may_be_lmls_fault() -> None:
    library = Library(failing={1: failing(suspicion=0)})
    case = Case([], library, Lml(deadly=some(1)))
    case.circuit.answered()
    outcome = await case.retry(1)
    assert type(outcome.fault) is CallInterruptedError
    assert case.circuit.state is BreakerState.OPEN


@pytest.mark.parametrize("answered_before", [True, False])
async def test_outage_is_never_blamed_on_a_row(answered_before: bool) -> None:
    down = False

    def fault(call: int) -> Exception | None:
        return CallInterruptedError("ReadTimeout") if down else None

    case = Case([1], lml=Lml(fault=fault))
    case.library.ledger = case.verdicts.ledger
    if answered_before:
        await case.handle()
    down, rows = True, range(2, 252)
    for number in range(30):
        calls = len(case.lml.batches)
        await for_a_while(60.0)
        assert type((await case.retry(*rows)).fault) is CallInterruptedError
        # Asking about two of them alone is worthwhile only the first time.
        assert len(case.lml.batches) == calls + (1 if number else 3)
    assert set(case.suspicions.values()) == {SUSPECT}
    assert not any(failure.retry.parked for failure in case.verdicts.failed.values())
    down = False
    calls = len(case.lml.batches)
    assert await case.retry(*rows) == BatchOutcome(settled=frozenset(rows))
    assert len(case.lml.batches) - calls == 3
    assert not case.verdicts.ledger.entries


async def test_answers_before_an_interrupted_call_stay_and_count() -> None:
    case = Case(range(1, 150), Library(compilations=frozenset(range(10, 150))))
    case.lml.deadly = frozenset(range(110, 150))
    outcome = await case.handle()
    assert case.verdicts.written.keys() == set(range(1, 110))
    assert outcome.settled == frozenset(range(1, 150))
    assert case.suspects == outcome.failed == frozenset(range(110, 150))
    assert isinstance(outcome.fault, CallInterruptedError)
    assert not case.waiting
    assert (case.tally.unresolved, case.tally.skipped) == (109, {Skip.LML_ERROR: 40})


async def test_suspect_with_a_new_question_is_late_and_counts() -> None:
    case = Case(range(1, 4), lml=Lml(deadly=some(1, 2, 3)))
    case.verdicts.superseded = some(2)
    outcome = await case.handle()
    assert (outcome.late, outcome.failed) == (some(2), some(1, 3))
    assert case.waiting == {2}
    assert case.tally.skipped == {Skip.LML_ERROR: 3}


async def test_failure_whose_ledger_row_is_locked_is_late_and_the_others_are_recorded(
    logged: Logged,
) -> None:
    poison = frozenset(range(1, 501, 50))
    case = Case(lml=Lml(poison=poison))
    case.verdicts.unrecordable = some(151)
    outcome = await case.handle()
    assert outcome.fault is None
    assert outcome.failed == poison - {151}
    assert outcome.settled == frozenset(BATCH) - {151}
    assert outcome.late == some(151)
    assert case.waiting == {151}
    assert case.verdicts.failed.keys() == poison - {151}
    entries = [event for event in logged if event["event"] == "cannot record failures"]
    assert [(event["rows"], event["reason"]) for event in entries] == [
        (1, "canceling statement due to lock timeout")
    ]


async def test_suspect_whose_ledger_row_is_locked_is_late_and_the_circuit_opens() -> None:
    case = Case(range(1, 4), lml=Lml(deadly=some(1, 2, 3)))
    case.verdicts.unrecordable = some(2)
    outcome = await case.handle()
    assert type(outcome.fault) is CallInterruptedError
    assert outcome.late == some(2)
    assert case.suspects == {1, 3}
    assert case.waiting == {2}
    assert case.circuit.state is BreakerState.OPEN


OUTCOMES = [
    "gone",
    "nameless",
    "answered",
    "poison",
    "unstorable",
    "superseded",
    "locked",
    "unreadable",
]
REPLIES = ["missing", "invalid", "contradicted", "foreign", *Kind]


@given(st.lists(st.sampled_from(OUTCOMES + REPLIES), min_size=1, max_size=30))
def test_every_row_is_counted_once_and_kept_unless_it_is_settled(outcomes: list[str]) -> None:
    by = {
        outcome: frozenset(row for row, of in enumerate(outcomes, 1) if of == outcome)
        for outcome in OUTCOMES + REPLIES
    }

    def reply(question: Question) -> list[Verdict | Invalid]:
        row = question.library_id
        match outcomes[row - 1]:
            case "missing":
                return []
            case "invalid":
                return [Invalid(row, "kind: enum")]
            case "contradicted":
                return [Verdict(row, Kind.UNRESOLVED), Verdict(row, Kind.COMPILATION)]
            case "foreign":
                return [Verdict(-row, Kind.UNRESOLVED), Verdict(row, Kind.UNRESOLVED)]
            case Kind.COMPILATION | Kind.UNRESOLVED as kind:
                return [Verdict(row, Kind(kind))]
            case _:
                return [single_artist(row, skipped_sources=1)]

    library = Library(by["answered"], by["nameless"], by["gone"], unreadable=by["unreadable"])
    rows = range(1, len(outcomes) + 1)
    case = Case(rows, library, Lml(by["poison"], reply))
    case.verdicts.unstorable = by["unstorable"]
    case.verdicts.superseded = by["superseded"]
    case.verdicts.locked = by["locked"]
    outcome = virtually(case.handle())
    if len(by["unreadable"]) == len(rows):
        assert isinstance(outcome.fault, StoreRefusedError)
        return
    failed = frozenset().union(*(by[o] for o in (*FAILING, "missing", "invalid", "contradicted")))
    assert outcome == BatchOutcome(
        settled=frozenset(rows) - by["superseded"],
        failed=failed,
        unasked=by["gone"] | by["nameless"] | by["answered"],
        late=by["superseded"],
    )
    assert case.waiting == by["superseded"]
    tally = case.tally
    assert tally.scanned == len(rows)
    assert tally.scanned == tally.resolved + tally.unresolved + tally.skipped.total()
    assert tally.resolved == len(by[Kind.SINGLE_ARTIST])
    assert tally.unresolved == len(by[Kind.UNRESOLVED] | by["foreign"])
    # Each part of a batch is judged separately.
    untrusted = tally.skipped[Skip.UNTRUSTED]
    assert untrusted <= min(len(by["missing"]), len(by["foreign"]))
    divided = by["poison"] or by["unreadable"]
    assert untrusted == min(len(by["missing"]), len(by["foreign"])) or divided
    expected = Counter(
        {
            Skip.COMPILATION: len(by[Kind.COMPILATION]),
            Skip.NULL_ARTIST: len(by["nameless"]),
            Skip.GONE: len(by["gone"]),
            Skip.ALREADY_ANSWERED: len(by["answered"]),
            Skip.SUPERSEDED: len(by["superseded"]),
            Skip.MISMATCH: len(by["missing"]) - untrusted,
            Skip.UNTRUSTED: untrusted,
            Skip.INVALID: len(by["invalid"] | by["contradicted"]),
            Skip.LML_ERROR: len(by["poison"]),
            Skip.WRITER_ERROR: len(by["unstorable"] | by["locked"] | by["unreadable"]),
        }
    )
    assert +tally.skipped == +expected
    assert case.circuit.failures == 0


FAILING = ("poison", "unstorable", "locked", "unreadable")


async def test_no_call_asks_more_than_a_few_compilations_at_once() -> None:
    case = Case(range(1, 401), Library(compilations=frozenset(range(1, 251))))
    assert await case.handle() == BatchOutcome(settled=frozenset(range(1, 401)))
    assert case.lml.batches == [
        list(range(251, 401)),
        list(range(1, 101)),
        list(range(101, 201)),
        list(range(201, 251)),
    ]
    assert case.lml.with_tracks == [False, True, True, True]
    assert case.tally.lml_calls == 4


async def test_few_compilations_among_others_are_handed_back_unasked() -> None:
    library = Library(compilations=frozenset(range(1, 131)))
    case = Case(range(1, 401), library, defer_compilations=True)
    handled = await case.handle()
    assert handled.deferred == frozenset(range(101, 131))
    assert handled.settled == frozenset(range(1, 401)) - handled.deferred
    assert [len(batch) for batch in case.lml.batches] == [270, 100]
    assert case.tally.scanned == 370
    assert case.waiting == set(handled.deferred)
    again = await case.handle()
    assert (again.settled, again.deferred) == (handled.deferred, frozenset())
    assert case.lml.with_tracks == [False, True, True]
    assert case.tally.scanned == 400


async def test_without_tracks_nothing_is_deferred() -> None:
    library = Library(compilations=frozenset({3}))
    case = Case(range(1, 11), library, include_tracks=IncludeTracks.OFF, defer_compilations=True)
    assert not (await case.handle()).deferred
    assert len(case.lml.batches) == 1


async def test_compilations_alone_cost_no_call_for_the_others() -> None:
    case = Case(range(1, 251), Library(compilations=frozenset(range(1, 251))))
    await case.handle()
    assert [len(batch) for batch in case.lml.batches] == [100, 100, 50]


async def test_without_tracks_few_compilations_among_others_cost_no_call_of_their_own() -> None:
    library = Library(compilations=frozenset({3, 7}))
    case = Case(range(1, 11), library, Lml(frozenset({7})), IncludeTracks.OFF)
    assert await case.handle() == all_but({7}, range(1, 11))
    assert sorted(case.lml.batches[0]) == list(range(1, 11))
    assert not any(case.lml.with_tracks)


async def test_lone_compilation_is_one_call_with_tracks() -> None:
    case = Case([7], Library(compilations=frozenset({7})))
    await case.handle()
    assert (case.lml.batches, case.lml.with_tracks) == ([[7]], [True])


async def test_tracks_of_all_rows_are_requested_in_small_batches() -> None:
    library = Library(compilations=frozenset(range(1, 11)))
    case = Case(range(1, 251), library, include_tracks=IncludeTracks.ALL)
    await case.handle()
    assert [len(batch) for batch in case.lml.batches] == [100, 100, 50]
    assert case.lml.with_tracks == [True] * 3


async def test_batch_that_lml_cannot_answer_with_tracks_is_asked_without() -> None:
    def fault(call: int) -> Exception | None:
        return TracksRefusedError("LML answered 500") if call == 1 else None

    rows = frozenset(range(1, 101))
    case = Case(rows, Library(compilations=rows), Lml(reply=compilation, fault=fault))
    with capture_logs() as logs:
        assert await case.handle() == BatchOutcome(settled=rows)
    assert case.lml.batches == [sorted(rows)] * 2
    assert case.lml.with_tracks == [True, False]
    assert case.tally.skipped == {Skip.COMPILATION: 100}
    assert [(line["event"], line["questions"]) for line in logs] == [("asking without tracks", 100)]


async def test_batch_that_lml_refuses_without_tracks_too_is_split_without() -> None:
    def fault(call: int) -> Exception | None:
        return TracksRefusedError("LML answered 500") if call == 1 else None

    rows = frozenset(range(1, 9))
    lml = Lml(frozenset({5}), reply=compilation, fault=fault)
    case = Case(rows, Library(compilations=rows), lml)
    assert await case.handle() == all_but({5}, rows)
    assert case.lml.with_tracks == [True] + [False] * (len(case.lml.batches) - 1)
    assert case.tally.skipped == {Skip.COMPILATION: 7, Skip.LML_ERROR: 1}


async def test_batch_refused_for_one_of_its_rows_keeps_asking_for_tracks() -> None:
    rows = frozenset(range(1, 9))
    case = Case(rows, Library(compilations=rows), Lml(frozenset({5}), reply=compilation))
    assert await case.handle() == all_but({5}, rows)
    assert all(case.lml.with_tracks)


async def test_visited_compilations_are_counted_separately() -> None:
    case = Case(
        range(1, 5),
        Library(compilations=frozenset({1, 2, 3})),
        Lml(reply=lambda q: compilation(q, visited=q.library_id in {1, 2})),
    )
    case.verdicts.superseded = frozenset({2})
    case.verdicts.tracks = lambda row: Counter({TrackCount.ROWS_WRITTEN: row * 3})
    await case.handle()
    assert case.tally.resolved_compilations == 1
    assert case.tally.skipped == {Skip.COMPILATION: 2, Skip.SUPERSEDED: 1}
    assert case.tally.scanned == 4
    # Nothing is counted for verdicts that were not written.
    assert case.tally.tracks == {
        TrackCount.ENTRIES_INVALID: 2,
        TrackCount.CONFIDENCES_INVALID: 1,
        TrackCount.ROWS_WRITTEN: 3,
    }


@pytest.mark.parametrize(("unmatched", "warnings"), [(10, 1), (9, 0), (20, 1)])
async def test_batch_whose_credits_match_few_rows_is_logged(unmatched: int, warnings: int) -> None:
    case = Case([1, 2], Library(compilations=frozenset({1, 2})), Lml(reply=compilation_of_ten))
    missed = {1: unmatched // 2 + unmatched % 2, 2: unmatched // 2}
    case.verdicts.tracks = lambda row: Counter({TrackCount.ROWS_NO_MATCH: missed[row]})
    with capture_logs() as logs:
        await case.handle()
    drifts = [
        line for line in logs if line["event"].startswith("many credits from LML match no row")
    ]
    assert len(drifts) == warnings
    for line in drifts:
        assert (line["credits"], line["unmatched"], line["rows"]) == (20, unmatched, [1, 2])
        assert "Artist" not in str(line)


async def test_another_failure_adds_to_those_of_the_same_question() -> None:
    library = Library(failing={2: failing(1), 3: failing(6)})
    case = Case([1, 2, 3], library, Lml(reply=lambda question: []))
    assert await case.handle() == all_but({1, 2, 3}, [1, 2, 3])
    assert {row: failure.retry for row, failure in case.verdicts.failed.items()} == {
        1: Retry(1, timedelta(seconds=5)),
        2: Retry(2, timedelta(seconds=10)),
        # No other row is answered, so LML may be at fault.
        3: Retry(7, timedelta(minutes=5)),
    }
    assert not case.waiting


async def test_row_that_fails_among_others_waits_up_to_an_hour() -> None:
    library = Library(failing={2: failing(20)})
    case = Case([1, 2], library, Lml(reply=lambda q: unresolved_but(q, 2)))
    case.circuit.answered()
    await case.handle()
    assert case.verdicts.failed[2].retry == Retry(21, timedelta(hours=1))


def unresolved_but(question: Question, *rows: int) -> list[Verdict | Invalid]:
    row = question.library_id
    return [] if row in rows else [Verdict(row, Kind.UNRESOLVED)]


async def test_row_that_failed_for_hours_while_others_were_answered_is_parked(
    logged: Logged,
) -> None:
    long = failing(2, lasting=timedelta(hours=4))
    case = Case([1, 2, 2, 3], Library(failing={2: long}), Lml(some(1, 2)))
    case.circuit.answered()
    assert await case.handle() == all_but({1, 2}, [1, 2, 3])
    assert case.verdicts.failed[2].reason is Skip.LML_ERROR
    assert case.verdicts.failed[2].retry == Retry(3, timedelta(days=180), parked=True)
    assert not case.verdicts.failed[1].retry.parked
    assert not case.waiting
    assert case.tally.skipped == {Skip.LML_ERROR: 2}
    (entry,) = (event for event in logged if event["event"] == "row parked")
    assert (entry["library_id"], entry["failures"]) == (2, 3)


async def test_row_is_not_parked_while_nothing_else_is_answered() -> None:
    long = failing(99, lasting=timedelta(days=9))
    case = Case([1, 2], Library(failing=dict.fromkeys((1, 2), long)), Lml(some(1, 2)))
    await case.handle()
    assert not any(failure.retry.parked for failure in case.verdicts.failed.values())


async def test_row_whose_verdict_could_not_be_written_was_not_answered() -> None:
    long = failing(99, lasting=timedelta(days=9))
    case = Case([1, 2], Library(failing={2: long}), Lml(some(2)))
    case.verdicts.unstorable = some(1)
    await case.handle()
    assert not case.verdicts.failed[2].retry.parked


async def test_failures_are_recorded_with_the_order_and_changes_of_their_rows() -> None:
    case = Case([1, 2, 1], Library(order=41), Lml(frozenset({1})))
    await case.handle()
    assert case.verdicts.fail_calls == [(42, [1], [(1, 1), (3, 1)])]
    assert case.verdicts.failed[1].digest == b"1"


async def test_long_detail_is_cut() -> None:
    detail = "".join(chr(ord("a") + position % 26) for position in range(1000))
    case = Case([1], lml=Lml(fault=lambda call: BatchRefusedError(detail)))
    await case.handle()
    assert case.verdicts.failed[1].detail == detail[:300]


async def test_row_locked_by_another_session_is_recorded_as_failed() -> None:
    case = Case([1, 2, 3, 4], Library(failing={3: failing(2, suspicion=0)}))
    case.verdicts.locked = some(2, 3)
    assert await case.handle() == all_but({2, 3}, [1, 2, 3, 4])
    assert {(f.reason, f.detail, f.suspicion) for f in case.verdicts.failed.values()} == {
        (Skip.WRITER_ERROR, "locked by another session", 0)
    }
    assert {row: f.retry.failures for row, f in case.verdicts.failed.items()} == {2: 1, 3: 3}
    assert not case.waiting
    assert case.tally.skipped == {Skip.WRITER_ERROR: 2}
    assert case.tally.scanned == 4


async def test_batch_whose_rows_are_all_locked_shows_no_answer() -> None:
    case = Case([1])
    case.verdicts.locked = some(1)
    await case.handle()
    assert not case.circuit.answered_since(timedelta(hours=1))
    case.verdicts.locked = some()
    await case.retry(1)
    assert case.circuit.answered_since(timedelta(hours=1))


async def test_row_that_can_never_be_written_counts_as_failed() -> None:
    case = Case([1, 2, 3], Library(failing={2: failing(2)}))
    case.verdicts.unstorable = frozenset({2, 3})
    assert await case.handle() == all_but({2, 3}, [1, 2, 3])
    assert {row: f.retry.failures for row, f in case.verdicts.failed.items()} == {2: 3, 3: 1}
    assert case.verdicts.failed[3].detail == "value too long"


async def test_row_that_fails_while_it_changes_is_late_and_keeps_its_changes() -> None:
    case = Case([1, 2], lml=Lml(some(2)))
    case.verdicts.superseded = some(2)
    assert await case.handle() == BatchOutcome(settled=some(1), late=some(2))
    assert case.waiting == {2}
    assert case.tally.scanned == 2


async def test_contradictory_answers_are_never_mistaken_for_an_outage() -> None:
    artist = frozenset(range(201, 241))

    def reply(question: Question) -> list[Verdict | Invalid]:
        row = question.library_id
        if row in artist:
            return [Verdict(row, Kind.UNRESOLVED), Verdict(row, Kind.COMPILATION)]
        return [Verdict(row, Kind.UNRESOLVED)]

    case = Case(lml=Lml(reply=reply))
    case.library.ledger = case.verdicts.ledger
    assert await case.handle() == all_but(artist)
    assert len(case.lml.batches) == 1
    assert {failure.reason for failure in case.verdicts.failed.values()} == {Skip.INVALID}
    assert set(case.suspicions.values()) == {0}
    # And once more without any other row.
    for failures in range(2, 6):
        await for_a_while(400.0)
        assert await case.retry(*artist) == all_but(artist, artist)
        assert {f.retry.failures for f in case.verdicts.failed.values()} == {failures}
    assert case.circuit.state is BreakerState.CLOSED
    assert len(case.lml.batches) == 5


@pytest.mark.parametrize("size", [9, 10, 11, 500])
async def test_reply_without_any_usable_answer_fails_each_row(size: int) -> None:
    rows = range(1, size + 1)
    case = Case(rows, lml=Lml(reply=lambda question: [Invalid(question.library_id, "kind: enum")]))
    assert await case.handle() == all_but(rows, rows)
    assert case.verdicts.failed.keys() == set(rows)
    assert case.tally.skipped == {Skip.INVALID: size}
    assert len(case.lml.batches) == 1
    assert case.circuit.failures == 0


async def test_reply_with_one_usable_answer_to_many_questions_fails_the_others() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        return [Verdict(7, Kind.UNRESOLVED)] if question.library_id == 7 else []

    case = Case(lml=Lml(reply=reply))
    others = frozenset(BATCH) - {7}
    assert await case.handle() == all_but(others)
    assert case.verdicts.failed.keys() == others


async def test_rows_not_tried_when_lml_went_down_are_not_counted() -> None:
    def fault(call: int) -> Exception | None:
        return LmlUnavailableError("ConnectError") if call == 2 else None

    library = Library(
        answered=frozenset({1}), gone=frozenset({2}), compilations=frozenset(range(6, 110))
    )
    case = Case(range(1, 110), library, Lml(fault=fault))
    outcome = await case.handle()
    assert outcome.settled == some(1, 2, 3, 4, 5)
    assert isinstance(outcome.fault, LmlUnavailableError)
    assert case.waiting == set(range(6, 110))
    assert case.tally.unresolved == 3
    assert case.tally.skipped == {Skip.ALREADY_ANSWERED: 1, Skip.GONE: 1}
    assert case.tally.scanned == 5
    assert case.tally.lml_calls == 2


async def test_latency_excludes_the_wait_for_a_permit() -> None:
    case = Case(range(1, 5), lml=SlowLml(frozenset({3})))
    async with asyncio.TaskGroup() as tasks:
        async with case.permits.hold(Priority.CHANGE), case.permits.hold(Priority.CHANGE):
            handling = tasks.create_task(case.handle())
            await for_a_while(60.0)
            assert not case.lml.batches
        await handling
    # Refused calls took time, too.
    assert len(case.lml.batches) == case.tally.lml_calls == 5
    assert case.tally.lml_latency.total_seconds() == pytest.approx(10.0, abs=0.01)


async def test_latency_includes_the_call_that_found_lml_down() -> None:
    case = Case([1], lml=SlowLml(fault=lambda call: LmlUnavailableError("ReadTimeout")))
    await case.handle()
    assert case.tally.lml_latency.total_seconds() == pytest.approx(2.0, abs=0.01)


async def test_odd_verdicts_are_written_and_logged_once_per_kind() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        identity = Identity("oracle", 0.9, None, None, None, ())
        return [Verdict(question.library_id, Kind.SINGLE_ARTIST, identity)]

    case = Case(range(5), lml=Lml(reply=reply))
    with capture_logs() as logs:
        await case.handle()
    assert case.tally.resolved == 5
    assert [entry["what"] for entry in logs if entry["event"] == "odd verdict, logged once"] == [
        "method 'oracle'"
    ]


async def test_kinds_of_oddities_are_bounded() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        identity = Identity(f"oracle {question.library_id}", 0.9, None, None, None, ())
        return [Verdict(question.library_id, Kind.SINGLE_ARTIST, identity)]

    case = Case(lml=Lml(reply=reply))
    with capture_logs() as logs:
        await case.handle()
    assert sum(entry["event"] == "odd verdict, logged once" for entry in logs) == 100


async def test_lml_is_asked_no_faster_than_its_answers_are_written() -> None:
    """However many calls are allowed, few replies are in memory and few sessions are used."""
    rows = range(40)
    case = Case(rows)
    case.permits, writing = Permits(8), Permits(2)
    case.resolver.writing = lambda: writing.hold(Priority.CHANGE)
    case.resolver.verdicts = slow = SlowVerdicts(case.outbox)
    async with asyncio.TaskGroup() as tasks:
        for row in rows:
            tasks.create_task(case.retry(row))
        await for_a_while(30.0)
        assert len(case.lml.batches) == 8 + 2
    assert len(slow.written) == len(rows)
    assert slow.most == 2


async def test_few_batches_are_read_ahead_of_their_calls() -> None:
    """However many batches wait for a call, few hold questions, which grow old."""
    rows = range(40)
    case = Case(rows, library=Library(answered=some(7), unreadable=some(8)))
    ahead = Permits(2)
    case.resolver.ahead = lambda: ahead.hold(Priority.CHANGE)
    case.permits = Permits(1)
    async with asyncio.TaskGroup() as tasks, case.permits.hold(Priority.CHANGE):
        for row in rows:
            tasks.create_task(case.retry(row))
        await for_a_while(60.0)
        assert case.library.order == 2
        assert not case.lml.batches
    assert case.library.order == 40
    assert len(case.lml.batches) == 38
    assert not ahead.in_flight


async def test_batch_is_read_and_settled_while_others_wait_for_their_calls() -> None:
    case = Case(range(10), library=Library(gone=some(9)))
    ahead, reading = Permits(2), Permits(1)
    search = replace(case.resolver, ahead=lambda: ahead.hold(Priority.CHANGE))
    for resolver in (search, case.resolver):
        resolver.reading = lambda: reading.hold(Priority.CHANGE)
    case.permits = Permits(1)
    async with asyncio.TaskGroup() as tasks, case.permits.hold(Priority.CHANGE):
        for row in range(9):
            tasks.create_task(search.handle(Batch({row: ()})))
        await for_a_while(60.0)
        assert (await case.retry(9)).settled == some(9)
        assert not case.lml.batches
    assert len(case.lml.batches) == 9
