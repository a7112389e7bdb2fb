"""Questions: what LML is asked about a library row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one release.

    `digest` identifies the question: the row is still asking the same as long as its digest is
    equal. `legacy_release_id` is LML's bridge to per-track data. `compilation` tells that our own
    tables take the release for one, `failures` how often this question failed in a row.
    """

    library_id: int
    artist_name: str
    album_title: str
    legacy_release_id: int | None
    digest: bytes
    compilation: bool = False
    failures: int = 0


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
