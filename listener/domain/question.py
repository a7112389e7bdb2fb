"""Questions: what LML is asked about a library row, and which of them share a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from listener.domain.retrying import TOGETHER, Failing


@dataclass(frozen=True, slots=True)
class Question:
    """What we ask about one release.

    `digest` identifies the question: while a row's digest stays the same, so does its question.
    `legacy_release_id` leads LML to per-track data. `compilation` says that our own tables call the
    release one, and `last_credit` is the highest id among its credits, or 0. `asked_before` says
    that LML ever answered a question about the row.
    """

    library_id: int
    artist_name: str
    album_title: str
    legacy_release_id: int | None
    digest: bytes
    compilation: bool = False
    failing: Failing | None = None
    last_credit: int = 0
    asked_before: bool = False

    @property
    def suspicion(self) -> int:
        """Whether this row may spoil a call for others, as in `Failure`."""
        return self.failing.suspicion if self.failing else 0


@dataclass(frozen=True, slots=True)
class Asking:
    """The current content of some library rows, sorted by what to do with them.

    `order` was drawn before the rows were read: of two verdicts on a row, the one with the higher
    order answers newer content. The four groups are disjoint and cover all requested rows:
    `questions` must be asked, `answered` rows have a verdict on the same question, `nameless` rows
    have no artist name yet, and `gone` rows were deleted.
    """

    order: int
    questions: tuple[Question, ...] = ()
    answered: frozenset[int] = frozenset()
    nameless: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()


class IncludeTracks(StrEnum):
    """The releases whose tracks LML is asked for."""

    COMPILATIONS = "compilations"
    ALL = "all"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class QuestionBatch:
    """The questions of one call; `with_tracks` applies to all of them."""

    questions: Sequence[Question]
    with_tracks: bool = False


def batches(
    questions: Sequence[Question], compilation_batch_size: int, include: IncludeTracks
) -> Iterator[QuestionBatch]:
    """Divide the questions of a batch into those of single calls.

    Answers with tracks are long, so few of them share a call; the same is true of compilations.
    Suspects come last, and isolated rows at the very end, each alone: no other row waits for them.
    """
    degrees = sorted({question.suspicion for question in questions})
    for degree in degrees:
        alike = [question for question in questions if question.suspicion == degree]
        together = TOGETHER.get(degree, len(alike))
        for group in _groups(alike, together):
            yield from _batches_of(group, min(compilation_batch_size, together), include)


def _batches_of(
    questions: Sequence[Question], size: int, include: IncludeTracks
) -> Iterator[QuestionBatch]:
    match include:
        case IncludeTracks.COMPILATIONS:
            if others := [question for question in questions if not question.compilation]:
                yield QuestionBatch(others)
            compilations = [question for question in questions if question.compilation]
            yield from _cut(compilations, size, with_tracks=True)
        case IncludeTracks.ALL:
            yield from _cut(questions, size, with_tracks=True)
        case IncludeTracks.OFF:
            yield from _mixed(questions, size)


def worth_deferring(
    questions: Sequence[Question], compilation_batch_size: int, include: IncludeTracks
) -> frozenset[int]:
    """Return the rows that should wait for rows of other batches.

    A batch with only a few compilations would spend an extra call on them.
    """
    compilations = [question.library_id for question in questions if question.compilation]
    if include is not IncludeTracks.COMPILATIONS or len(compilations) == len(questions):
        return frozenset()
    in_full_batches = len(compilations) // compilation_batch_size * compilation_batch_size
    return frozenset(compilations[in_full_batches:])


def _mixed(questions: Sequence[Question], size: int) -> Iterator[QuestionBatch]:
    compilations = [question for question in questions if question.compilation]
    others = [question for question in questions if not question.compilation]
    # A few compilations fit into the batch of the others.
    joined = size if others else 0
    if first := others + compilations[:joined]:
        yield QuestionBatch(first)
    yield from _cut(compilations[joined:], size, with_tracks=False)


def _cut(questions: Sequence[Question], size: int, *, with_tracks: bool) -> Iterator[QuestionBatch]:
    for group in _groups(questions, size):
        yield QuestionBatch(group, with_tracks)


def _groups(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    for start in range(0, len(questions), size):
        yield questions[start : start + size]
