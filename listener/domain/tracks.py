"""Tracks: LML's findings about the credits of a compilation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_LONGEST_POSITION = 20
# Fewer unmatched rows in a batch do not show that the two sides spell names differently.
_DRIFT = 10


class TrackCount(StrEnum):
    """The counters for tracks, under their names in reports.

    ROWS count rows of the backend's table of track artists, or LML's proposals for them; the others
    count entries of LML's replies.
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
    """One entry of LML's reply: a credit, and the artist whom LML matches it with, if any.

    `confidence` lies in 0..1, or is None if LML sent none or an invalid one.
    """

    artist_name: str
    track_title: str | None = None
    track_position: str | None = None
    resolved_artist_name: str | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        """Reject a confidence that the backend cannot store."""
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            message = f"confidence {self.confidence} is not between 0 and 1"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class TrackKey:
    """LML's findings about one artist name and title of a release: at most one row of ours.

    Without `resolved_artist_name` LML found no artist and nothing is written. `positions` counts
    the different positions proposed; `track_position` is set if there is just one and it fits.
    """

    artist_name: str
    track_title: str | None
    resolved_artist_name: str | None
    confidence: float | None
    track_position: str | None
    positions: int


@dataclass(frozen=True, slots=True)
class Tracks:
    """LML's findings about a release whose tracks it has visited; there may be none."""

    keys: tuple[TrackKey, ...] = ()
    invalid_entries: int = 0
    invalid_confidences: int = 0

    @property
    def counts(self) -> TrackCounts:
        """The number of invalid entries and confidences."""
        wrong = {
            TrackCount.ENTRIES_INVALID: self.invalid_entries,
            TrackCount.CONFIDENCES_INVALID: self.invalid_confidences,
        }
        return +Counter(wrong)


def gather(entries: Iterable[Credit]) -> tuple[TrackKey, ...]:
    """Merge the entries of each key; the most confident entry that names an artist wins.

    The order of the entries affects only the order of the keys.
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
    """Return whether too many keys of a batch match no row: the two sides spell differently."""
    return unmatched >= _DRIFT and 2 * unmatched >= keys


def _rank(entry: Credit) -> tuple[bool, float, str]:
    confidence = -1.0 if entry.confidence is None else entry.confidence
    name = entry.resolved_artist_name
    # The name breaks ties, so that the order of the entries does not matter.
    return name is not None, confidence, name or ""


def _key(entry: Credit, positions: set[str]) -> TrackKey:
    position = next(iter(positions)) if len(positions) == 1 else None
    return TrackKey(
        artist_name=entry.artist_name,
        track_title=entry.track_title,
        resolved_artist_name=entry.resolved_artist_name,
        confidence=entry.confidence,
        track_position=position if position and len(position) <= _LONGEST_POSITION else None,
        positions=len(positions),
    )
