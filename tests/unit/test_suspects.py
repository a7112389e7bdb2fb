"""Finding the row that LML fails at among others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from listener.domain.asking import QuestionPage
from listener.domain.question import Question
from listener.domain.suspects import Suspects


def question(row: int) -> Question:
    return Question(row, f"Artist {row}", "Album", None, b"")


def page(*rows: int, with_tracks: bool = False) -> QuestionPage:
    return QuestionPage([question(row) for row in rows], with_tracks)


def rows(pages: list[QuestionPage]) -> list[list[int]]:
    return [[question.library_id for question in page.questions] for page in pages]


def apart(suspects: Suspects, *pages: QuestionPage) -> list[list[int]]:
    return rows(list(suspects.apart(pages)))


def test_pages_without_suspects_stay_as_they_are() -> None:
    suspects = Suspects()
    whole = page(*range(1, 501))
    assert suspects.apart([whole]) == [whole]
    suspects.broke_off(page(501))
    assert suspects.apart([whole]) == [whole]


def test_rows_of_broken_calls_are_asked_in_ever_smaller_pages() -> None:
    suspects, whole = Suspects(), page(*range(1, 251))
    sizes = []
    for _ in range(5):
        sizes.append([len(part) for part in apart(suspects, whole)])
        suspects.broke_off(whole)
    assert sizes == [[250], [100, 100, 50], [10] * 25, [1] * 250, [1] * 250]


def test_suspects_come_last_and_the_most_suspect_at_the_very_end() -> None:
    suspects = Suspects()
    suspects.broke_off(page(1, 2, 3))
    suspects.broke_off(page(1))
    assert apart(suspects, page(*range(1, 6)), page(6, 7)) == [[4, 5], [6, 7], [2, 3], [1]]


def test_parts_of_a_page_are_asked_with_tracks_as_it_was() -> None:
    suspects = Suspects()
    suspects.broke_off(page(1))
    parts = suspects.apart([page(1, 2, with_tracks=True), page(3)])
    assert [part.with_tracks for part in parts] == [True, False, True]


def test_answer_clears_its_rows_and_is_the_control() -> None:
    suspects = Suspects()
    suspects.broke_off(page(1, 2, 3))
    suspects.clear([question(2), question(3)])
    assert suspects.control == question(2)
    assert apart(suspects, page(1, 2, 3)) == [[2, 3], [1]]
    suspects.clear([])
    assert suspects.control == question(2)


def test_there_is_no_control_before_an_answer() -> None:
    assert Suspects().control is None


def test_row_failed_alone_once_a_call_with_nothing_else_broke_off() -> None:
    suspects, said = Suspects(), []
    for _ in range(5):
        parts = suspects.apart([page(1, 2)])
        its = next(part for part in parts if question(1) in part.questions)
        said.append((len(its.questions), suspects.failed_alone(its)))
        suspects.broke_off(its)
    assert said == [(2, False), (2, False), (2, False), (1, False), (1, True)]


def test_suspects_are_bounded_and_the_oldest_go() -> None:
    suspects = Suspects()
    suspects.broke_off(page(*range(1, 10_001)))
    suspects.broke_off(page(*range(10_001, 10_003)))
    assert apart(suspects, page(1, 2, 3)) == [[1, 2], [3]]


@given(
    st.lists(st.frozensets(st.integers(1, 40), min_size=1), max_size=6),
    st.lists(st.frozensets(st.integers(1, 40), min_size=1), max_size=4),
)
def test_every_row_is_asked_once_whoever_is_suspect(
    broken: list[frozenset[int]], asked: list[frozenset[int]]
) -> None:
    suspects = Suspects()
    for some in broken:
        suspects.broke_off(page(*some))
    wanted = [page(*sorted(some)) for some in asked]
    parts = suspects.apart(wanted)
    assert sorted(row for part in rows(list(parts)) for row in part) == sorted(
        row for some in asked for row in some
    )
