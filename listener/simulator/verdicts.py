"""What the simulated LML knows: verdicts computed from the artist name and the album title."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

SOURCES = ("discogs", "wikidata", "spotify", "musicbrainz", "apple_music", "bandcamp")
METHODS = (
    "exact_match",
    "cross_source_agreement",
    "name_variation",
    "alias_match",
    "trigram",
    "member_group",
    "llm",
)
_VARIOUS = ("various artists", "various", "v/a", "v.a.", "va")
# In the order of SOURCES: the field of `main`, and how the id stands in JSON.
_MAIN_FIELDS = (
    '"discogs_artist_id":%s',
    '"wikidata_qid":"%s"',
    '"spotify_artist_id":"%s"',
    '"musicbrainz_artist_id":"%s"',
    '"apple_music_artist_id":"%s"',
    '"bandcamp_id":"%s"',
)
_LETTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_AS_LETTERS = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))


def through_float32(value: float) -> float:
    """Round `value` the way a number does that passed through a 4-byte column."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


# Everything below is a table because a page of 500 new artists must take about two milliseconds.
# 0.5 to 1.0 in 4,096 steps.
CONFIDENCES = tuple(through_float32(0.5 + step / 8190) for step in range(4096))
# A provenance entry up to its id, by source and by one byte of the artist's digest.
_LEADS = tuple(
    tuple(
        f'{{"source":"{source}","method":"{METHODS[byte % len(METHODS)]}",'
        f'"confidence":{CONFIDENCES[byte << 4 | place]},"external_id":"'
        for byte in range(256)
    )
    for place, source in enumerate(SOURCES)
)
_MAINS = tuple(
    ",".join(
        field if place < entries else field[: field.index(":")] + ":null"
        for place, field in enumerate(_MAIN_FIELDS)
    )
    for entries in range(len(SOURCES) + 1)
)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What decides a verdict besides the question; another `version` changes nearly all of them.

    The shares are parts of 1; what they leave over are compilations. A single artist has as many
    provenance entries as `entries` says, a varying number if that is 0. `overrides` maps an artist
    name to fields that replace the computed ones: `{"kind": "unresolved"}` alone is enough, the
    rest is then computed for that kind.
    """

    version: str = "1"
    single_artist_share: float = 0.6
    unresolved_share: float = 0.3
    all_single: bool = False
    entries: int = 0
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


DEFAULT_KNOWLEDGE = Knowledge()


class ArtistPart(NamedTuple):
    """What the artist name alone decides.

    `text` is the verdict's JSON without the opening brace, and without the confidence if the
    album title decides that.
    """

    kind: str
    text: str
    title_decides: bool


def verdict_for(
    artist_name: str, album_title: str, knowledge: Knowledge = DEFAULT_KNOWLEDGE
) -> dict[str, Any]:
    """Return the JSON result for a question, without `library_id` and the track fields.

    Kind, ids, method and provenance follow from the artist name alone. Of a single artist the
    album title moves the confidence, so a verdict shows which question was answered.
    """
    part = artist_part(artist_name, knowledge)
    verdict: dict[str, Any] = json.loads("{" + part.text)
    if part.title_decides:
        verdict["confidence"] = CONFIDENCES[title_step(artist_name, album_title)]
    return verdict


def title_step(artist_name: str, album_title: str) -> int:
    """Return the index of a question's confidence in `CONFIDENCES`, for every knowledge."""
    return crc32(f"{artist_name}\x00{album_title}".encode("utf-8", "surrogatepass")) & 4095


def artist_part(artist_name: str, knowledge: Knowledge) -> ArtistPart:
    """Return the part of a verdict that no album title changes."""
    digest = blake2b(
        f"{knowledge.version}\x00{artist_name}".encode("utf-8", "surrogatepass"), digest_size=32
    ).digest()
    override = knowledge.overrides.get(artist_name) if knowledge.overrides else None
    kind = _kind(artist_name, digest, knowledge) if override is None else override.get("kind")
    part = _part(kind or _kind(artist_name, digest, knowledge), digest, knowledge)
    return part if override is None else _overridden(part, override)


def _kind(artist_name: str, digest: bytes, knowledge: Knowledge) -> str:
    if knowledge.all_single:
        return "single_artist"
    name = artist_name.casefold().strip()
    if name in _VARIOUS or name.startswith(("various artists ", "various artists:")):
        return "compilation"
    share = int.from_bytes(digest[:4], "big") / 2**32
    if share < knowledge.single_artist_share:
        return "single_artist"
    share -= knowledge.single_artist_share
    return "unresolved" if share < knowledge.unresolved_share else "compilation"


def _part(kind: str, digest: bytes, knowledge: Knowledge) -> ArtistPart:
    if kind == "single_artist":
        entries = 3 if knowledge.all_single else 1 + digest[4] % len(SOURCES)
        entries = knowledge.entries or entries
        return ArtistPart(kind, _single_artist(digest, entries), title_decides=True)
    legs = json.dumps(_legs_without_finding(kind, digest))
    nulls = '"main":null,"method":null,"confidence":null'
    return ArtistPart(kind, f'"kind":"{kind}",{nulls},"provenance":{legs}}}', title_decides=False)


def _overridden(part: ArtistPart, override: Mapping[str, Any]) -> ArtistPart:
    verdict = json.loads("{" + part.text) | override
    title_decides = part.title_decides and "confidence" not in override
    return ArtistPart(part.kind, json.dumps(verdict)[1:], title_decides)


def _single_artist(digest: bytes, entries: int) -> str:
    ids = _external_ids(digest, entries)
    provenance = '"},'.join(
        [_LEADS[place][digest[8 + place]] + external_id for place, external_id in enumerate(ids)]
    )
    method = METHODS[digest[8] % len(METHODS)]
    return (
        f'"kind":"single_artist","main":{{{_MAINS[entries] % ids}}},"method":"{method}",'
        f'"provenance":[{provenance}"}}]}}'
    )


def _external_ids(digest: bytes, entries: int) -> tuple[str, ...]:
    """Return the ids of the first `entries` sources."""
    number = int.from_bytes(digest[20:24], "big") >> 5
    spotify_id = digest[:22].translate(_AS_LETTERS).decode()
    ids = (f"{number + 1}", f"Q{number + 1000}", spotify_id)
    if entries <= len(ids):
        return ids[:entries]
    text = digest.hex()
    musicbrainz_id = f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:32]}"
    return (*ids, musicbrainz_id, f"{number + 100_000_000}", f"band-{text[:12]}")[:entries]


def _legs_without_finding(kind: str, digest: bytes) -> list[dict[str, Any]]:
    """One unresolved artist in eight carries the legs that ran and found nothing."""
    if kind != "unresolved" or digest[5] % 8:
        return []
    method = METHODS[digest[6] % len(METHODS)]
    return [
        {"source": source, "method": method, "confidence": None, "external_id": None}
        for source in SOURCES[: 1 + digest[7] % 3]
    ]
