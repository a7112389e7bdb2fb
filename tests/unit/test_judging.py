"""Matching a reply with its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from listener.domain.judging import Invalid, Judgement, judge
from listener.domain.question import Question
from listener.domain.tally import Skip
from listener.domain.verdict import Kind, Verdict

# So few ids that a row often occurs several times.
ROWS = st.integers(1, 3)
FINDINGS = st.builds(
    Verdict,
    library_id=ROWS,
    kind=st.sampled_from([Kind.COMPILATION, Kind.UNRESOLVED]),
    skipped_sources=st.integers(0, 1),
)
RESULTS = st.one_of(
    FINDINGS,
    st.builds(Invalid, library_id=st.none() | ROWS, reason=st.sampled_from(["kind", "method"])),
)
REPLIES = st.lists(RESULTS, max_size=20)
ASKED = st.frozensets(ROWS)


def questions(rows: frozenset[int] | Sequence[int]) -> list[Question]:
    return [Question(row, "Stereolab", "Dots and Loops", None, b"%d" % row) for row in rows]


def compilation(row: int) -> Verdict:
    return Verdict(row, Kind.COMPILATION)


def unresolved(row: int) -> Verdict:
    return Verdict(row, Kind.UNRESOLVED)


def groups(judgement: Judgement) -> list[frozenset[int]]:
    return [
        frozenset(verdict.library_id for verdict in judgement.accepted),
        frozenset(judgement.unanswered),
    ]


def reasons(judgement: Judgement) -> dict[int, Skip]:
    return {row: reason for row, (reason, _) in judgement.unanswered.items()}


@given(ASKED, REPLIES)
@example(frozenset({1}), [compilation(1), unresolved(1), Invalid(1, "kind")])
def test_every_asked_row_ends_in_exactly_one_group(
    asked: frozenset[int], reply: list[Verdict | Invalid]
) -> None:
    judgement = judge(questions(asked), reply)
    rows = sorted(row for group in groups(judgement) for row in group)
    assert rows == sorted(asked)


@given(ASKED, REPLIES)
def test_nothing_foreign_is_accepted(asked: frozenset[int], reply: list[Verdict | Invalid]) -> None:
    judgement = judge(questions(asked), reply)
    named = {result.library_id for result in reply if result.library_id is not None}
    assert judgement.foreign == named - asked
    assert len(judgement.accepted) == len(groups(judgement)[0])
    assert set(judgement.accepted) <= set(reply)
    assert judgement.nameless_invalid == sum(result.library_id is None for result in reply)


@given(ASKED, REPLIES, st.randoms(use_true_random=False))
def test_the_order_of_the_results_does_not_matter(
    asked: frozenset[int], reply: list[Verdict | Invalid], random: Random
) -> None:
    shuffled = list(reply)
    random.shuffle(shuffled)
    before, after = judge(questions(asked), reply), judge(questions(asked), shuffled)
    assert groups(before) == groups(after)
    assert reasons(before) == reasons(after)
    assert set(before.accepted) == set(after.accepted)
    assert (before.foreign, before.nameless_invalid) == (after.foreign, after.nameless_invalid)


@given(ASKED, REPLIES)
def test_duplicated_results_change_nothing(
    asked: frozenset[int], reply: list[Verdict | Invalid]
) -> None:
    once, twice = judge(questions(asked), reply), judge(questions(asked), reply * 2)
    assert groups(once) == groups(twice)
    assert (twice.accepted, twice.foreign) == (once.accepted, once.foreign)


def test_short_reply_leaves_rows_missing() -> None:
    judgement = judge(questions([1, 2, 3]), [unresolved(2)])
    assert judgement.accepted == (unresolved(2),)
    assert reasons(judgement) == {1: Skip.MISMATCH, 3: Skip.MISMATCH}


def test_row_answered_twice_alike_is_accepted_once() -> None:
    judgement = judge(questions([1]), [unresolved(1), unresolved(1)])
    assert judgement.accepted == (unresolved(1),)


def test_row_answered_differently_is_not_answered() -> None:
    for reply in (
        [unresolved(1), compilation(1)],
        [unresolved(1), compilation(1), unresolved(1)],
        [compilation(1), replace(compilation(1), skipped_sources=1)],
    ):
        judgement = judge(questions([1]), reply)
        assert not judgement.accepted
        assert judgement.unanswered == {1: (Skip.INVALID, "two conflicting answers")}


def test_row_with_a_valid_and_an_invalid_answer_is_invalid() -> None:
    replies: list[list[Verdict | Invalid]] = [
        [unresolved(1), Invalid(1, "kind: enum")],
        [Invalid(1, "kind: enum"), unresolved(1)],
    ]
    for reply in replies:
        judgement = judge(questions([1]), reply)
        assert not judgement.accepted
        assert judgement.unanswered == {1: (Skip.INVALID, "kind: enum")}


def test_foreign_rows_do_not_make_up_for_missing_ones() -> None:
    judgement = judge(questions([1, 2]), [unresolved(1), unresolved(3), Invalid(4, "kind: enum")])
    assert judgement.foreign == {3, 4}
    # One of the answers about other rows may be meant for it.
    assert reasons(judgement) == {2: Skip.UNTRUSTED}


def test_as_many_missing_rows_as_foreign_answers_are_untrusted() -> None:
    judgement = judge(questions([1, 2, 3]), [unresolved(7)])
    assert reasons(judgement) == {1: Skip.UNTRUSTED, 2: Skip.MISMATCH, 3: Skip.MISMATCH}


def test_result_without_a_readable_id_is_counted_alone() -> None:
    judgement = judge(questions([1]), [Invalid(None, "library_id: int_type")])
    assert judgement.nameless_invalid == 1
    assert reasons(judgement) == {1: Skip.MISMATCH}
