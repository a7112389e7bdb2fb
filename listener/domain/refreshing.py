"""What LML says when it is asked to refresh identities, and how that is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of an identity: whether it answered lately, and what LML said since when.

    `answered` is None while nothing of use was said about it since the time that was asked about.
    """

    known: bool
    answered: Status | None = None


@dataclass(slots=True)
class RotationTally:
    """What LML said last of identities, each of which counts once: scanned = resolved + lml_error.

    A walk counts all identities that are being played when it begins. It does not ask about those
    that answered since its slot began, to a change or to an interrupted walk of the same slot: they
    count by what was said then. `warmed_releases` and `warmed_artists` count what lies behind the
    identities that were asked about. `calls` and `latency` are those of the refresh calls,
    `mints` counts rows by what became of them: minted, raced (somebody else was faster), refused.
    """

    latest: dict[int, Refreshed] = field(default_factory=dict)
    mints: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    latency: timedelta = timedelta()

    @property
    def scanned(self) -> int:
        """Identities that LML said something about, or was asked in vain."""
        return len(self.latest)

    @property
    def resolved(self) -> int:
        """Identities that LML said something of use about."""
        return self.scanned - self.with_status(Status.ERROR)

    def with_status(self, status: Status) -> int:
        """Return of how many identities LML said this last."""
        return sum(each.status is status for each in self.latest.values())

    def count(self, refreshed: Refreshed) -> None:
        """Take in what LML said last of an identity."""
        # A word of LML's may be of any length.
        self.latest[refreshed.identity_id] = replace(refreshed, word=None)

    def count_former(self, identity_id: int, status: Status) -> None:
        """Take in what was said earlier of an identity that will not be asked about."""
        self.latest.setdefault(identity_id, Refreshed(identity_id, status))

    def report(self) -> dict[str, int]:
        """Return the counts under the names that dashboards know; every name is always there."""
        return {
            "identities_scanned": self.scanned,
            "identities_resolved": self.resolved,
            "warmed_releases": sum(each.releases for each in self.latest.values()),
            "warmed_artists": sum(each.artists for each in self.latest.values()),
            "not_found": self.with_status(Status.NOT_FOUND),
            "not_implemented": self.with_status(Status.NOT_IMPLEMENTED),
            "lml_error": self.with_status(Status.ERROR),
        }

    def fields(self) -> dict[str, int]:
        """Return the counts under the names that logs and the book of runs use."""
        took = round(self.latency.total_seconds() * 1000)
        return self.report() | {
            "refresh_calls": self.calls,
            "refresh_latency_ms": took,
            "rows_minted": self.mints["minted"],
            "mints_raced": self.mints["raced"],
            "mints_refused": self.mints["refused"],
        }
