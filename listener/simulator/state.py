"""The simulated LML itself: what it knows, how it behaves, and what it was asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Literal

from listener.simulator.calls import Calls
from listener.simulator.clock import SimulatedClock
from listener.simulator.discogs import DiscogsBudget, DiscogsLimits
from listener.simulator.faults import Endpoint, Faults
from listener.simulator.identities import Identities, IdentityMix, Refresher
from listener.simulator.permits import PERMITS, Gate, WorkPermits
from listener.simulator.replies import Answers, Wire
from listener.simulator.requests import Asked
from listener.simulator.tracks import TrackStore
from listener.simulator.verdicts import Knowledge


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a call takes, in simulated time: at least, per row asked, and at most at random."""

    fixed: timedelta = timedelta()
    per_row: timedelta = timedelta()
    jitter: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Health:
    """What GET /health answers; `unhealthy` with status 503."""

    status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
    version: str = "2.14.0"
    commit_sha: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON body."""
        state = "ok" if self.status == "healthy" else "failing"
        services = {"database": state, "discogs": "ok"}
        return {
            "status": self.status,
            "version": self.version,
            "commit_sha": self.commit_sha,
            "services": services,
        }


class Simulator:
    """One simulated LML. Every public attribute may be set at any time, from any thread.

    `permits` is how many rows of bulk calls and identities of refresh calls are worked on at once
    (None: all); `api_key` None lets everybody in; `max_body` is the edge's limit in bytes.
    """

    def __init__(  # noqa: PLR0913 - each is a switch with a name
        self,
        *,
        knowledge: Knowledge = Knowledge(),  # noqa: B008 - frozen, as are the others
        latency: Latency = Latency(),
        wire: Wire = Wire(),  # noqa: B008
        tracks: TrackStore = TrackStore(),  # noqa: B008
        identities: IdentityMix = IdentityMix(),  # noqa: B008
        discogs: DiscogsLimits = DiscogsLimits(),  # noqa: B008
        permits: int | None = PERMITS,
        api_key: str | None = None,
        clock_factor: float = 1.0,
        kept_rows: int = 50_000,
        seed: int = 0,
    ) -> None:
        """Begin with an honest, idle LML; `seed` decides jitter and the chances of faults."""
        self.latency = latency
        self.api_key = api_key
        self.max_body: int | None = None
        self.health = Health()
        self.faults = Faults(seed)
        self.gate = Gate()
        self.calls = Calls(kept_rows)
        self.clock = SimulatedClock(clock_factor)
        self.identities = Identities(identities)
        self.budget = DiscogsBudget(discogs)
        self._permits = WorkPermits(permits, self.clock)
        self._refresher = Refresher(self.identities, self.budget, self.clock, self._permits.hold)
        self._random = Random(seed)
        self._answers = Answers(knowledge, wire, tracks)

    @property
    def knowledge(self) -> Knowledge:
        """What decides the verdicts."""
        return self._answers.knowledge

    @knowledge.setter
    def knowledge(self, knowledge: Knowledge) -> None:
        self._answers = Answers(knowledge, self.wire, self.tracks)

    @property
    def wire(self) -> Wire:
        """How replies are written."""
        return self._answers.wire

    @wire.setter
    def wire(self, wire: Wire) -> None:
        self._answers = Answers(self.knowledge, wire, self.tracks)

    @property
    def tracks(self) -> TrackStore:
        """The per-track store."""
        return self._answers.store

    @tracks.setter
    def tracks(self, tracks: TrackStore) -> None:
        self._answers = Answers(self.knowledge, self.wire, tracks)

    @property
    def permits(self) -> int | None:
        """How many rows and identities are worked on at once; None: all."""
        return self._permits.number

    @permits.setter
    def permits(self, permits: int | None) -> None:
        self._permits.set(permits)

    @property
    def permits_held(self) -> int:
        """How many rows and identities are worked on now."""
        return self._permits.held

    @property
    def most_at_work(self) -> int:
        """How many permits were ever held at once."""
        return self._permits.most_at_work

    @property
    def discogs(self) -> DiscogsLimits:
        """The limits of the Discogs budget."""
        return self.budget.limits

    @discogs.setter
    def discogs(self, limits: DiscogsLimits) -> None:
        self.budget.change(limits, self.clock.now())

    async def work(self, asked: Asked) -> bytes:
        """Return the honest reply to a valid request after the time it takes."""
        if asked.endpoint is Endpoint.HEALTH:
            return json.dumps(self.health.document()).encode()
        latency = self.latency
        # What LML reads for all rows of a call at once takes no permit.
        await self.clock.sleep(latency.fixed + latency.jitter * self._random.random())
        if asked.endpoint is Endpoint.MINT:
            await self.clock.sleep(latency.per_row)
            return self._mint(asked)
        if asked.endpoint is Endpoint.BULK:
            await self._permits.spend(len(asked.inputs), latency.per_row)
            return self._answers.bulk(asked.inputs, with_tracks=asked.with_tracks)
        results = await self._refresher.refresh(asked.identity_ids, latency.per_row)
        return json.dumps({"results": results}).encode()

    def counters(self) -> dict[str, Any]:
        """Return what happened so far, as JSON values; times in simulated seconds."""
        now = self.clock.now()
        self.budget.advance(now)
        return {
            "calls": dict(self.calls.counts),
            "rows": dict(self.calls.rows),
            "statuses": dict(self.calls.statuses),
            "in_flight": dict(self.calls.in_flight),
            "most_in_flight": dict(self.calls.most_in_flight),
            "most_at_work": self.most_at_work,
            "simulated_seconds": now,
            "discogs": {
                "calls": self.budget.calls,
                "browsing_calls": self.budget.browsing_calls,
                "longest_browsing_wait": self.budget.longest_browsing_wait,
                "busiest_minute": self.budget.busiest_minute(),
                "breaker_open": self.budget.is_open(now),
            },
        }

    def _mint(self, asked: Asked) -> bytes:
        identity_id, minted = self.identities.mint(asked.source, asked.external_id)
        return json.dumps(
            {"identity_id": identity_id, "kind": "release", "minted": minted}
        ).encode()
