"""Verdicts: LML's findings about rows."""

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


# The ledger's word for a compilation whose tracks LML has visited already.
VISITED_COMPILATION = "visited_compilation"


@dataclass(frozen=True, slots=True)
class Provenance:
    """The evidence for a verdict from one catalogue.

    `confidence` lies in 0..1. Source and method are LML's words; both vocabularies may grow.
    """

    source: str
    method: str
    confidence: float
    external_id: str

    def __post_init__(self) -> None:
        """Reject a confidence that readers of the identity tables could not use."""
        # This also rejects NaN, which compares false with everything.
        if not 0 <= self.confidence <= 1:
            raise ValueError(_OUTSIDE.format(self.confidence))


@dataclass(frozen=True, slots=True)
class Identity:
    """The single artist of a release, with a field for each column of the identity table."""

    method: str
    confidence: float
    wikidata_qid: str | None
    spotify_id: str | None
    apple_music_id: str | None
    provenance: tuple[Provenance, ...]

    def __post_init__(self) -> None:
        """Reject a confidence outside 0..1 and two entries from one source."""
        if not 0 <= self.confidence <= 1:
            raise ValueError(_OUTSIDE.format(self.confidence))
        if len({entry.source for entry in self.provenance}) != len(self.provenance):
            message = "a source appears twice in the provenance"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Verdict:
    """LML's finding for one library row; `identity` is set for a single artist only.

    `tracks` is set for a compilation whose tracks LML has visited. `skipped_sources` counts
    provenance entries without a confidence or an external id.
    """

    library_id: int
    kind: Kind
    identity: Identity | None = None
    skipped_sources: int = 0
    tracks: Tracks | None = None

    @property
    def outcome(self) -> str:
        """What the ledger stores, to decide when to ask about the row again."""
        return self.kind.value if self.tracks is None else VISITED_COMPILATION

    def __post_init__(self) -> None:
        """Reject an identity or tracks that do not fit the kind."""
        if self.kind is not Kind.COMPILATION and self.tracks is not None:
            message = f"a verdict of kind {self.kind} cannot have tracks"
            raise ValueError(message)
        if (self.kind is Kind.SINGLE_ARTIST) != (self.identity is not None):
            message = f"a verdict of kind {self.kind} cannot have the identity {self.identity}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class VerdictBatch:
    """Verdicts to write together, the questions they answer, and the changes they settle.

    `order` is that of the reading which produced the questions.
    """

    order: int
    questions: Mapping[int, Question]
    verdicts: Sequence[Verdict]
    entries: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: `rows` are those whose verdict was written.

    Of the others, `locked` rows still ask the same question, but another session holds a lock on
    them. Of those written, `withdrawn` rows lost an identity that answered another question, `kept`
    counts rows that keep an identity which is not ours, and `unresolved_now` counts those that keep
    one although LML found no single artist. `tracks` counts, by row, what became of LML's credits.
    """

    rows: frozenset[int]
    locked: frozenset[int] = frozenset()
    withdrawn: frozenset[int] = frozenset()
    kept: int = 0
    unresolved_now: int = 0
    tracks: Mapping[int, TrackCounts] = field(default_factory=dict)
