"""What LML says when it is asked to refresh identities, and how that is counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from listener.domain.question import Failing
from listener.domain.retrying import Retry

# LML refuses more: 50 cold identities are about 200 Discogs calls, four of the edge's five minutes.
LML_REFRESH_BATCH_CAP = 50


class Status(StrEnum):
    """What became of an identity; an error is the only one that is worth another try."""

    WARMED = "warmed"
    NOT_FOUND = "not_found"
    NOT_IMPLEMENTED = "not_implemented"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What LML says of one identity.

    `releases` and `artists` count those that are fresh now, `parts` all that it reports on. `word`
    is LML's own status if it is one that we do not know: it stands for an error that stays.
    """

    identity_id: int
    status: Status
    releases: int = 0
    artists: int = 0
    parts: int = 0
    word: str | None = None

    @property
    def worth_a_retry(self) -> bool:
        """Whether it may turn out otherwise next time."""
        return self.status is Status.ERROR and self.word is None


@dataclass(frozen=True, slots=True)
class Played:
    """A row of the rotation that is being played; `known`: its identity answered lately."""

    row_id: int
    identity_id: int | None
    discogs_release_id: int | None
    album_id: int | None
    known: bool
    failing: Failing | None = None


@dataclass(frozen=True, slots=True)
class RotationFailure:
    """A rotation row whose identity could not be minted or refreshed, and when to try again."""

    row_id: int
    detail: str
    retry: Retry


@dataclass(frozen=True, slots=True)
class RotationCoverage:
    """The rows being played by what they can be warmed by.

    `resolved` rows have both a Discogs release and an identity; `coverage` is their share (0..1) of
    those with a Discogs release, 1 if there are none. `identities` counts each once; the identity
    of `warmed_24h` rows was warmed within a day.
    """

    active: int
    with_discogs_id: int
    with_identity: int
    resolved: int
    coverage: float
    identities: int
    warmed_24h: int


@dataclass(slots=True)
class RotationTally:
    """What became of identities: scanned = resolved + lml_error, always.

    Each identity counts once, however often it was tried. `warmed_releases` and `warmed_artists`
    count what lies behind them. `calls` and `latency` are those of the refresh calls.
    """

    warmed: int = 0
    not_found: int = 0
    not_implemented: int = 0
    lml_error: int = 0
    warmed_releases: int = 0
    warmed_artists: int = 0
    calls: int = 0
    latency: timedelta = timedelta()

    @property
    def scanned(self) -> int:
        """Identities that LML was asked about."""
        return self.resolved + self.lml_error

    @property
    def resolved(self) -> int:
        """Identities that LML said something of use about."""
        return self.warmed + self.not_found + self.not_implemented

    def count(self, refreshed: Refreshed) -> None:
        """Take in what LML said last of an identity."""
        self.warmed_releases += refreshed.releases
        self.warmed_artists += refreshed.artists
        match refreshed.status:
            case Status.WARMED:
                self.warmed += 1
            case Status.NOT_FOUND:
                self.not_found += 1
            case Status.NOT_IMPLEMENTED:
                self.not_implemented += 1
            case Status.ERROR:
                self.lml_error += 1

    def report(self) -> dict[str, int]:
        """Return the counts under the names that dashboards know; every name is always there."""
        return {
            "identities_scanned": self.scanned,
            "identities_resolved": self.resolved,
            "warmed_releases": self.warmed_releases,
            "warmed_artists": self.warmed_artists,
            "not_found": self.not_found,
            "not_implemented": self.not_implemented,
            "lml_error": self.lml_error,
        }

    def fields(self) -> dict[str, int]:
        """Return the counts under the names that logs and the book of runs use."""
        took = round(self.latency.total_seconds() * 1000)
        return self.report() | {"refresh_calls": self.calls, "refresh_latency_ms": took}
