"""The simulated LML's per-track store: what it says about the credits of a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import exp
from statistics import NormalDist
from typing import Any, NamedTuple

from listener.simulator.verdicts import METHODS, through_float32

MOST_CREDITS = 2364
# A log-normal distribution with mean 56 and 99th percentile 483.
_CREDITS = NormalDist(mu=3.21, sigma=1.277)
_FIRST = ("Mira", "Odo", "Jún", "Ада", "Zoë", "Tomé", "Ines", "李", "Bo", "Ørn", "Kaya", "Ned")
_LAST = ("Valte", "O'Dane", "Quist", "Мир", "Brème", "Sato", "Lund", "Achebe", "明", "Ruiz")
_TITLES = ("Glass", "Harbour", "Nuit", "Ember", "Static", "Łąka", "Tide", "Signal", "Orchard")


class Tracks(NamedTuple):
    """The two track fields of one result: (attempted, entries)."""

    attempted: bool | None
    entries: list[dict[str, Any]] | None


class Credit(NamedTuple):
    """One credit of a release as its sleeve has it; position and title may be unknown."""

    artist_name: str
    track_title: str | None
    track_position: str | None


@dataclass(frozen=True, slots=True)
class TrackStore:
    """Which releases the store has visited; the shares are parts of 1 of the legacy release ids.

    `overrides` maps a legacy release id to its answer. What is neither not visited nor empty has
    entries, `resolved_share` of them with an artist.
    """

    not_visited_share: float = 0.15
    empty_share: float = 0.15
    resolved_share: float = 0.7
    overrides: Mapping[int, Tracks] = field(default_factory=dict)


def tracks_for(legacy_release_id: int | None, kind: str, store: TrackStore) -> Tracks:
    """Return the tracks of a release that were asked for.

    Unresolved releases carry nulls; releases without a legacy id and those of a single artist are
    never visited.
    """
    if kind == "unresolved":
        return Tracks(None, None)
    if legacy_release_id is None:
        return Tracks(attempted=False, entries=[])
    if legacy_release_id in store.overrides:
        return store.overrides[legacy_release_id]
    share = _share("state", legacy_release_id)
    if kind != "compilation" or share < store.not_visited_share:
        return Tracks(attempted=False, entries=[])
    if share < store.not_visited_share + store.empty_share:
        return Tracks(attempted=True, entries=[])
    entries = entries_for(legacy_release_id, resolved_share=store.resolved_share)
    return Tracks(attempted=True, entries=entries)


def credits_of(legacy_release_id: int, count: int | None = None) -> list[Credit]:
    """Return the release's credits, each (artist name, title) once: 1 to 2,364, or `count`."""
    if count is None:
        share = min(max(_share("count", legacy_release_id), 1e-9), 1 - 1e-9)
        count = max(1, min(MOST_CREDITS, round(exp(_CREDITS.inv_cdf(share)))))
    return [_credit(legacy_release_id, place) for place in range(count)]


def entries_for(
    legacy_release_id: int, count: int | None = None, resolved_share: float = 1.0
) -> list[dict[str, Any]]:
    """Return the release's track entries, as many as it has credits or `count`."""
    return [
        _entry(legacy_release_id, place, credit, resolved_share)
        for place, credit in enumerate(credits_of(legacy_release_id, count))
    ]


def _credit(legacy_release_id: int, place: int) -> Credit:
    first, last = _pick(legacy_release_id, place, _FIRST), _pick(place, legacy_release_id, _LAST)
    title = f"{_TITLES[place % len(_TITLES)]} {place + 1}"
    position = f"{'ABCD'[place // 12 % 4]}{place % 12 + 1}" if place % 5 else None
    return Credit(f"{first} {last}", title if place != 3 else None, position)  # noqa: PLR2004


def _entry(
    legacy_release_id: int, place: int, credit: Credit, resolved_share: float
) -> dict[str, Any]:
    share = _share(f"track {place}", legacy_release_id)
    resolved = share < resolved_share
    confidence, method = through_float32(1 - share / 2), METHODS[place % len(METHODS)]
    source = {
        "source": "discogs",
        "method": method,
        "confidence": confidence,
        "external_id": str(legacy_release_id * 100 + place),
    }
    return {
        "track_position": credit.track_position,
        "artist_name": credit.artist_name,
        "track_title": credit.track_title,
        "resolved_artist_name": credit.artist_name if resolved else None,
        "confidence": confidence if resolved else None,
        "method": method if resolved else None,
        "sources": [source] if resolved else [],
    }


def _pick(a: int, b: int, words: tuple[str, ...]) -> str:
    return words[(a * 31 + b * 17) % len(words)]


def _share(purpose: str, legacy_release_id: int) -> float:
    digest = blake2b(f"{purpose}\x00{legacy_release_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
