"""The shapes of LML's replies, and what they mean in our terms."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic_core import to_json

from listener.adapters.lml.failures import MalformedReplyError
from listener.adapters.lml.tracks import STRICT, WireTracks, is_known, read_tracks
from listener.domain.judging import Invalid
from listener.domain.refreshing import Refreshed, Status
from listener.domain.verdict import Identity, Kind, Provenance, Verdict

# PostgreSQL cannot store a NUL character; nothing that LML calls an id or a name is this long.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=2048)]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Int4 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


# The counts and times that a reply may hold about LML's own caches.
_CACHE_STATS = (
    "memory_hits",
    "pg_hits",
    "pg_misses",
    "api_calls",
    "pg_time_ms",
    "api_time_ms",
)
_STATUSES = frozenset(Status)
_SUCCESS = "success"
# Beyond this a float is no longer exact; LML counts calls and milliseconds.
_MOST = 2**53
# Twice what LML may be asked at once.
_MOST_RESULTS = 2_000
# The largest release has 2,364 credits of some 300 bytes.
_LONGEST_RESULT = 2**21


class _Wire(BaseModel):
    model_config = STRICT | ConfigDict(frozen=True)


# The parts of a result are no models: of thousands in a page each would bring a dictionary with it.
@dataclass(slots=True, frozen=True, config=STRICT)
class WireMain:
    """The artist that a verdict names, by catalogue."""

    wikidata_qid: Text | None = None
    spotify_artist_id: Text | None = None
    apple_music_artist_id: Text | None = None


@dataclass(slots=True, frozen=True, config=STRICT)
class WireProvenance:
    """One catalogue's evidence; null confidence and external id say that it was only looked at."""

    source: Text
    method: Text | None = None
    confidence: Confidence | None = None
    external_id: Text | None = None


@dataclass(slots=True, frozen=True, config=STRICT)
class WireResult:
    """One result of bulk-resolve-libraries."""

    library_id: Int4
    kind: Kind = Field(strict=False)
    main: WireMain | None = None
    method: Text | None = None
    confidence: Confidence | None = None
    provenance: list[WireProvenance] | None = None
    # Whatever stands in these two must not cost the result anything.
    tracks_attempted: Any = None
    tracks: WireTracks = None

    def verdict(self, *, trust_tracks: bool) -> Verdict:
        """Return the verdict; raises ValueError if the parts do not make one."""
        if self.kind is Kind.COMPILATION and trust_tracks:
            found = read_tracks(self.tracks_attempted, self.tracks)
            return Verdict(self.library_id, self.kind, tracks=found)
        if self.kind is not Kind.SINGLE_ARTIST:
            return Verdict(self.library_id, self.kind)
        if self.main is None or self.method is None or self.confidence is None:
            message = "a single artist needs main, method and confidence"
            raise ValueError(message)
        entries = self.provenance or []
        # An entry that names no method cannot be stored either: the column is NOT NULL.
        evidence = [
            Provenance(entry.source, entry.method, entry.confidence, entry.external_id)
            for entry in entries
            if entry.confidence is not None
            and entry.external_id is not None
            and entry.method is not None
        ]
        identity = Identity(
            method=self.method,
            confidence=self.confidence,
            wikidata_qid=self.main.wikidata_qid,
            spotify_id=self.main.spotify_artist_id,
            apple_music_id=self.main.apple_music_artist_id,
            provenance=tuple(evidence),
        )
        return Verdict(self.library_id, self.kind, identity, len(entries) - len(evidence))


_RESULT = TypeAdapter(WireResult)


class WireReply(_Wire):
    """A bulk reply; a result that is not well formed stands in it as it came."""

    # In this order: whatever does not make a result is anything.
    results: list[Annotated[WireResult | Any, Field(union_mode="left_to_right")]] = Field(
        max_length=_MOST_RESULTS
    )
    # Whatever stands here must not cost the results anything.
    tracks_contract_version: Any = None
    cache_stats: Any = None


class WireArtist(_Wire):
    """What became of one artist of a release."""

    outcome: Text | None = None


class WireSource(_Wire):
    """What became of a release in one catalogue, and of its artists there."""

    release_outcome: Text | None = None
    artists: list[WireArtist | None] | None = None

    def artist_outcomes(self) -> list[str | None]:
        """Return what became of each artist that is not null."""
        return [artist.outcome for artist in self.artists or [] if artist is not None]


class WireRefreshed(_Wire):
    """One result of refresh-for-identities."""

    identity_id: Int4
    status: Text
    sources: dict[str, WireSource | None] | None = None

    def refreshed(self) -> Refreshed:
        """Return it in our terms; a status that we do not know is an error."""
        sources = [source for source in (self.sources or {}).values() if source is not None]
        artists = [outcome for source in sources for outcome in source.artist_outcomes()]
        known = self.status in _STATUSES
        return Refreshed(
            identity_id=self.identity_id,
            status=Status(self.status) if known else Status.ERROR,
            releases=sum(source.release_outcome == _SUCCESS for source in sources),
            artists=artists.count(_SUCCESS),
            parts=len(sources) + len(artists),
            word=None if known else self.status,
        )


