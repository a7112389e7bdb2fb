"""Tracks: what LML says about the credits of a compilation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

LONGEST_POSITION = 20
# A page with fewer rows that are not to be found says nothing about how the two sides spell.
_DRIFT = 10


class TrackCount(StrEnum):
    """What is counted of tracks, under the names that reports have.

    ROWS count rows of the backend's table of track artists, or what LML offered for them; the
    others count entries of LML's replies.
    """

    ROWS_WRITTEN = "compilation_track_rows_written"
    ROWS_UNCHANGED = "compilation_track_rows_skipped_unchanged"
    ROWS_LIBRARIAN = "compilation_track_rows_skipped_librarian"
    ROWS_NO_MATCH = "compilation_track_rows_skipped_no_cta_match"
    ROWS_NO_ARTIST = "compilation_track_rows_skipped_no_catalog_artist"
    POSITIONS_WRITTEN = "compilation_track_position_rows_written"
    POSITIONS_AMBIGUOUS = "compilation_track_position_rows_skipped_ambiguous"
    ENTRIES_INVALID = "compilation_track_entries_invalid"
    CONFIDENCES_INVALID = "compilation_track_confidences_invalid"


TrackCounts = Counter[TrackCount]


@dataclass(frozen=True, slots=True)
class Credit:
    """One entry of LML's: who is credited with what, and whom LML takes that for, if anybody.

    `confidence` lies in 0..1; None if LML named none that does.
    """

    artist_name: str
    track_title: str | None = None
    track_position: str | None = None
    resolved_artist_name: str | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        """Refuse a confidence that the backend cannot hold."""
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            message = f"confidence {self.confidence} is not between 0 and 1"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class TrackKey:
    """All that LML says about one artist name and title of a release: at most one row of ours.

    Without `resolved_artist_name` LML knows nobody, and nothing is to be written. `positions` is
    how many different ones were offered; `track_position` is set if that is one which fits.
    """

    artist_name: str
    track_title: str | None
    resolved_artist_name: str | None
    confidence: float | None
    track_position: str | None
    positions: int


@dataclass(frozen=True, slots=True)
class Tracks:
    """What LML says about a release whose tracks it has visited, which may be nothing."""

    keys: tuple[TrackKey, ...] = ()
    invalid_entries: int = 0
    invalid_confidences: int = 0

    @property
    def counts(self) -> TrackCounts:
        """What was wrong with the entries."""
        wrong = {
            TrackCount.ENTRIES_INVALID: self.invalid_entries,
            TrackCount.CONFIDENCES_INVALID: self.invalid_confidences,
        }
        return +Counter(wrong)


def gather(entries: Iterable[Credit]) -> tuple[TrackKey, ...]:
    """Join the entries of each key; of those that name an artist the most confident wins.

    The result does not depend on their order, but for the order of the keys.
    """
    best: dict[tuple[str, str | None], Credit] = {}
    positions: dict[tuple[str, str | None], set[str]] = {}
    for entry in entries:
        key = (entry.artist_name, entry.track_title)
        best[key] = max(best.get(key, entry), entry, key=_rank)
        offered = positions.setdefault(key, set())
        if entry.track_position:
            offered.add(entry.track_position)
    return tuple(_key(entry, positions[key]) for key, entry in best.items())


def drifted(keys: int, unmatched: int) -> bool:
    """Return whether so many keys of a page match no row that the two sides spell differently."""
    return unmatched >= _DRIFT and 2 * unmatched >= keys


def _rank(entry: Credit) -> tuple[bool, float, str]:
    confidence = -1.0 if entry.confidence is None else entry.confidence
    name = entry.resolved_artist_name
    # The name decides among equals: in whatever order they come, the same is written.
    return name is not None, confidence, name or ""


def _key(entry: Credit, positions: set[str]) -> TrackKey:
    position = next(iter(positions)) if len(positions) == 1 else None
    return TrackKey(
        artist_name=entry.artist_name,
        track_title=entry.track_title,
        resolved_artist_name=entry.resolved_artist_name,
        confidence=entry.confidence,
        track_position=position if position and len(position) <= LONGEST_POSITION else None,
        positions=len(positions),
    )
