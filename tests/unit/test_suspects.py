"""Finding the row that LML fails at among others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.asking import QuestionPage
from listener.domain.question import Question
from listener.domain.suspects import Culprit, Suspects


def question(row: int) -> Question:
    return Question(row, f"Artist {row}", "Album", None, b"")


def page(*rows: int, with_tracks: bool = False, suspect: bool = False) -> QuestionPage:
    return QuestionPage([question(row) for row in rows], with_tracks, suspect)


def rows(pages: Sequence[QuestionPage]) -> list[list[int]]:
    return [[question.library_id for question in page.questions] for page in pages]


def broken(*pages: QuestionPage) -> Suspects:
    suspects = Suspects()
    for each in pages:
        assert suspects.broke_off(each, answered=False) is Culprit.LML
    return suspects


def test_pages_without_suspects_stay_as_they_are() -> None:
    whole = page(*range(1, 501))
    assert Suspects().apart([whole]) == [whole]
    assert broken(page(501)).apart([whole]) == [whole]


def test_rows_of_broken_calls_are_asked_in_ever_smaller_pages() -> None:
    suspects, whole = Suspects(), page(*range(1, 251))
    sizes = []
    for _ in range(5):
        sizes.append([len(part) for part in rows(suspects.apart([whole]))])
        suspects.broke_off(whole, answered=False)
    assert sizes == [[250], [100, 100, 50], [10] * 25, [1] * 250, [1] * 250]


def test_suspects_come_last_and_the_most_suspect_at_the_very_end() -> None:
    parts = broken(page(1, 2, 3), page(1)).apart([page(*range(1, 6)), page(6, 7)])
    assert rows(parts) == [[4, 5], [6, 7], [2, 3], [1]]
    assert [part.suspect for part in parts] == [False, False, True, True]


def test_parts_of_a_page_are_asked_with_tracks_as_it_was() -> None:
    parts = broken(page(1)).apart([page(1, 2, with_tracks=True), page(3)])
    assert [part.with_tracks for part in parts] == [True, False, True]


def test_answer_clears_its_rows() -> None:
    suspects = broken(page(1, 2, 3))
    suspects.clear([])
    suspects.clear([question(2), question(3)])
    assert rows(suspects.apart([page(1, 2, 3)])) == [[2, 3], [1]]


def test_controls_were_answered_and_are_about_other_rows_and_change() -> None:
    suspects = Suspects()
    assert suspects.control(page(1)) is None
    suspects.clear([question(1), question(2)])
    assert suspects.control(page(1)) is None
    for row in range(3, 20):
        suspects.clear([question(row)])
        suspects.clear([question(row)])
    taken = [suspects.control(page(1)) for _ in range(18)]
    # The latest eight, in turn; and once all were put in vain it is done without for once.
    assert taken == [*(question(row) for row in range(19, 11, -1)), None] * 2
    suspects.clear([question(19)])
    assert suspects.control(page(*range(12, 20))) is None


def test_control_that_was_answered_begins_a_new_turn() -> None:
    suspects = Suspects()
    suspects.clear([question(1)])
    for _ in range(5):
        assert suspects.control(page(2)) == question(1)
        suspects.broke_off(page(2, suspect=True), answered=True)


def test_nobody_becomes_more_suspect_while_no_control_is_answered() -> None:
    suspects = Suspects()
    suspects.clear([question(1000)])
    for _ in range(9):
        (its,) = suspects.apart([page(1, 2)])
        suspects.broke_off(its, answered=False)
    assert rows(suspects.apart([page(*range(1, 250))])) == [[*range(3, 250)], [1, 2]]


def test_row_is_the_culprit_once_it_failed_alone_and_fails_again() -> None:
    suspects, said = Suspects(), []
    for _ in range(5):
        parts = suspects.apart([page(1, 2)])
        its = next(part for part in parts if question(1) in part.questions)
        said.append((len(its.questions), suspects.broke_off(its, answered=True)))
    assert said == [
        # Nobody was suspect before.
        (2, Culprit.LML),
        (2, Culprit.ROWS),
        (2, Culprit.ROWS),
        (1, Culprit.ROWS),
        (1, Culprit.ROW),
    ]


def test_without_another_answer_lml_is_the_culprit() -> None:
    suspects = Suspects()
    for _ in range(9):
        (its,) = suspects.apart([page(1)])
        assert suspects.broke_off(its, answered=False) is Culprit.LML
    assert suspects.broke_off(page(1, suspect=True), answered=True) is Culprit.ROW


@pytest.mark.parametrize("answers", [True, False])
def test_lml_is_the_culprit_when_one_call_after_another_breaks_off(answers: bool) -> None:
    suspects, said = Suspects(), []
    for row in range(1, 101):
        said.append(suspects.broke_off(page(row, suspect=True), answered=True))
        if answers:
            suspects.clear([question(1000)])
    assert said[:40] == [Culprit.ROWS] * 40
    assert set(said[40:]) == {Culprit.ROWS if answers else Culprit.LML}


def test_suspects_are_bounded_and_the_oldest_go() -> None:
    suspects = broken(page(*range(1, 10_001)), page(*range(10_001, 10_003)))
    assert rows(suspects.apart([page(1, 2, 3)])) == [[1, 2], [3]]


@given(
    st.lists(st.frozensets(st.integers(1, 40), min_size=1), max_size=6),
    st.lists(st.frozensets(st.integers(1, 40), min_size=1), max_size=4),
)
def test_every_row_is_asked_once_whoever_is_suspect(
    failed: list[frozenset[int]], asked: list[frozenset[int]]
) -> None:
    suspects = broken(*(page(*some) for some in failed))
    parts = suspects.apart([page(*sorted(some)) for some in asked])
    assert sorted(row for part in rows(parts) for row in part) == sorted(
        row for some in asked for row in some
    )
