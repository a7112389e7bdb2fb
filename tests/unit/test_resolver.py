"""Getting library rows their verdicts, whatever LML and the database say to some of them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from listener.domain.asking import IncludeTracks
from listener.domain.change import Batch
from listener.domain.faults import (
    CallBrokenOffError,
    LmlUnavailableError,
    PageRefusedError,
    RowsBreakOffError,
    StoreUnavailableError,
    TracksRefusedError,
    WriteRefusedError,
)
from listener.domain.judging import Invalid
from listener.domain.parking import Failure, Patience
from listener.domain.question import Question
from listener.domain.suspects import Suspects
from listener.domain.tally import Skip
from listener.domain.tracks import TrackCount, TrackKey, Tracks
from listener.domain.verdict import Identity, Kind, Page, Verdict, Written
from listener.engine.handling import Handled
from listener.engine.permits import Permits
from listener.engine.resolver import Resolver, ResolverLimits
from tests.unit.clock import for_a_while
from tests.unit.fakes import Library, Lml, Outbox, Verdicts

PAGE = range(1, 501)


@dataclass
class LockedVerdicts(Verdicts):
    """Refuses, for now, every page that holds a row on which somebody has a lock.

    `fail_calls` holds the order, rows and entries that failures were recorded with.
    """

    locked: frozenset[int] = frozenset()
    fail_calls: list[tuple[int, list[int], list[tuple[int, int]]]] = field(default_factory=list)

    async def write(self, page: Page) -> Written:
        if any(verdict.library_id in self.locked for verdict in page.verdicts):
            message = "canceling statement due to lock timeout"
            raise WriteRefusedError(message, passing=True)
        return await super().write(page)

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> None:
        rows = [failure.question.library_id for failure in failures]
        self.fail_calls.append((order, rows, list(entries)))
        await super().fail(order, failures, entries)


class SlowLml(Lml):
    """Takes two seconds for each page."""

    async def resolve(self, questions: Sequence[Question]) -> Sequence[Verdict | Invalid]:
        await asyncio.sleep(2.0)
        return await super().resolve(questions)


class Case:
    """A resolver between a library, LML and a database of its own."""

    def __init__(
        self,
        rows: Iterable[int] = PAGE,
        library: Library | None = None,
        lml: Lml | None = None,
        include_tracks: IncludeTracks = IncludeTracks.COMPILATIONS,
        *,
        sets_apart: bool = False,
    ) -> None:
        self.outbox = Outbox()
        self.outbox.record(*rows)
        self.library = library or Library()
        self.lml = lml or Lml()
        self.verdicts = LockedVerdicts(self.outbox)
        self.permits = Permits(2)
        self.resolver = Resolver(
            library=self.library,
            lml=self.lml,
            verdicts=self.verdicts,
            outbox=self.outbox,
            permit=self.permits.live,
            limits=ResolverLimits(100, Patience(attempts=3), include_tracks, sets_apart=sets_apart),
            suspects=Suspects(),
        )
        self.tally = self.resolver.tally

    async def handle(self) -> Handled:
        rows: dict[int, tuple[int, ...]] = {}
        for seq, row in self.outbox.entries.items():
            rows[row] = (*rows.get(row, ()), seq)
        return await self.resolver.handle(Batch(rows))

    @property
    def waiting(self) -> set[int]:
        return set(self.outbox.entries.values())


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


async def test_page_without_trouble_is_one_question_and_one_write() -> None:
    case = Case()
    handled = await case.handle()
    assert handled == Handled(settled=frozenset(PAGE))
    assert (len(case.lml.pages), len(case.verdicts.pages)) == (1, 1)
    assert not case.waiting


async def test_page_carries_the_order_and_the_questions_it_was_read_with() -> None:
    case = Case([7, 7, 8], Library(order=41))
    await case.handle()
    page = case.verdicts.pages[0]
    assert page.order == 42
    assert {row: question.album_title for row, question in page.questions.items()} == {
        7: "Album 7",
        8: "Album 8",
    }
    assert page.entries == [(1, 7), (2, 7), (3, 8)]


async def test_gone_nameless_and_answered_rows_are_settled_without_asking() -> None:
    library = Library(frozenset({1}), frozenset({2, 3}), frozenset({4}))
    case = Case([1, 2, 3, 4, 4], library)
    rows = frozenset({1, 2, 3, 4})
    assert await case.handle() == Handled(settled=rows, unasked=rows)
    assert not case.lml.pages
    assert not case.waiting
    assert case.tally.skipped == {Skip.ALREADY_ANSWERED: 1, Skip.NULL_ARTIST: 2, Skip.GONE: 1}


async def test_rows_without_a_question_do_not_hold_the_others_up() -> None:
    case = Case([1, 2, 3], Library(gone=frozenset({2})))
    assert await case.handle() == Handled(settled=frozenset({1, 2, 3}), unasked=frozenset({2}))
    assert case.lml.pages == [[1, 3]]


async def test_superseded_rows_are_late_and_keep_their_changes() -> None:
    case = Case([1, 2, 3])
    case.verdicts.superseded = frozenset({2})
    assert await case.handle() == Handled(settled=frozenset({1, 3}), late=frozenset({2}))
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


async def test_what_became_of_identities_is_counted_beside_the_rows() -> None:
    case = Case(range(1, 13))
    case.verdicts.withdrawn = frozenset((3, 4))
    case.verdicts.unstorable = frozenset((12,))
    with capture_logs() as logs:
        await case.handle()
    # Each page that was written counts, and none that was refused.
    answered = [{verdict.library_id for verdict in page.verdicts} for page in case.verdicts.pages]
    pages = sum(12 not in rows for rows in answered)
    tally = case.tally
    assert (tally.identities_withdrawn, tally.kept_manual) == (2, pages)
    assert tally.resolved_now_unresolved == 2 * pages
    assert tally.scanned == 12
    told = [entry["rows"] for entry in logs if entry["event"].startswith("identities withdrawn")]
    assert told == [[3, 4]]


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
        handled = await case.handle()
    assert handled == Handled(settled=frozenset({4, 5}), failed=frozenset({1, 2, 3}))
    (told,) = (log for log in logs if log["event"] == "rows cannot be answered")
    assert (told["rows"], told["count"]) == ([1, 2, 3], 3)
    assert told["reasons"] == {"lml_untrusted_library_id": 1, "lml_invalid": 2}
    assert case.verdicts.written.keys() == {4, 5}
    assert case.waiting == {1, 2, 3}
    # One answer to a row that was not asked about stands in the place of the one that is missing.
    assert case.tally.skipped == {Skip.UNTRUSTED: 1, Skip.INVALID: 2}
    assert {row: failure.reason for row, failure in case.verdicts.failed.items()} == {
        1: Skip.UNTRUSTED,
        2: Skip.INVALID,
        3: Skip.INVALID,
    }


async def test_reply_that_answers_nobody_writes_nothing() -> None:
    case = Case([1, 2], lml=Lml(reply=lambda question: []))
    assert await case.handle() == Handled(failed=frozenset({1, 2}))
    assert not case.verdicts.pages


@pytest.mark.parametrize("position", [0, 1, 7, 249, 250, 498, 499])
async def test_poison_row_is_found_in_a_few_more_calls(position: int) -> None:
    poison = frozenset({PAGE[position]})
    case = Case(lml=Lml(poison))
    handled = await case.handle()
    assert handled == Handled(settled=frozenset(PAGE) - poison, failed=poison)
    assert len(case.lml.pages) <= 1 + 2 * math.ceil(math.log2(len(PAGE)))
    assert case.tally.lml_calls == len(case.lml.pages)
    assert case.waiting == poison
    assert case.tally.skipped == {Skip.LML_ERROR: 1}
    assert case.tally.scanned == len(PAGE)


@pytest.mark.parametrize("position", [0, 1, 7, 249, 250, 498, 499])
async def test_row_that_lml_fails_at_as_a_whole_is_found_when_its_batch_comes_again(
    position: int,
) -> None:
    deadly = PAGE[position]
    case = Case(lml=Lml(deadly=frozenset({deadly})))
    faults = []
    while case.waiting:
        assert not case.verdicts.failed
        faults.append((await case.handle()).fault)
    # Whole, in hundreds, in tens, alone, and alone again.
    assert len(faults) == 5
    # Until something else was answered it may be LML.
    assert type(faults[0]) is CallBrokenOffError
    assert {type(fault) for fault in faults[2:]} == {RowsBreakOffError}
    assert case.verdicts.written.keys() == set(PAGE) - {deadly}
    failure = case.verdicts.failed[deadly]
    assert (failure.reason, failure.detail) == (Skip.LML_ERROR, "LML answered 502")
    assert (failure.left_to_searches, failure.ask_again) == (True, timedelta(minutes=15))
    assert len(case.lml.pages) <= 1 + 5 + 10 + 10 + 5
    assert case.tally.lml_calls == len(case.lml.pages)
    assert (case.tally.scanned, case.tally.skipped) == (500, {Skip.LML_ERROR: 1})


async def fail_alone(case: Case, deadly: int) -> None:
    """Have rows asked until LML failed at one of them alone."""
    while case.waiting != {deadly}:
        await case.handle()


async def test_row_that_lml_fails_at_is_asked_once_after_another_and_not_before() -> None:
    case = Case(range(1, 4), lml=Lml(deadly=frozenset({3})))
    await fail_alone(case, 3)
    case.lml.pages.clear()
    case.lml.once.clear()
    handled = await case.handle()
    assert handled.settled == {3}
    assert type(handled.fault) is RowsBreakOffError
    control, asked = case.lml.pages
    assert control in ([1], [2])
    assert asked == [3]
    assert case.lml.once == [True, True]


async def test_row_that_lml_fails_at_is_parked_after_its_attempts() -> None:
    case = Case(range(1, 4), lml=Lml(deadly=frozenset({3})))
    await fail_alone(case, 3)
    for failures in range(3):
        case.library.failures = {3: failures}
        case.outbox.record(3)
        await case.handle()
        assert case.verdicts.failed[3].failures == failures + 1
    assert case.verdicts.failed[3].ask_again is None


async def test_change_of_a_row_that_lml_fails_at_is_answered_once_it_can_be() -> None:
    case = Case(range(1, 4), lml=Lml(deadly=frozenset({3})))
    await fail_alone(case, 3)
    await case.handle()
    case.lml.deadly = frozenset()
    case.outbox.record(3)
    assert (await case.handle()).settled == {3}
    assert 3 in case.verdicts.written


@pytest.mark.parametrize("answered_before", [True, False])
async def test_lml_that_is_gone_is_never_held_against_a_row(answered_before: bool) -> None:
    down = False

    def fault(call: int) -> Exception | None:
        return CallBrokenOffError("ReadTimeout") if down else None

    case = Case([1] if answered_before else [], lml=Lml(fault=fault))
    if answered_before:
        await case.handle()
    down = True
    case.outbox.record(*range(2, 252))
    for _ in range(30):
        calls = len(case.lml.pages)
        assert type((await case.handle()).fault) is CallBrokenOffError
        assert len(case.lml.pages) == calls + 1
    assert not case.verdicts.failed
    assert case.waiting == set(range(2, 252))
    down = False
    calls = len(case.lml.pages)
    assert await case.handle() == Handled(settled=frozenset(range(2, 252)))
    # While it was seen that LML answers nothing, nobody became more suspect.
    assert len(case.lml.pages) - calls <= (1 + 3 if answered_before else 250)


async def test_control_that_lml_fails_at_by_now_gives_way_to_another() -> None:
    case = Case([1], lml=Lml())
    for row in (1, 2, 3):
        case.outbox.record(row)
        await case.handle()
    case.lml.deadly = frozenset({1, 3, 8})
    case.outbox.record(8, 9)
    while case.waiting:
        await case.handle()
        assert len(case.lml.pages) < 40
    assert case.verdicts.written.keys() == {1, 2, 3, 9}
    assert case.verdicts.failed.keys() == {8}


async def test_only_control_that_lml_fails_at_by_now_keeps_nobody_from_an_answer() -> None:
    case = Case([7])
    await case.handle()
    case.lml.deadly = frozenset({1, 2, 3, 7})
    case.outbox.record(1, 2, 3)
    await case.handle()
    case.lml.deadly = frozenset({7})
    for _ in range(2):
        await case.handle()
    assert not case.waiting


async def test_control_that_is_refused_tells_nothing() -> None:
    case = Case(range(1, 4), lml=Lml(deadly=frozenset({3})))
    await fail_alone(case, 3)
    case.lml.poison = frozenset({1, 2})
    with capture_logs() as logs:
        assert type((await case.handle()).fault) is CallBrokenOffError
    assert not case.verdicts.failed
    assert [log["event"] for log in logs] == ["LML refuses what it answered before"]


async def test_lml_that_fails_at_all_but_what_it_knows_is_asked_ever_less() -> None:
    case = Case(range(1, 501))
    case.lml.deadly = frozenset(range(2, 501))
    case.outbox.entries = {1: 1}
    await case.handle()
    case.outbox.record(*range(2, 501))
    rows = 0
    while type((await case.handle()).fault) is RowsBreakOffError or rows < 2:
        rows += 1
    assert 35 <= rows <= 42
    assert len(case.verdicts.failed) <= 10


async def test_what_was_answered_before_a_call_broke_off_stays_and_counts() -> None:
    case = Case(range(1, 150), Library(compilations=frozenset(range(10, 150))))
    case.lml.deadly = frozenset({149})
    handled = await case.handle()
    assert handled.settled == frozenset(range(1, 110))
    assert isinstance(handled.fault, CallBrokenOffError)
    assert case.waiting == set(range(110, 150))
    assert case.tally.scanned == case.tally.unresolved == 109


@pytest.mark.parametrize("position", [0, 1, 250, 499])
async def test_row_that_cannot_be_written_is_found_in_a_few_more_writes(position: int) -> None:
    unstorable = frozenset({PAGE[position]})
    case = Case()
    case.verdicts.unstorable = unstorable
    handled = await case.handle()
    assert handled == Handled(settled=frozenset(PAGE) - unstorable, failed=unstorable)
    assert len(case.lml.pages) == 1
    assert len(case.verdicts.pages) <= 1 + 2 * math.ceil(math.log2(len(PAGE)))
    assert case.waiting == unstorable
    assert case.tally.skipped == {Skip.WRITER_ERROR: 1}


@given(st.sampled_from([1, 2, 3, 5, 50, 500, 1000]), st.integers(1, 3), st.randoms())
def test_few_poison_rows_anywhere_are_isolated(size: int, count: int, random: Random) -> None:
    rows = range(1, size + 1)
    poison = frozenset(random.sample(rows, min(count, size)))
    case = Case(rows, lml=Lml(poison))
    handled = asyncio.run(case.handle())
    assert handled == Handled(settled=frozenset(rows) - poison, failed=poison)
    assert len(case.lml.pages) <= 60


@pytest.mark.parametrize("first", [1, 2, 123, 245, 249, 491])
@pytest.mark.parametrize("count", [2, 3, 10])
async def test_neighbouring_poison_rows_are_isolated(first: int, count: int) -> None:
    poison = frozenset(range(first, first + count))
    case = Case(lml=Lml(poison))
    handled = await case.handle()
    assert handled == Handled(settled=frozenset(PAGE) - poison, failed=poison)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
async def test_handful_of_poison_rows_alone_is_not_taken_for_lml_being_down(size: int) -> None:
    rows = range(1, size + 1)
    case = Case(rows, lml=Lml(frozenset(rows)))
    assert await case.handle() == Handled(failed=frozenset(rows))


@pytest.mark.parametrize("size", [50, 500, 1000])
async def test_lml_that_refuses_everything_counts_as_unavailable_soon(size: int) -> None:
    rows = range(1, size + 1)
    case = Case(rows, lml=Lml(frozenset(rows)))
    with pytest.raises(LmlUnavailableError, match="refuse"):
        await case.handle()
    assert len(case.lml.pages) <= 30
    assert not case.verdicts.pages
    assert case.waiting == set(rows)


async def test_lml_that_begins_to_refuse_everything_is_left_alone_soon() -> None:
    def fault(call: int) -> Exception | None:
        return PageRefusedError("LML answered 500") if call > 20 else None

    case = Case(lml=Lml(frozenset({300}), fault=fault))
    case.lml.poison = frozenset({300, 450})
    with pytest.raises(LmlUnavailableError, match="refuse"):
        await case.handle()
    assert len(case.lml.pages) <= 20 + 30


async def test_database_that_refuses_everything_counts_as_unavailable_soon() -> None:
    case = Case()
    case.verdicts.unstorable = frozenset(PAGE)
    with pytest.raises(StoreUnavailableError, match="refuse"):
        await case.handle()
    assert len(case.verdicts.pages) <= 30
    assert case.waiting == set(PAGE)


@pytest.mark.parametrize("rows", [range(100, 108), range(1, 501, 50)])
async def test_handful_of_rows_that_cannot_be_written_fail_alone(rows: range) -> None:
    unstorable = frozenset(rows)
    case = Case()
    case.verdicts.unstorable = unstorable
    handled = await case.handle()
    assert handled == Handled(settled=frozenset(PAGE) - unstorable, failed=unstorable)


async def test_what_was_written_before_lml_went_away_stays() -> None:
    def fault(call: int) -> Exception | None:
        return LmlUnavailableError("ConnectError") if call == 3 else None

    case = Case(range(1, 5), lml=Lml(frozenset({4}), fault=fault))
    with pytest.raises(LmlUnavailableError):
        await case.handle()
    assert case.verdicts.written.keys() == {1, 2}
    assert case.waiting == {3, 4}


OUTCOMES = ["gone", "nameless", "answered", "poison", "unstorable", "superseded"]
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

    library = Library(by["answered"], by["nameless"], by["gone"])
    rows = range(1, len(outcomes) + 1)
    case = Case(rows, library, Lml(by["poison"], reply))
    case.verdicts.unstorable = by["unstorable"]
    case.verdicts.superseded = by["superseded"]
    try:
        handled = asyncio.run(case.handle())
    except (LmlUnavailableError, StoreUnavailableError):
        # So many bad rows look as if nothing worked; what was settled stays settled.
        usable = by["superseded"] | by["unstorable"] | by["foreign"]
        usable = usable.union(*(by[kind] for kind in Kind))
        assert max(len(by["poison"]), len(by["unstorable"])) > 10 or len(outcomes) > 10
        assert len(usable) < len(outcomes)
        return
    failed = frozenset().union(
        *(by[o] for o in ("poison", "unstorable", "missing", "invalid", "contradicted"))
    )
    assert handled.failed == failed
    assert handled.late == by["superseded"]
    assert handled.settled == frozenset(rows) - failed - by["superseded"]
    assert case.waiting == failed | by["superseded"]
    tally = case.tally
    assert tally.scanned == len(rows)
    assert tally.scanned == tally.resolved + tally.unresolved + tally.skipped.total()
    assert tally.resolved == len(by[Kind.SINGLE_ARTIST])
    assert tally.unresolved == len(by[Kind.UNRESOLVED] | by["foreign"])
    # Pages that were halved are judged each for itself.
    untrusted = tally.skipped[Skip.UNTRUSTED]
    assert untrusted <= min(len(by["missing"]), len(by["foreign"]))
    assert untrusted == min(len(by["missing"]), len(by["foreign"])) or by["poison"]
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
            Skip.WRITER_ERROR: len(by["unstorable"]),
        }
    )
    assert +tally.skipped == +expected


async def test_no_call_asks_more_than_a_few_compilations_at_once() -> None:
    case = Case(range(1, 401), Library(compilations=frozenset(range(1, 251))))
    assert await case.handle() == Handled(settled=frozenset(range(1, 401)))
    assert case.lml.pages == [
        list(range(251, 401)),
        list(range(1, 101)),
        list(range(101, 201)),
        list(range(201, 251)),
    ]
    assert case.lml.with_tracks == [False, True, True, True]
    assert case.tally.lml_calls == 4


async def test_few_compilations_among_others_are_handed_back_to_be_asked_with_their_like() -> None:
    library = Library(compilations=frozenset(range(1, 131)))
    case = Case(range(1, 401), library, sets_apart=True)
    handled = await case.handle()
    assert handled.apart == frozenset(range(101, 131))
    assert handled.settled == frozenset(range(1, 401)) - handled.apart
    assert [len(page) for page in case.lml.pages] == [270, 100]
    assert case.tally.scanned == 370
    assert case.waiting == set(handled.apart)
    again = await case.handle()
    assert (again.settled, again.apart) == (handled.apart, frozenset())
    assert case.lml.with_tracks == [False, True, True]
    assert case.tally.scanned == 400


async def test_without_tracks_nothing_is_set_apart() -> None:
    library = Library(compilations=frozenset({3}))
    case = Case(range(1, 11), library, include_tracks=IncludeTracks.OFF, sets_apart=True)
    assert not (await case.handle()).apart
    assert len(case.lml.pages) == 1


async def test_compilations_alone_cost_no_call_for_the_others() -> None:
    case = Case(range(1, 251), Library(compilations=frozenset(range(1, 251))))
    await case.handle()
    assert [len(page) for page in case.lml.pages] == [100, 100, 50]


async def test_without_tracks_few_compilations_among_others_cost_no_call_of_their_own() -> None:
    library = Library(compilations=frozenset({3, 7}))
    case = Case(range(1, 11), library, Lml(frozenset({7})), IncludeTracks.OFF)
    assert await case.handle() == Handled(
        settled=frozenset(range(1, 11)) - {7}, failed=frozenset({7})
    )
    assert sorted(case.lml.pages[0]) == list(range(1, 11))
    assert not any(case.lml.with_tracks)


async def test_lone_compilation_is_one_call_with_tracks() -> None:
    case = Case([7], Library(compilations=frozenset({7})))
    await case.handle()
    assert (case.lml.pages, case.lml.with_tracks) == ([[7]], [True])


async def test_tracks_of_all_are_asked_for_in_small_pages() -> None:
    library = Library(compilations=frozenset(range(1, 11)))
    case = Case(range(1, 251), library, include_tracks=IncludeTracks.ALL)
    await case.handle()
    assert [len(page) for page in case.lml.pages] == [100, 100, 50]
    assert case.lml.with_tracks == [True] * 3


async def test_page_that_lml_cannot_answer_with_tracks_is_asked_without() -> None:
    def fault(call: int) -> Exception | None:
        return TracksRefusedError("LML answered 500") if call == 1 else None

    rows = frozenset(range(1, 101))
    case = Case(rows, Library(compilations=rows), Lml(reply=compilation, fault=fault))
    with capture_logs() as logs:
        assert await case.handle() == Handled(settled=rows)
    assert case.lml.pages == [sorted(rows)] * 2
    assert case.lml.with_tracks == [True, False]
    assert case.tally.skipped == {Skip.COMPILATION: 100}
    assert [(line["event"], line["questions"]) for line in logs] == [("asking without tracks", 100)]


async def test_page_that_lml_refuses_without_tracks_too_is_halved_without() -> None:
    def fault(call: int) -> Exception | None:
        return TracksRefusedError("LML answered 500") if call == 1 else None

    rows = frozenset(range(1, 9))
    lml = Lml(frozenset({5}), reply=compilation, fault=fault)
    case = Case(rows, Library(compilations=rows), lml)
    assert await case.handle() == Handled(settled=rows - {5}, failed=frozenset({5}))
    assert case.lml.with_tracks == [True] + [False] * (len(case.lml.pages) - 1)
    assert case.tally.skipped == {Skip.COMPILATION: 7, Skip.LML_ERROR: 1}


async def test_page_refused_for_one_of_its_rows_keeps_asking_for_tracks() -> None:
    rows = frozenset(range(1, 9))
    case = Case(rows, Library(compilations=rows), Lml(frozenset({5}), reply=compilation))
    assert await case.handle() == Handled(settled=rows - {5}, failed=frozenset({5}))
    assert all(case.lml.with_tracks)


async def test_visited_compilations_are_a_bucket_of_their_own() -> None:
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
    # Of what was not written, nothing is counted.
    assert case.tally.tracks == {
        TrackCount.ENTRIES_INVALID: 2,
        TrackCount.CONFIDENCES_INVALID: 1,
        TrackCount.ROWS_WRITTEN: 3,
    }


@pytest.mark.parametrize(("unmatched", "told"), [(10, 1), (9, 0), (20, 1)])
async def test_page_whose_credits_match_few_rows_is_told(unmatched: int, told: int) -> None:
    case = Case([1, 2], Library(compilations=frozenset({1, 2})), Lml(reply=compilation_of_ten))
    missed = {1: unmatched // 2 + unmatched % 2, 2: unmatched // 2}
    case.verdicts.tracks = lambda row: Counter({TrackCount.ROWS_NO_MATCH: missed[row]})
    with capture_logs() as logs:
        await case.handle()
    drifts = [line for line in logs if line["event"].startswith("credits of LML match no row")]
    assert len(drifts) == told
    for line in drifts:
        assert (line["credits"], line["unmatched"], line["rows"]) == (20, unmatched, [1, 2])
        assert "Artist" not in str(line)


async def test_row_that_fails_is_charged_on_top_of_the_failures_of_its_question() -> None:
    case = Case([1, 2, 3], Library(failures={2: 1}), Lml(reply=lambda question: []))
    assert await case.handle() == Handled(failed=frozenset({1, 2, 3}))
    assert {row: (f.failures, f.ask_again) for row, f in case.verdicts.failed.items()} == {
        1: (1, timedelta(seconds=2)),
        2: (2, timedelta(seconds=4)),
        3: (1, timedelta(seconds=2)),
    }
    assert case.waiting == {1, 2, 3}


async def test_row_that_failed_as_often_as_it_may_is_parked_and_settled() -> None:
    case = Case([1, 2, 2, 3], Library(failures={2: 2}), Lml(frozenset({1, 2})))
    handled = await case.handle()
    assert handled == Handled(settled=frozenset({2, 3}), failed=frozenset({1}))
    assert case.verdicts.failed[2].failures == 3
    assert case.verdicts.failed[2].ask_again is None
    assert case.verdicts.failed[2].reason is Skip.LML_ERROR
    assert case.waiting == {1}
    assert case.tally.skipped == {Skip.LML_ERROR: 2}


async def test_failures_are_recorded_with_the_order_and_changes_of_their_rows() -> None:
    case = Case([1, 2, 1], Library(order=41, failures={1: 9}), Lml(frozenset({1})))
    await case.handle()
    assert case.verdicts.fail_calls == [(42, [1], [(1, 1), (3, 1)])]


async def test_row_that_somebody_holds_a_lock_on_fails_without_being_charged() -> None:
    case = Case([1, 2, 3, 4], Library(failures={2: 2}))
    case.verdicts.locked = frozenset({2})
    handled = await case.handle()
    assert handled == Handled(settled=frozenset({1, 3, 4}), failed=frozenset({2}))
    assert not case.verdicts.failed
    assert case.waiting == {2}
    assert case.tally.skipped == {Skip.WRITER_ERROR: 1}
    assert case.tally.scanned == 4


async def test_row_that_can_never_be_written_is_charged() -> None:
    case = Case([1, 2, 3], Library(failures={2: 2}))
    case.verdicts.unstorable = frozenset({2, 3})
    handled = await case.handle()
    assert handled == Handled(settled=frozenset({1, 2}), failed=frozenset({3}))
    assert {row: f.failures for row, f in case.verdicts.failed.items()} == {2: 3, 3: 1}
    assert case.verdicts.failed[3].detail == "value too long"


@pytest.mark.parametrize("size", [10, 11, 500])
async def test_reply_without_one_usable_answer_to_many_questions_is_lmls_own_fault(
    size: int,
) -> None:
    rows = range(1, size + 1)
    case = Case(rows, lml=Lml(reply=lambda question: [Invalid(question.library_id, "kind: enum")]))
    with pytest.raises(LmlUnavailableError, match=f"no usable answer to any of {size} questions"):
        await case.handle()
    assert not case.verdicts.failed
    assert case.waiting == set(rows)
    assert case.tally.skipped == {Skip.LML_ERROR: size}


async def test_reply_without_one_usable_answer_to_few_questions_charges_each_row() -> None:
    rows = range(1, 10)
    case = Case(rows, lml=Lml(reply=lambda question: [Invalid(question.library_id, "kind: enum")]))
    assert await case.handle() == Handled(failed=frozenset(rows))
    assert case.verdicts.failed.keys() == set(rows)
    assert case.tally.skipped == {Skip.INVALID: 9}


async def test_reply_with_one_usable_answer_to_many_questions_charges_the_others() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        return [Verdict(7, Kind.UNRESOLVED)] if question.library_id == 7 else []

    case = Case(lml=Lml(reply=reply))
    assert await case.handle() == Handled(
        settled=frozenset({7}), failed=frozenset(PAGE) - frozenset({7})
    )
    assert case.verdicts.failed.keys() == set(PAGE) - {7}


async def test_rows_that_came_to_nothing_when_lml_went_are_counted_so() -> None:
    def fault(call: int) -> Exception | None:
        return LmlUnavailableError("ConnectError") if call == 2 else None

    library = Library(
        answered=frozenset({1}), gone=frozenset({2}), compilations=frozenset(range(6, 110))
    )
    case = Case(range(1, 110), library, Lml(fault=fault))
    with pytest.raises(LmlUnavailableError):
        await case.handle()
    assert case.tally.unresolved == 3
    assert case.tally.skipped == {Skip.ALREADY_ANSWERED: 1, Skip.GONE: 1, Skip.LML_ERROR: 104}
    assert case.tally.scanned == 109
    assert case.tally.lml_calls == 2


async def test_latency_is_that_of_the_calls_without_the_wait_for_a_permit() -> None:
    case = Case(range(1, 5), lml=SlowLml(frozenset({3})))
    async with asyncio.TaskGroup() as tasks:
        async with case.permits.live(), case.permits.live():
            handling = tasks.create_task(case.handle())
            await for_a_while(60.0)
            assert not case.lml.pages
        await handling
    # Those that were refused took their time, too.
    assert len(case.lml.pages) == case.tally.lml_calls == 5
    assert case.tally.lml_latency.total_seconds() == pytest.approx(10.0, abs=0.01)


async def test_latency_counts_the_call_that_found_lml_gone() -> None:
    case = Case([1], lml=SlowLml(fault=lambda call: LmlUnavailableError("ReadTimeout")))
    with pytest.raises(LmlUnavailableError):
        await case.handle()
    assert case.tally.lml_latency.total_seconds() == pytest.approx(2.0, abs=0.01)


async def test_odd_verdicts_are_written_and_told_once_a_kind() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        identity = Identity("oracle", 0.9, None, None, None, ())
        return [Verdict(question.library_id, Kind.SINGLE_ARTIST, identity)]

    case = Case(range(5), lml=Lml(reply=reply))
    with capture_logs() as logs:
        await case.handle()
    assert case.tally.resolved == 5
    assert case.resolver.oddities == {"method 'oracle'": 5}
    assert [entry["what"] for entry in logs if entry["event"] == "odd verdict, told once"] == [
        "method 'oracle'"
    ]


async def test_kinds_of_oddities_are_bounded() -> None:
    def reply(question: Question) -> list[Verdict | Invalid]:
        identity = Identity(f"oracle {question.library_id}", 0.9, None, None, None, ())
        return [Verdict(question.library_id, Kind.SINGLE_ARTIST, identity)]

    case = Case(lml=Lml(reply=reply))
    with capture_logs() as logs:
        await case.handle()
    assert len(case.resolver.oddities) == 100
    assert sum(entry["event"] == "odd verdict, told once" for entry in logs) == 100
