"""The latest answers: what became of the last changes, for people who watch the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from listener.domain.change import Batch
from listener.domain.question import Question
from listener.domain.refreshing import Played
from listener.domain.retrying import Failing
from listener.domain.verdict import Verdict

# As many as a page shows.
KEPT = 50
FAILED = "failed"
_LONGEST_TEXT = 128
_MOST_SOURCES = 8


class Origin(StrEnum):
    """Why a row was asked about."""

    ADDED = "added"
    EDITED = "edited"
    ROTATION = "rotation"
    RETRIED = "retried"


@dataclass(frozen=True, slots=True)
class LatestAnswer:
    """What became of one row, and which release it is about.

    `at` is in monotonic seconds, and all texts are short. `library_id` is None for a rotation row
    without a release of the library. `outcome` is LML's word, or `failed` with a `detail`. `took`
    counts the seconds since the change was recorded, or since a retried row first failed.
    """

    at: float
    origin: Origin
    library_id: int | None
    artist: str | None
    title: str | None
    outcome: str
    took: float
    sources: Sequence[str] = ()
    detail: str = ""


def release_answer(
    question: Question,
    outcome: str,
    batch: Batch,
    now: float,
    *,
    sources: Sequence[str] = (),
    detail: str = "",
) -> LatestAnswer:
    """Return what became of a release of the library."""
    since = batch.since.get(question.library_id)
    asked_before = Origin.EDITED if question.asked_before else Origin.ADDED
    return LatestAnswer(
        at=now,
        origin=Origin.RETRIED if since is None else asked_before,
        library_id=question.library_id,
        artist=_cut(question.artist_name),
        title=_cut(question.album_title),
        outcome=outcome,
        took=_took(since, question.failing, now),
        sources=sources,
        detail=detail[:_LONGEST_TEXT],
    )


def rotation_answer(
    played: Played, outcome: str, batch: Batch, now: float, *, detail: str = ""
) -> LatestAnswer:
    """Return what became of a rotation row."""
    return LatestAnswer(
        at=now,
        origin=Origin.ROTATION,
        library_id=played.album_id,
        artist=_cut(played.artist),
        title=_cut(played.title),
        outcome=outcome[:_LONGEST_TEXT],
        took=_took(batch.since.get(played.row_id), played.failing, now),
        detail=detail[:_LONGEST_TEXT],
    )


def sources_of(verdict: Verdict) -> tuple[str, ...]:
    """Return the catalogues that are the evidence of a verdict."""
    provenance = verdict.identity.provenance if verdict.identity is not None else ()
    return tuple(entry.source[:_LONGEST_TEXT] for entry in provenance[:_MOST_SOURCES])


def _took(since: float | None, failing: Failing | None, now: float) -> float:
    if since is not None:
        return now - since
    return failing.lasting.total_seconds() if failing is not None else 0.0


def _cut(text: str | None) -> str | None:
    return text if text is None else text[:_LONGEST_TEXT]


class LatestAnswers:
    """Keeps the last answers in bounded memory, each under a number that grows."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, LatestAnswer]] = deque(maxlen=KEPT)
        self._count = 0

    def note(self, answers: Iterable[LatestAnswer]) -> None:
        """Add answers in the order in which they came."""
        for answer in answers:
            self._count += 1
            self._kept.append((self._count, answer))

    def __iter__(self) -> Iterator[tuple[int, LatestAnswer]]:
        """Yield numbers and answers, the latest first."""
        return reversed(self._kept)
