"""How questions are put: in pages, with tracks or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from listener.domain.question import Question
from listener.domain.retrying import TOGETHER


class IncludeTracks(StrEnum):
    """Of which releases LML is asked for the tracks."""

    COMPILATIONS = "compilations"
    ALL = "all"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class QuestionPage:
    """Questions of one call; `with_tracks` holds for all of them."""

    questions: Sequence[Question]
    with_tracks: bool = False


def pages(
    questions: Sequence[Question], compilation_batch_size: int, include: IncludeTracks
) -> Iterator[QuestionPage]:
    """Yield the pages in which the questions of one batch are put.

    Answers with tracks are long, so these pages are small; so are those of compilations. Suspects
    come last, and isolated rows alone at the very end: nobody else waits for them.
    """
    degrees = sorted({question.suspicion for question in questions})
    for degree in degrees:
        alike = [question for question in questions if question.suspicion == degree]
        together = TOGETHER.get(degree, len(alike))
        for group in _groups(alike, together):
            yield from _alike(group, min(compilation_batch_size, together), include)


def _alike(
    questions: Sequence[Question], size: int, include: IncludeTracks
) -> Iterator[QuestionPage]:
    match include:
        case IncludeTracks.COMPILATIONS:
            if others := [question for question in questions if not question.compilation]:
                yield QuestionPage(others)
            compilations = [question for question in questions if question.compilation]
            yield from _cut(compilations, size, with_tracks=True)
        case IncludeTracks.ALL:
            yield from _cut(questions, size, with_tracks=True)
        case IncludeTracks.OFF:
            yield from _mixed(questions, size)


def worth_deferring(
    questions: Sequence[Question], compilation_batch_size: int, include: IncludeTracks
) -> frozenset[int]:
    """Return the rows that are better asked together with rows of other batches.

    A few compilations among others would each time cost a call of their own.
    """
    compilations = [question.library_id for question in questions if question.compilation]
    if include is not IncludeTracks.COMPILATIONS or len(compilations) == len(questions):
        return frozenset()
    in_full_pages = len(compilations) // compilation_batch_size * compilation_batch_size
    return frozenset(compilations[in_full_pages:])


def _mixed(questions: Sequence[Question], size: int) -> Iterator[QuestionPage]:
    compilations = [question for question in questions if question.compilation]
    others = [question for question in questions if not question.compilation]
    # A few among others cost no call of their own.
    joined = size if others else 0
    if first := others + compilations[:joined]:
        yield QuestionPage(first)
    yield from _cut(compilations[joined:], size, with_tracks=False)


def _cut(questions: Sequence[Question], size: int, *, with_tracks: bool) -> Iterator[QuestionPage]:
    for group in _groups(questions, size):
        yield QuestionPage(group, with_tracks)


def _groups(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    for start in range(0, len(questions), size):
        yield questions[start : start + size]
