"""The shape of LML's track entries, and what they mean in our terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from pydantic.dataclasses import dataclass

from listener.adapters.lml.wire import STRICT
from listener.domain.tracks import Credit, Tracks, gather

# The version of LML's contract on tracks that we can read.
CONTRACT = 1

# PostgreSQL cannot store a NUL character; a longer name matches none of ours.
_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=255)]


# Not a model: each of some ten thousand entries would carry a dictionary.
@dataclass(slots=True, frozen=True, config=STRICT)
class _Track:
    """One credit of a release; without `resolved_artist_name` LML knows no artist for it."""

    artist_name: _Text
    track_title: _Text | None = None
    track_position: _Text | None = None
    resolved_artist_name: _Text | None = None
    confidence: float | None = None

    @property
    def has_fit_confidence(self) -> bool:
        """Whether the confidence is missing or lies in 0..1, which NaN does not."""
        return self.confidence is None or 0 <= self.confidence <= 1

    def credit(self) -> Credit:
        """Return the credit, without an invalid confidence."""
        return Credit(
            artist_name=self.artist_name,
            track_title=self.track_title,
            track_position=self.track_position,
            resolved_artist_name=self.resolved_artist_name,
            confidence=self.confidence if self.has_fit_confidence else None,
        )


# In this order: a malformed entry, or anything that is no list, is kept as it came.
_Entry = Annotated[_Track | Any, Field(union_mode="left_to_right")]
WireTracks = Annotated[list[_Entry] | Any, Field(union_mode="left_to_right")]


def is_known(contract: object) -> bool:
    """Return whether tracks under this contract can be trusted."""
    # True is equal to 1 as well.
    return type(contract) is int and contract == CONTRACT


def read_tracks(attempted: object, tracks: object) -> Tracks | None:
    """Return the tracks of a release, or None if LML has not visited them.

    Only `attempted` decides that, never the number of entries. One exception: entries of a release
    that LML claims not to have visited, which its contract rules out, are believed.
    """
    offered: Sequence[object] = tracks if isinstance(tracks, list) else []
    entries = [entry for entry in offered if isinstance(entry, _Track)]
    if attempted is not True and not (attempted is False and entries):
        return None
    malformed = len(offered) - len(entries) if tracks is None or isinstance(tracks, list) else 1
    return Tracks(
        keys=gather(entry.credit() for entry in entries),
        invalid_entries=malformed,
        invalid_confidences=sum(not entry.has_fit_confidence for entry in entries),
    )
