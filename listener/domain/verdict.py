"""Verdicts: what LML finds about a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from listener.domain.question import Question
from listener.domain.tracks import TrackCounts, Tracks

_OUTSIDE = "confidence {} is not between 0 and 1"


class Kind(StrEnum):
    """The three outcomes of a question."""

    SINGLE_ARTIST = "single_artist"
    COMPILATION = "compilation"
    UNRESOLVED = "unresolved"


# What the ledger calls a compilation whose tracks LML has visited, as opposed to one to visit yet.
VISITED_COMPILATION = "visited_compilation"


@dataclass(frozen=True, slots=True)
class Provenance:
    """The evidence of one catalogue behind a verdict.

    `confidence` lies in 0..1. Source and method are LML's words; both vocabularies may grow.
    """

    source: str
    method: str
    confidence: float
    external_id: str

    def __post_init__(self) -> None:
        """Refuse what no reader of the identity tables could use."""
        # Also refuses NaN, which compares false with everything.
        if not 0 <= self.confidence <= 1:
            raise ValueError(_OUTSIDE.format(self.confidence))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the single artist of a release is, as far as the identity table has columns for it."""

    method: str
    confidence: float
    wikidata_qid: str | None
    spotify_id: str | None
    apple_music_id: str | None
    provenance: tuple[Provenance, ...]

    def __post_init__(self) -> None:
        """Refuse a confidence outside 0..1 and two entries of one source."""
        if not 0 <= self.confidence <= 1:
            raise ValueError(_OUTSIDE.format(self.confidence))
        if len({entry.source for entry in self.provenance}) != len(self.provenance):
            message = "a source appears twice in the provenance"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Verdict:
    """LML's finding for one library row; `identity` is set for a single artist only.

    `tracks` is set for a compilation that LML has visited. `skipped_sources` counts provenance
    entries that carried no confidence or no external id.
    """

    library_id: int
    kind: Kind
    identity: Identity | None = None
    skipped_sources: int = 0
    tracks: Tracks | None = None

    @property
    def outcome(self) -> str:
        """What the ledger keeps of it: it decides when the row is asked again."""
        return self.kind.value if self.tracks is None else VISITED_COMPILATION

    def __post_init__(self) -> None:
        """Hold the kind to the identity and the tracks."""
        if self.kind is not Kind.COMPILATION and self.tracks is not None:
            message = f"a verdict of kind {self.kind} cannot have tracks"
            raise ValueError(message)
        if (self.kind is Kind.SINGLE_ARTIST) != (self.identity is not None):
            message = f"a verdict of kind {self.kind} cannot have the identity {self.identity}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class VerdictPage:
    """Verdicts to be written together, with the questions they answer and the changes they settle.

    `order` is the one that the questions were read with.
    """

    order: int
    questions: Mapping[int, Question]
    verdicts: Sequence[Verdict]
    entries: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a page: `rows` are those whose verdict was written.

    Of the others, `locked` ones still ask what was asked, but another session holds a lock on them.
    Of those written, `withdrawn` lost an identity that answered another question. On `kept` rows an
    identity that is not ours was left as it is, and on `unresolved_now` rows one stays though LML
    found no single artist. `tracks` counts by row what became of the credits that LML named.
    """

    rows: frozenset[int]
    locked: frozenset[int] = frozenset()
    withdrawn: frozenset[int] = frozenset()
    kept: int = 0
    unresolved_now: int = 0
    tracks: Mapping[int, TrackCounts] = field(default_factory=dict)
