"""The simulated LML's release identities: minting them, and refreshing them through Discogs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from itertools import count
from typing import Any, NamedTuple

from listener.simulator.clock import SimulatedClock
from listener.simulator.discogs import DiscogsBudget
from listener.simulator.permits import PERMITS

FIRST_MINTED_ID = 100_001
ARTISTS_OF = (2, 3, 3, 3, 3, 4)
# Of one call: those beyond wait for these, and only then for a permit.
_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class IdentityMix:
    """What LML has for an identity id; the shares are parts of 1, the rest is cold.

    `overrides` maps an id to `cold`, `warm`, `tombstone`, `not_found`, `not_implemented`,
    `error`, or any other text, which becomes the status itself. Minted ids are always found.
    """

    warm_share: float = 0.5
    tombstone_share: float = 0.05
    not_found_share: float = 0.0
    not_implemented_share: float = 0.0
    overrides: Mapping[int, str] = field(default_factory=dict)


class Minted(NamedTuple):
    """The answer to a mint: the identity, and whether it is new."""

    identity_id: int
    minted: bool


class Identities:
    """Knows which identities exist and which parts of them are fresh."""

    def __init__(self, mix: IdentityMix = IdentityMix()) -> None:
        """Start with nothing minted and nothing refreshed."""
        self.mix = mix
        self._minted: dict[tuple[str, str], int] = {}
        self._minted_ids: set[int] = set()
        self._ids = count(FIRST_MINTED_ID)
        # (identity, part): part 0 is the release, the others are its artists.
        self._fresh: set[tuple[int, int]] = set()
        self._stale: set[int] = set()

    def mint(self, source: str, external_id: str) -> Minted:
        """Return the one identity of an external id, made now if it is new."""
        known = self._minted.get((source, external_id))
        if known is not None:
            return Minted(known, minted=False)
        identity_id = next(self._ids)
        self._minted[source, external_id] = identity_id
        self._minted_ids.add(identity_id)
        return Minted(identity_id, minted=True)

    def cool(self, identity_ids: Iterable[int]) -> None:
        """Make identities cold, whatever their state."""
        for identity_id in identity_ids:
            self._stale.add(identity_id)
            self._fresh -= {(identity_id, part) for part in range(max(ARTISTS_OF) + 1)}

    def state(self, identity_id: int) -> str:
        """Return the state of the id before anything was refreshed."""
        if identity_id in self.mix.overrides:
            return self.mix.overrides[identity_id]
        if identity_id in self._stale or identity_id in self._minted_ids:
            return "cold"
        share = _digest(identity_id)[0] / 256
        for state, part in (
            ("warm", self.mix.warm_share),
            ("tombstone", self.mix.tombstone_share),
            ("not_found", self.mix.not_found_share),
            ("not_implemented", self.mix.not_implemented_share),
        ):
            if share < part:
                return state
            share -= part
        return "cold"

    def artists_of(self, identity_id: int) -> int:
        """Return how many artists the identity's release has: 2 to 4, 3 on average."""
        return ARTISTS_OF[_digest(identity_id)[1] % len(ARTISTS_OF)]

    def is_fresh(self, identity_id: int, part: int) -> bool:
        """Return whether a part costs Discogs nothing."""
        return (identity_id, part) in self._fresh or self.state(identity_id) == "warm"

    def freshen(self, identity_id: int, part: int) -> None:
        """Remember that a part was fetched."""
        self._fresh.add((identity_id, part))


class Refresher:
    """Refreshes pages of identities, spending Discogs calls for what is not fresh."""

    def __init__(
        self,
        identities: Identities,
        budget: DiscogsBudget,
        clock: SimulatedClock,
        permit: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Work on shared identities, one budget and one clock; each identity holds a permit."""
        self.identities = identities
        self.budget = budget
        self.clock = clock
        self._permit = permit

    async def refresh(
        self, identity_ids: Sequence[int], each: timedelta = timedelta()
    ) -> list[dict[str, Any]]:
        """Return one result per id, in order, when the last Discogs call has ended.

        Each takes `each` beside its Discogs calls.
        """
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def work(identity_id: int) -> dict[str, Any]:
            async with at_once, self._permit():
                await self.clock.sleep(each * min(PERMITS, len(identity_ids)))
                item, _ = await self._item(identity_id, self.clock.now())
                return item

        asked = dict.fromkeys(identity_ids)
        items = await asyncio.gather(*(work(identity_id) for identity_id in asked))
        results = dict(zip(asked, items, strict=True))
        return [results[identity_id] for identity_id in identity_ids]

    async def _item(self, identity_id: int, now: float) -> tuple[dict[str, Any], float]:
        state = self.identities.state(identity_id)
        item: dict[str, Any] = {"identity_id": identity_id, "sources": None, "message": None}
        if state not in {"cold", "warm", "tombstone"}:
            return item | _without_discogs(state), now
        source, now = await self._source(identity_id, state, now)
        warmed = source["release_outcome"] == "success"
        item |= {"status": "warmed" if warmed else "error", "sources": {"discogs_release": source}}
        return item, now

    async def _source(
        self, identity_id: int, state: str, now: float
    ) -> tuple[dict[str, Any], float]:
        outcome, now = await self._part(identity_id, 0, now)
        artists = []
        if outcome == "success" and state != "tombstone":
            for part in range(1, self.identities.artists_of(identity_id) + 1):
                artist, now = await self._part(identity_id, part, now)
                artists.append(_artist(identity_id, part, artist))
        message = "tombstone: Discogs has no such release" if state == "tombstone" else None
        return {"release_outcome": outcome, "artists": artists, "message": message}, now

    async def _part(self, identity_id: int, part: int, now: float) -> tuple[str, float]:
        if self.identities.is_fresh(identity_id, part):
            return "success", now
        grant = self.budget.call(now)
        await self.clock.sleep_until(grant.ends_at)
        if grant.status != 200:  # noqa: PLR2004
            return "error", grant.ends_at
        self.identities.freshen(identity_id, part)
        return "success", grant.ends_at


def _without_discogs(state: str) -> dict[str, Any]:
    sources: dict[str, Any] | None = None
    if state in {"not_implemented", "error"}:
        name = "discogs_release" if state == "error" else "musicbrainz_release"
        sources = {name: {"release_outcome": state, "artists": [], "message": None}}
    return {"status": state, "sources": sources}


def _artist(identity_id: int, part: int, outcome: str) -> dict[str, Any]:
    message = None if outcome == "success" else "Discogs refused the call"
    return {"external_id": str(identity_id * 10 + part), "outcome": outcome, "message": message}


def _digest(identity_id: int) -> bytes:
    return blake2b(str(identity_id).encode(), digest_size=2).digest()
