"""LML's replies: what they share, tracks, and the short ones: refreshed, minted, health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.dataclasses import dataclass

from listener.adapters.lml.failures import MalformedReplyError
from listener.domain.refreshing import Refreshed, RefreshStatus
from listener.domain.tracks import Credit, Tracks, gather

# PostgreSQL cannot store a NUL character; none of LML's ids and names is this long.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=2048)]
Int4 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
# Never convert a value to another type, and ignore fields that we do not know.
STRICT = ConfigDict(strict=True, extra="ignore")
# Twice as many as one question to LML may ask for.
MOST_RESULTS = 2_000

_STATUSES = frozenset(RefreshStatus)
_SUCCESS = "success"
# The version of LML's contract on tracks that we can read.
CONTRACT = 1
# PostgreSQL cannot store a NUL character; a longer name matches none of ours.
_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=255)]


class Wire(BaseModel):
    """The base of all replies."""

    model_config = STRICT | ConfigDict(frozen=True)


Shape = TypeVar("Shape", bound=Wire)


def parsed(shape: type[Shape], body: bytes | bytearray) -> Shape | None:
    """Return the reply, or None if it does not have this shape.

    A pydantic error holds the input, so it must not become the cause of another error.
    """
    try:
        # Parsing and validating at once takes a third of the time.
        return shape.model_validate_json(body)
    except ValidationError:
        return None


class _Artist(Wire):
    outcome: Text | None = None


class _Source(Wire):
    """What became of a release in one catalogue, and of its artists there."""

    release_outcome: Text | None = None
    artists: list[_Artist | None] | None = None


class _Refreshed(Wire):
    """One result of refresh-for-identities."""

    identity_id: Int4
    status: Text
    sources: dict[str, _Source | None] | None = None

    def refreshed(self) -> Refreshed:
        sources = [source for source in (self.sources or {}).values() if source is not None]
        artists = [
            artist.outcome
            for source in sources
            for artist in source.artists or []
            if artist is not None
        ]
        known = self.status in _STATUSES
        return Refreshed(
            identity_id=self.identity_id,
            status=RefreshStatus(self.status) if known else RefreshStatus.ERROR,
            releases=sum(source.release_outcome == _SUCCESS for source in sources),
            artists=artists.count(_SUCCESS),
            parts=len(sources) + len(artists),
            word=None if known else self.status,
        )


class _Statuses(Wire):
    # Each result is validated separately.
    results: list[Any] = Field(max_length=MOST_RESULTS)


class _Minted(Wire):
    identity_id: Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Health(Wire):
    version: Annotated[Text, StringConstraints(max_length=100)] | None = None
    commit_sha: Annotated[Text, StringConstraints(max_length=100)] | None = None


def read_refreshed(body: bytes | bytearray) -> dict[int, Refreshed]:
    """Return the result for each identity of a refresh reply.

    Leaves out malformed results, and identities with two different ones. Raises
    `MalformedReplyError` if there is no list of results.
    """
    reply = parsed(_Statuses, body)
    if reply is None:
        raise MalformedReplyError("the reply is not JSON with a list `results`")
    found: dict[int, Refreshed] = {}
    contradicted: set[int] = set()
    for item in reply.results:
        try:
            refreshed = _Refreshed.model_validate(item).refreshed()
        except ValidationError:
            continue
        if found.setdefault(refreshed.identity_id, refreshed) != refreshed:
            contradicted.add(refreshed.identity_id)
    return {i: refreshed for i, refreshed in found.items() if i not in contradicted}


def read_minted(body: bytes | bytearray) -> int:
    """Return the minted identity; raises `MalformedReplyError` if the reply has none."""
    minted = parsed(_Minted, body)
    if minted is None:
        raise MalformedReplyError("the reply names no identity")
    return minted.identity_id


def read_release(body: bytes | bytearray) -> str | None:
    """Return version and commit from a health reply, or None if it has neither."""
    health = parsed(_Health, body)
    if health is None:
        return None
    return " ".join(part for part in (health.version, health.commit_sha) if part) or None


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


# In this order: a malformed entry, or anything but a list, is kept as it came.
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
