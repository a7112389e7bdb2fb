"""LML's replies to questions about library rows, and the verdicts in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_json

from listener.adapters.lml.failures import MalformedReplyError
from listener.adapters.lml.wire import (
    MOST_RESULTS,
    STRICT,
    Int4,
    Text,
    Wire,
    WireTracks,
    is_known,
    parsed,
    read_tracks,
)
from listener.domain.judging import Invalid
from listener.domain.verdict import Identity, Kind, Provenance, Verdict

# Reading a reply this long is put off for a moment, so that a waiting call is sent first.
_READ_LATER = 2**16
_MOMENT = timedelta(milliseconds=1)
# A reply this long is read in a thread; for shorter ones the thread costs more than it saves.
_READ_IN_THREAD = 2**19
# The counters and times of LML's caches that a reply may contain.
_CACHE_STATS = ("memory_hits", "pg_hits", "pg_misses", "api_calls", "pg_time_ms", "api_time_ms")
# Above this a float is no longer exact; LML counts calls and milliseconds.
_MOST = 2**53
# The largest release has 2,364 credits of some 300 bytes.
_LONGEST_RESULT = 2**21

_Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


# The parts of a result are not models: each of the thousands in a batch would carry a dictionary.
@dataclass(slots=True, frozen=True, config=STRICT)
class _Main:
    """The artist that a verdict names, by catalogue."""

    wikidata_qid: Text | None = None
    spotify_artist_id: Text | None = None
    apple_music_artist_id: Text | None = None


@dataclass(slots=True, frozen=True, config=STRICT)
class _Provenance:
    """One catalogue's evidence; without confidence and external id LML only searched there."""

    source: Text
    method: Text | None = None
    confidence: _Confidence | None = None
    external_id: Text | None = None


@dataclass(slots=True, frozen=True, config=STRICT)
class _Result:
    """One result of bulk-resolve-libraries."""

    library_id: Int4
    kind: Kind = Field(strict=False)
    main: _Main | None = None
    method: Text | None = None
    confidence: _Confidence | None = None
    provenance: list[_Provenance] | None = None
    # Whatever these two contain, the result stays valid.
    tracks_attempted: Any = None
    tracks: WireTracks = None

    def verdict(self, *, trust_tracks: bool) -> Verdict:
        """Return the verdict; raises ValueError if parts of it are missing."""
        if self.kind is Kind.COMPILATION and trust_tracks:
            found = read_tracks(self.tracks_attempted, self.tracks)
            return Verdict(self.library_id, self.kind, tracks=found)
        if self.kind is not Kind.SINGLE_ARTIST:
            return Verdict(self.library_id, self.kind)
        if self.main is None or self.method is None or self.confidence is None:
            message = "a single artist needs main, method and confidence"
            raise ValueError(message)
        entries = self.provenance or []
        # An entry without a method cannot be stored either: the column is NOT NULL.
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


_RESULT = TypeAdapter(_Result)


class _Reply(Wire):
    # In this order: an invalid element is kept as it came.
    results: list[Annotated[_Result | Any, Field(union_mode="left_to_right")]] = Field(
        max_length=MOST_RESULTS
    )
    # Whatever these contain, the results stay valid.
    tracks_contract_version: Any = None
    cache_stats: Any = None


class _ReadReply(NamedTuple):
    """The results, LML's cache statistics, and the version of its contract on tracks."""

    results: list[Verdict | Invalid]
    cache_stats: dict[str, float]
    tracks_contract: object = None


class BulkReply:
    """The body of a reply, read only when asked to, so that the next call can be sent first.

    Of long replies that share `turn` one is read at a time: parsed, each takes many times its
    length. `cache_stats` are LML's cache statistics, empty until the reply was read.
    """

    def __init__(
        self,
        body: bytearray,
        unreadable: type[Exception],
        turn: asyncio.Lock,
        check_contract: Callable[[object], None] | None = None,
    ) -> None:
        self.cache_stats: Mapping[str, float] = {}
        self._body = body
        self._unreadable = unreadable
        self._turn = turn
        self._check_contract = check_contract

    async def read(self) -> list[Verdict | Invalid]:
        """Use up the body: it may be many megabytes, and is not kept for a second call."""
        body = self._body
        if len(body) >= _READ_LATER:
            await asyncio.sleep(_MOMENT.total_seconds())
        try:
            if len(body) < _READ_IN_THREAD:
                reply = read_reply(body)
            else:
                # Meanwhile the loop receives other replies and handles single changes.
                async with self._turn:
                    reply = await asyncio.to_thread(read_reply, body)
        except MalformedReplyError as error:
            raise self._unreadable(str(error)) from error
        finally:
            # An error may outlive its call, and with it everything that its frames hold.
            body.clear()
        self.cache_stats = reply.cache_stats
        if self._check_contract is not None:
            self._check_contract(reply.tracks_contract)
        return reply.results


def read_reply(body: bytes | bytearray) -> _ReadReply:
    """Read a reply, each result separately: a malformed result affects only its own row.

    Tracks are read only under the contract that we know. Raises `MalformedReplyError` if there is
    no list of results, or if it is too long.
    """
    reply = parsed(_Reply, body)
    if reply is None:
        raise MalformedReplyError("the reply is not JSON with a list `results`")
    contract = reply.tracks_contract_version
    trusted = is_known(contract)
    results = [_read_result(result, trust_tracks=trusted) for result in reply.results]
    return _ReadReply(results, _cache_stats(reply.cache_stats), contract)


def _cache_stats(value: object) -> dict[str, float]:
    """Return the known statistics that are plausible numbers."""
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
        result = item if isinstance(item, _Result) else _validated(item)
        return result.verdict(trust_tracks=trust_tracks)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "result"
        return Invalid(_library_id(item), f"{where}: {first['type']}")
    except ValueError as error:
        return Invalid(_library_id(item), str(error))


def _validated(item: object) -> _Result:
    # Back to JSON first: only from JSON does an object become a strict dataclass.
    text = to_json(item)
    if len(text) > _LONGEST_RESULT:
        raise ValueError(f"a result of {len(text)} bytes")
    return _RESULT.validate_json(text)


def _library_id(item: object) -> int | None:
    if isinstance(item, _Result):
        return item.library_id
    library_id = item.get("library_id") if isinstance(item, dict) else None
    return library_id if type(library_id) is int else None
