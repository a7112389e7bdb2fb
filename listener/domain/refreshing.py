"""LML's replies about refreshed identities, and how we count them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from listener.domain.retrying import Failing, Retry

# LML's own limit: 50 cold identities need about 200 Discogs calls, or four of the five minutes that
# the edge allows.
LML_REFRESH_BATCH_CAP = 50


class RefreshStatus(StrEnum):
    """What became of an identity; only an error may be worth another try."""

    WARMED = "warmed"
    NOT_FOUND = "not_found"
    NOT_IMPLEMENTED = "not_implemented"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What LML reports about one identity.

    `releases` and `artists` count those that are fresh now, `parts` all those that LML mentions.
    `word` holds LML's status if we do not know it; we treat it as a permanent error.
    """

    identity_id: int
    status: RefreshStatus
    releases: int = 0
    artists: int = 0
    parts: int = 0
    word: str | None = None

    @property
    def worth_a_retry(self) -> bool:
        """Whether another attempt may succeed."""
        return self.status is RefreshStatus.ERROR and self.word is None


@dataclass(frozen=True, slots=True)
class Played:
    """A rotation row that is being played; `known` if its identity answered lately."""

    row_id: int
    identity_id: int | None
    discogs_release_id: int | None
    album_id: int | None
    known: bool
    failing: Failing | None = None
    artist: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class RotationFailure:
    """A rotation row whose identity could not be minted or refreshed, and when to try again."""

    row_id: int
    detail: str
    retry: Retry


@dataclass(frozen=True, slots=True)
class RotationCoverage:
    """How many of the rows being played can be warmed.

    `resolved` rows have both a Discogs release and an identity; `coverage` is their share (0..1) of
    those with a Discogs release, 1 if there are none. `identities` counts each once; the identity
    of `warmed_24h` rows was warmed within a day. `coldest` is when LML last gave a useful answer
    about the identity that has waited longest.
    """

    active: int
    with_discogs_id: int
    with_identity: int
    resolved: int
    coverage: float
    identities: int
    warmed_24h: int
    coldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an identity answered recently, and its status since a given time.

    `answered` is None if LML has given no useful answer about it since that time.
    """

    known: bool
    answered: RefreshStatus | None = None


@dataclass(slots=True)
class RotationTally:
    """Counts each identity once, by LML's latest status: scanned = resolved + lml_error.

    A walk counts all identities that are being played when it begins. It skips those that already
    answered in its slot, after a change or in an interrupted walk, and counts them by that answer.
    `warmed_releases` and `warmed_artists` count what belongs to the identities it asked about.
    `calls` and `latency` are those of the refresh calls. `mints` counts rows by outcome: minted,
    raced (another session was faster), refused.
    """

    latest: dict[int, Refreshed] = field(default_factory=dict)
    mints: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    latency: timedelta = timedelta()

    @property
    def scanned(self) -> int:
        """The identities that were asked about, with or without an answer."""
        return len(self.latest)

    @property
    def resolved(self) -> int:
        """The identities with a useful answer."""
        return self.scanned - self.with_status(RefreshStatus.ERROR)

    def with_status(self, status: RefreshStatus) -> int:
        """Return the number of identities whose latest status is this one."""
        return sum(each.status is status for each in self.latest.values())

    def count(self, refreshed: Refreshed) -> None:
        """Count LML's latest answer about an identity."""
        # LML's own word may be of any length.
        self.latest[refreshed.identity_id] = replace(refreshed, word=None)

    def count_former(self, identity_id: int, status: RefreshStatus) -> None:
        """Count an earlier answer about an identity that need not be asked about again."""
        self.latest.setdefault(identity_id, Refreshed(identity_id, status))

    def report(self) -> dict[str, int]:
        """Return all counts under the names that dashboards use, zeros included."""
        return {
            "identities_scanned": self.scanned,
            "identities_resolved": self.resolved,
            "warmed_releases": sum(each.releases for each in self.latest.values()),
            "warmed_artists": sum(each.artists for each in self.latest.values()),
            "not_found": self.with_status(RefreshStatus.NOT_FOUND),
            "not_implemented": self.with_status(RefreshStatus.NOT_IMPLEMENTED),
            "lml_error": self.with_status(RefreshStatus.ERROR),
        }

    def fields(self) -> dict[str, int]:
        """Return the counts under the names that logs and recorded runs use."""
        took = round(self.latency.total_seconds() * 1000)
        return self.report() | {
            "refresh_calls": self.calls,
            "refresh_latency_ms": took,
            "rows_minted": self.mints["minted"],
            "mints_raced": self.mints["raced"],
            "mints_refused": self.mints["refused"],
        }
