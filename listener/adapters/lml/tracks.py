"""The shape of LML's track entries, and what they mean in our terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.dataclasses import dataclass

from listener.domain.tracks import Credit, Tracks, gather

# The version of LML's contract on tracks that is read here; of any other one nothing is known.
CONTRACT = 1

# PostgreSQL cannot store a NUL character; what is longer than any name of ours matches none.
_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=255)]


# How LML's replies are read: no value is taken for another, what is unknown is passed over.
STRICT = ConfigDict(strict=True, extra="ignore")


# Not a model: of some ten thousand entries each would bring a dictionary with it.
@dataclass(slots=True, frozen=True, config=STRICT)
class WireTrack:
    """One credit of a release; without `resolved_artist_name` LML knows nobody."""

    artist_name: _Text
    track_title: _Text | None = None
    track_position: _Text | None = None
    resolved_artist_name: _Text | None = None
    confidence: float | None = None

    @property
    def has_fit_confidence(self) -> bool:
        """Whether the confidence lies in 0..1, or none is named; NaN does not."""
        return self.confidence is None or 0 <= self.confidence <= 1

    def credit(self) -> Credit:
        """Return the credit, without a confidence that is none."""
        return Credit(
            artist_name=self.artist_name,
            track_title=self.track_title,
            track_position=self.track_position,
            resolved_artist_name=self.resolved_artist_name,
            confidence=self.confidence if self.has_fit_confidence else None,
        )


# In this order: an entry that is not well formed, or what is no list, is taken as it came.
_Entry = Annotated[WireTrack | Any, Field(union_mode="left_to_right")]
WireTracks = Annotated[list[_Entry] | Any, Field(union_mode="left_to_right")]


def is_known(contract: object) -> bool:
    """Return whether tracks under this contract can be trusted."""
    # True is equal to 1 as well.
    return type(contract) is int and contract == CONTRACT


def read_tracks(attempted: object, tracks: object) -> Tracks | None:
    """Return what LML says about the tracks of a release, None if it has not visited them.

    Only `attempted` tells, never the number of entries, but for the one state that is not allowed:
    entries of a release that was not visited are taken for what they say.
    """
    offered: Sequence[object] = tracks if isinstance(tracks, list) else []
    entries = [entry for entry in offered if isinstance(entry, WireTrack)]
    if attempted is not True and not (attempted is False and entries):
        return None
    malformed = len(offered) - len(entries) if tracks is None or isinstance(tracks, list) else 1
    return Tracks(
        keys=gather(_credits(entries)),
        invalid_entries=malformed,
        invalid_confidences=sum(not entry.has_fit_confidence for entry in entries),
    )


def _credits(entries: Sequence[WireTrack]) -> Iterator[Credit]:
    for entry in entries:
        yield entry.credit()
