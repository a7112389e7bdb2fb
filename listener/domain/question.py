"""Questions: what LML is asked about a library row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Failing:
    """What the ledger remembers of a question that failed and was not answered since.

    `failures` in a row for as long as `lasting`, the last one `ago`; `suspicion` as in `Failure`.
    """

    failures: int
    lasting: timedelta
    ago: timedelta
    suspicion: int = 0
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one release.

    `digest` identifies the question: the row is still asking the same as long as its digest is
    equal. `legacy_release_id` is LML's bridge to per-track data. `compilation` says that our own
    tables take the release for one, and `last_credit` is the highest id among its credits, or 0.
    """

    library_id: int
    artist_name: str
    album_title: str
    legacy_release_id: int | None
    digest: bytes
    compilation: bool = False
    failing: Failing | None = None
    last_credit: int = 0

    @property
    def suspicion(self) -> int:
        """Whether it may spoil a call for others, as in `Failure`."""
        return self.failing.suspicion if self.failing else 0


@dataclass(frozen=True, slots=True)
class Asking:
    """The present content of some library rows, sorted by what there is to do.

    `order` was drawn before the rows were read: of two verdicts on a row, the one with the higher
    order answers newer content. The four groups are disjoint and cover all rows asked for:
    `questions` are to be put, `answered` were put before and hold, `nameless` rows have no artist
    name yet, `gone` rows are no more.
    """

    order: int
    questions: tuple[Question, ...] = ()
    answered: frozenset[int] = frozenset()
    nameless: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
