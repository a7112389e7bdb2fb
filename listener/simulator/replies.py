"""The simulated LML's honest answers to bulk calls, as bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from listener.simulator.faults import BodyKind
from listener.simulator.requests import BulkInput, Rejection
from listener.simulator.tracks import TrackStore, tracks_for
from listener.simulator.verdicts import (
    CONFIDENCES,
    ArtistPart,
    Knowledge,
    artist_part,
    title_step,
)

REMEMBERED_ARTISTS = 20_000
_CONFIDENCE_TEXTS = tuple(map(repr, CONFIDENCES))
_HTML = b"<html><head><title>Error</title></head><body><h1>Something went wrong</h1></body></html>"
_MEDIA_TYPES = {"html": "text/html", "text": "text/plain", "empty": "text/plain"}


@dataclass(frozen=True, slots=True)
class Wire:
    """How this release of LML writes its answers; releases in use differ in these things."""

    tracks_contract_version: int | None = 1
    cache_stats: bool = True
    omit_nulls: bool = False
    error_body: Literal["message", "detail"] = "message"


class Answers:
    """Writes bulk replies; remembers each artist's part of the JSON text."""

    def __init__(self, knowledge: Knowledge, wire: Wire, store: TrackStore) -> None:
        """Answer from this knowledge, in this release's form."""
        self.knowledge = knowledge
        self.wire = wire
        self.store = store
        self._artists: dict[str, ArtistPart] = {}

    def bulk(self, inputs: list[BulkInput], *, with_tracks: bool) -> bytes:
        """Return the whole reply to `inputs`, in their order."""
        write = self._result_with_tracks if with_tracks else self._result
        results = ",".join([write(row) for row in inputs])
        return f'{{"results":[{results}]{self._envelope(len(inputs))}}}'.encode()

    def _envelope(self, rows: int) -> str:
        """Return the fields after the results, each with its comma in front."""
        fields = {
            "tracks_contract_version": self.wire.tracks_contract_version,
            "cache_stats": _cache_stats(rows) if self.wire.cache_stats else None,
        }
        present = {k: v for k, v in fields.items() if v is not None or not self.wire.omit_nulls}
        return "," + json.dumps(present)[1:-1] if present else ""

    def _result(self, row: BulkInput) -> str:
        artist_name = row["artist_name"]
        part = self._artists.get(artist_name) or self._artist(artist_name)
        if not part.title_decides:
            return f'{{"library_id":{row["library_id"]},{part.text}'
        confidence = _CONFIDENCE_TEXTS[title_step(artist_name, row["album_title"])]
        return f'{{"library_id":{row["library_id"]},"confidence":{confidence},{part.text}'

    def _result_with_tracks(self, row: BulkInput) -> str:
        text = self._result(row)
        kind = self._artists[row["artist_name"]].kind
        tracks = tracks_for(row.get("legacy_release_id"), kind, self.store)
        if self.wire.omit_nulls and tracks.attempted is None:
            return text
        fields = {"tracks_attempted": tracks.attempted, "tracks": tracks.entries}
        return f"{text[:-1]},{json.dumps(fields)[1:]}"

    def _artist(self, artist_name: str) -> ArtistPart:
        part = artist_part(artist_name, self.knowledge)
        if self.wire.omit_nulls:
            plain = _without_nulls(json.loads("{" + part.text))
            part = part._replace(text=json.dumps(plain)[1:])
        if len(self._artists) >= REMEMBERED_ARTISTS:
            self._artists.clear()
        self._artists[artist_name] = part
        return part


def error_body(rejection: Rejection, kind: BodyKind) -> tuple[bytes, str]:
    """Return the body of an error and its media type."""
    if kind == "html":
        return _HTML, _MEDIA_TYPES[kind]
    if kind in {"text", "empty"}:
        return b"" if kind == "empty" else rejection.message.encode(), _MEDIA_TYPES[kind]
    if kind == "detail":
        document: dict[str, Any] = {"detail": rejection.details or rejection.message}
    else:
        document = {"message": rejection.message}
        if rejection.details is not None:
            document["details"] = rejection.details
    return json.dumps(document).encode(), "application/json"


def _without_nulls(verdict: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in verdict.items() if value is not None}
    if isinstance(main := plain.get("main"), dict):
        plain["main"] = {name: value for name, value in main.items() if value is not None}
    return plain


def _cache_stats(rows: int) -> dict[str, float]:
    return {
        "memory_hits": rows // 2,
        "pg_hits": rows - rows // 2 - rows // 10,
        "pg_misses": rows // 10,
        "api_calls": 0,
        "pg_time_ms": round(rows * 0.05, 3),
        "api_time_ms": 0.0,
    }
