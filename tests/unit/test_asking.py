"""Which questions are asked together, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.question import IncludeTracks, Question, QuestionBatch, batches
from listener.domain.retrying import ISOLATED, SUSPECT, Failing

HOW = st.sampled_from(IncludeTracks)


def question(row: int, suspicion: int = 0, *, compilation: bool = False) -> Question:
    past = Failing(1, timedelta(), timedelta(), suspicion) if suspicion else None
    return Question(row, "Broadcast", f"Album {row}", None, b"%d" % row, compilation, past)


def alike(count: int, suspicion: int) -> list[Question]:
    return [question(row, suspicion) for row in range(count)]


def rows(batch: QuestionBatch) -> list[int]:
    return [question.library_id for question in batch.questions]


def asked(
    questions: list[Question],
    include: IncludeTracks = IncludeTracks.COMPILATIONS,
    size: int = 100,
) -> list[list[int]]:
    return [rows(batch) for batch in batches(questions, size, include)]


@pytest.mark.parametrize(
    ("suspicion", "sizes"),
    [(0, [250]), (SUSPECT, [100, 100, 50]), (ISOLATED, [1] * 250)],
)
def test_suspects_are_asked_in_small_batches_and_isolated_rows_alone(
    suspicion: int, sizes: list[int]
) -> None:
    assert [len(batch) for batch in asked(alike(250, suspicion))] == sizes


def test_row_that_failed_on_its_own_is_asked_with_those_that_never_failed() -> None:
    past = Failing(3, timedelta(hours=1), timedelta(minutes=5))
    failed = Question(1, "Broadcast", "Album 1", None, b"1", failing=past)
    assert asked([failed, question(2)]) == [[1, 2]]


def test_suspects_come_last_and_isolated_rows_at_the_very_end() -> None:
    questions = [question(1, ISOLATED), question(2, SUSPECT), question(3)]
    questions += [question(4, ISOLATED), question(5), question(6, SUSPECT)]
    assert asked(questions) == [[3, 5], [2, 6], [1], [4]]


@given(
    st.dictionaries(st.integers(1, 300), st.tuples(st.integers(0, ISOLATED), st.booleans())), HOW
)
def test_every_row_is_asked_once_with_equally_suspect_rows(
    kinds: Mapping[int, tuple[int, bool]], include: IncludeTracks
) -> None:
    questions = [question(row, s, compilation=c) for row, (s, c) in kinds.items()]
    put = asked(questions, include, size=20)
    assert sorted(row for batch in put for row in batch) == sorted(kinds)
    assert all(put)
    degrees = [[kinds[row][0] for row in batch] for batch in put]
    assert all(len(set(degree)) == 1 for degree in degrees)
    assert degrees == sorted(degrees, key=lambda degree: degree[0])
    together = {SUSPECT: 100, ISOLATED: 1}
    for degree in degrees:
        if degree[0]:
            assert len(degree) <= together[degree[0]]


@given(st.dictionaries(st.integers(1, 300), st.tuples(st.integers(0, ISOLATED), st.booleans())))
def test_suspect_compilations_are_asked_with_tracks_in_separate_batches(
    kinds: Mapping[int, tuple[int, bool]],
) -> None:
    questions = [question(row, s, compilation=c) for row, (s, c) in kinds.items()]
    for batch in batches(questions, 20, IncludeTracks.COMPILATIONS):
        assert {question.compilation for question in batch.questions} == {batch.with_tracks}
        assert len(batch.questions) <= 20 or not batch.with_tracks


@pytest.mark.parametrize("suspicion", [0, 1])
def test_tracks_of_all_rows_are_requested_in_small_batches(suspicion: int) -> None:
    put = list(batches(alike(50, suspicion), 20, IncludeTracks.ALL))
    assert [(len(batch.questions), batch.with_tracks) for batch in put] == [
        (20, True),
        (20, True),
        (10, True),
    ]


def test_without_tracks_few_compilations_share_the_batch_of_the_others() -> None:
    questions = [question(1), question(2, compilation=True), question(3)]
    assert asked(questions, IncludeTracks.OFF) == [[1, 3, 2]]


def test_no_questions_make_no_batches() -> None:
    assert not asked([])
