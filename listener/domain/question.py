"""Questions: what LML is asked about a library row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Failing:
    """What the ledger remembers of a question that failed and has not been answered since.

    It failed `failures` times in a row over a period of `lasting`, most recently `ago`. `suspicion`
    is as in `Failure`.
    """

    failures: int
    lasting: timedelta
    ago: timedelta
    suspicion: int = 0
    parked: bool = False


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
