"""Faults inside a reply: an honest document in, a spoiled one out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from listener.simulator.faults import Fault
from listener.simulator.faults import FaultName as Name
from listener.simulator.requests import Asked

Document = dict[str, Any]
FOREIGN_STEP = 1_000_000
LONG = 100_000
_ENTRY = {"source": "discogs", "method": "exact_match", "confidence": 0.75, "external_id": "42"}
_MAIN = {
    "discogs_artist_id": 42,
    "musicbrainz_artist_id": None,
    "wikidata_qid": "Q42",
    "spotify_artist_id": None,
    "apple_music_artist_id": None,
    "bandcamp_id": None,
}
_SINGLE = {
    "kind": "single_artist",
    "main": _MAIN,
    "method": "exact_match",
    "confidence": 0.75,
    "provenance": [_ENTRY],
}
_ARTIST = {"external_id": "42", "outcome": "success", "message": None}
_SOURCE = {"release_outcome": "success", "artists": [_ARTIST], "message": None}


def _single(**fields: object) -> Document:
    return _SINGLE | fields


def _main(**fields: object) -> Document:
    return _single(main=_MAIN | fields)


def _provenance(**fields: object) -> Document:
    return _single(provenance=[_ENTRY | fields])


def _sources(source: object) -> Document:
    return {"status": "warmed", "sources": {"discogs_release": source}}


# What a spoiled row says. Bulk rows become single artists first, so that the fault is the only
# thing wrong with them; a reply of another endpoint gets the fields that it has.
_BULK_FIELDS: dict[Name, Callable[[int], Document]] = {
    Name.WRONG_TYPES: lambda _: _single(main="text", confidence="high", provenance={"a": 1}),
    Name.NAN: lambda _: _single(confidence=float("nan")),
    Name.INFINITY: lambda _: _single(confidence=float("inf")),
    Name.CONFIDENCE_HIGH: lambda _: _single(confidence=1.5),
    Name.CONFIDENCE_LOW: lambda _: _single(confidence=-0.1),
    Name.NUL: lambda _: _main(wikidata_qid="Q4\x002"),
    Name.LONG_TEXT: lambda size: _main(wikidata_qid="Q" * size),
    Name.BIG_INT: lambda _: _main(discogs_artist_id=2**31),
    Name.UNKNOWN_KIND: lambda _: _single(kind="orchestra"),
    Name.UNKNOWN_METHOD: lambda _: _single(method="divination"),
    Name.UNKNOWN_SOURCE: lambda _: _provenance(source="tidal"),
    Name.NO_MAIN: lambda _: _single(main=None),
    Name.NO_METHOD: lambda _: _single(method=None),
    Name.NO_CONFIDENCE: lambda _: _single(confidence=None),
    Name.NO_PROVENANCE: lambda _: _single(provenance=None),
    Name.NULL_PROVENANCE: lambda _: _provenance(confidence=None, external_id=None),
    Name.PROVENANCE_NAN: lambda _: _provenance(confidence=float("nan")),
    Name.PROVENANCE_HIGH: lambda _: _provenance(confidence=1.5),
    Name.PROVENANCE_NUL: lambda _: _provenance(external_id="4\x002"),
    Name.PROVENANCE_LONG: lambda size: _provenance(external_id="4" * size),
    Name.REPEATED_SOURCE: lambda _: _single(provenance=[_ENTRY, _ENTRY | {"external_id": "43"}]),
    Name.DISAGREEING: lambda _: _provenance(external_id="43"),
    Name.TRACKS_NOT_ATTEMPTED: lambda _: {"tracks_attempted": False},
    Name.TRACKS_WRONG_TYPES: lambda _: {"tracks_attempted": "yes", "tracks": [7, {"sources": 7}]},
}
_REFRESH_FIELDS: dict[Name, Callable[[int], Document]] = {
    Name.WRONG_TYPES: lambda _: {"status": 7, "sources": "text"},
    Name.NUL: lambda _: {"message": "a\x00b"},
    Name.LONG_TEXT: lambda size: {"message": "m" * size},
    Name.UNKNOWN_STATUS: lambda _: {"status": "deferred"},
    Name.NULL_SOURCES: lambda _: {"status": "warmed", "sources": None},
    Name.NULL_SOURCE: lambda _: _sources(None),
    Name.NULL_ARTISTS: lambda _: _sources(_SOURCE | {"artists": None}),
    Name.NULL_ARTIST: lambda _: _sources(_SOURCE | {"artists": [None]}),
    Name.EMPTY_ARTISTS: lambda _: _sources(_SOURCE | {"artists": []}),
}
_IDS: dict[Name, object] = {Name.NULL_ID: None, Name.TEXT_ID: "seven", Name.BIG_ID: 2**31}
_DOCUMENTS: dict[Name, Callable[[Document], object]] = {
    Name.LIST_DOCUMENT: lambda document: [document],
    Name.NO_RESULTS: lambda document: {k: v for k, v in document.items() if k != "results"},
    Name.NULL_RESULTS: lambda document: document | {"results": None},
    Name.OBJECT_RESULTS: lambda document: document | {"results": {"0": document.get("results")}},
    Name.EMPTY_RESULTS: lambda document: document | {"results": []},
    Name.JUNK_CACHE_STATS: lambda document: (
        document | {"cache_stats": {"memory_hits": "many", "pg_hits": None, "api_time_ms": [1]}}
    ),
    Name.NO_CONTRACT_VERSION: lambda document: {
        k: v for k, v in document.items() if k != "tracks_contract_version"
    },
}


def spoil(document: Document, fault: Fault, asked: Asked) -> object:
    """Return `document` with the fault in it; untouched where its endpoint has no such thing."""
    if fault.name in _DOCUMENTS:
        return _DOCUMENTS[fault.name](document)
    if "results" not in document:
        return document | _fields_of(document, fault)
    results = document["results"]
    return document | {"results": _spoil_results(results, _hit(results, fault, asked), fault)}


def implemented() -> frozenset[Name]:
    """Return the names of all faults that `spoil` knows."""
    return frozenset([*_BULK_FIELDS, *_REFRESH_FIELDS, *_IDS, *_DOCUMENTS, *_LISTS])


def _hit(results: list[Document], fault: Fault, asked: Asked) -> list[int]:
    if fault.is_aimed:
        return [place for place, row in enumerate(asked.rows()) if fault.picks(*row)]
    return list(range(len(results) if fault.rows is None else min(fault.rows, len(results))))


def _spoil_results(results: list[Any], hit: list[int], fault: Fault) -> list[Any]:
    if fault.name in _LISTS:
        return _LISTS[fault.name](results, hit)
    for place in hit:
        results[place] = results[place] | _fields_of(results[place], fault)
    return results


def _fields_of(result: Document, fault: Fault) -> Document:
    if fault.name in _IDS:
        return {_id_name(result): _IDS[fault.name]}
    fields = _REFRESH_FIELDS if "identity_id" in result else _BULK_FIELDS
    build = fields.get(fault.name)
    return build(fault.size or LONG) if build else {}


def _id_name(result: Document) -> str:
    return "library_id" if "library_id" in result else "identity_id"


def _foreign(result: Document) -> Document:
    return result | {_id_name(result): result[_id_name(result)] + FOREIGN_STEP}


def _conflicting(result: Document) -> Document:
    if "identity_id" in result:
        return result | {"status": "not_found", "sources": None}
    if result["kind"] == "single_artist":
        return result | {"kind": "unresolved", "main": None, "method": None, "confidence": None}
    return result | _SINGLE


_LISTS: dict[Name, Callable[[list[Any], list[int]], list[Any]]] = {
    Name.SHORT: lambda rows, hit: [row for place, row in enumerate(rows) if place not in hit],
    Name.FOREIGN: lambda rows, hit: rows + [_foreign(rows[place]) for place in hit],
    Name.REPEATED: lambda rows, hit: rows + [rows[place] for place in hit],
    Name.CONFLICTING: lambda rows, hit: rows + [_conflicting(rows[place]) for place in hit],
    Name.PERMUTED: lambda rows, _: rows[::-1],
    Name.NOT_AN_OBJECT: lambda rows, hit: [
        7 if place in hit else row for place, row in enumerate(rows)
    ],
}