class WireStatuses(_Wire):
    """A refresh reply; each result is read for itself."""

    results: list[Any] = Field(max_length=_MOST_RESULTS)


class WireMinted(_Wire):
    """The answer to a mint."""

    identity_id: Annotated[int, Field(ge=1, le=2**31 - 1)]


class WireHealth(_Wire):
    """What LML says of itself."""

    version: Annotated[Text, StringConstraints(max_length=100)] | None = None
    commit_sha: Annotated[Text, StringConstraints(max_length=100)] | None = None


Shape = TypeVar("Shape", bound=_Wire)


class ReadReply(NamedTuple):
    """What a bulk reply says about the rows, and about LML: its caches, its contract on tracks."""

    results: list[Verdict | Invalid]
    cache_stats: dict[str, float]
    tracks_contract: object = None


def read_reply(body: bytes | bytearray) -> ReadReply:
    """Read a bulk reply, each result for itself: one malformed result costs one row.

    Tracks are read only under the contract that is known here. Raises `MalformedReplyError` if
    there is no list of results, or of too many.
    """
    reply = _parsed(WireReply, body)
    if reply is None:
        raise MalformedReplyError("the reply is not JSON with a list `results`")
    contract = reply.tracks_contract_version
    trusted = is_known(contract)
    results = [_read_result(result, trust_tracks=trusted) for result in reply.results]
    return ReadReply(results, _cache_stats(reply.cache_stats), contract)


def read_refreshed(body: bytes | bytearray) -> dict[int, Refreshed]:
    """Return what a refresh reply says of each identity.

    Malformed results are left out, as are identities that it says two things of. Raises
    `MalformedReplyError` if there is no list of results.
    """
    found: dict[int, Refreshed] = {}
    contradicted: set[int] = set()
    for item in _statuses(body):
        try:
            refreshed = WireRefreshed.model_validate(item).refreshed()
        except ValidationError:
            continue
        if found.setdefault(refreshed.identity_id, refreshed) != refreshed:
            contradicted.add(refreshed.identity_id)
    return {i: refreshed for i, refreshed in found.items() if i not in contradicted}


def read_minted(body: bytes | bytearray) -> int:
    """Return the identity that a mint came to; raises `MalformedReplyError` if there is none."""
    minted = _parsed(WireMinted, body)
    if minted is None:
        raise MalformedReplyError("the reply names no identity")
    return minted.identity_id


def read_release(body: bytes | bytearray) -> str | None:
    """Return version and commit that a health reply names, None if it names neither."""
    health = _parsed(WireHealth, body)
    if health is None:
        return None
    return " ".join(part for part in (health.version, health.commit_sha) if part) or None


def _parsed(shape: type[Shape], body: bytes | bytearray) -> Shape | None:
    """Return the reply, None if it is not of that shape.

    An error of pydantic's holds what it is about: it must not become part of another one.
    """
    try:
        # Parsed and validated in one go, which takes a third of the time.
        return shape.model_validate_json(body)
    except ValidationError:
        return None


def _cache_stats(value: object) -> dict[str, float]:
    """Return what is a sound number of the names known; anything else is left out."""
    if not isinstance(value, dict):
        return {}
    found: dict[str, Any] = {name: value.get(name) for name in _CACHE_STATS}
    # NaN fails the comparison, and True is not of type int.
    return {
        name: number
        for name, number in found.items()
        if type(number) in (int, float) and 0 <= number <= _MOST
    }


def _read_result(item: object, *, trust_tracks: bool) -> Verdict | Invalid:
    try:
        result = item if isinstance(item, WireResult) else _validated(item)
        return result.verdict(trust_tracks=trust_tracks)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "result"
        return Invalid(_library_id(item), f"{where}: {first['type']}")
    except ValueError as error:
        return Invalid(_library_id(item), str(error))


def _statuses(body: bytes | bytearray) -> list[object]:
    reply = _parsed(WireStatuses, body)
    if reply is None:
        raise MalformedReplyError("the reply is not JSON with a list `results`")
    return reply.results


def _validated(item: object) -> WireResult:
    # From JSON again: only there does an object make a strict dataclass.
    text = to_json(item)
    if len(text) > _LONGEST_RESULT:
        raise ValueError(f"a result of {len(text)} bytes")
    return _RESULT.validate_json(text)


def _library_id(item: object) -> int | None:
    if isinstance(item, WireResult):
        return item.library_id
    library_id = item.get("library_id") if isinstance(item, dict) else None
    return library_id if type(library_id) is int else None
