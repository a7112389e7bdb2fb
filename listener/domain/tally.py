"""Counts by outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from math import ceil, log10

from listener.domain.tracks import TrackCount

_BUCKETS_PER_DECADE = 40
_LEAST = 1e-6


class Skip(StrEnum):
    """Why a row ends with neither an identity nor an `unresolved`."""

    COMPILATION = "compilation"
    NULL_ARTIST = "null_artist"
    GONE = "gone"
    ALREADY_ANSWERED = "already_answered"
    SUPERSEDED = "superseded"
    MISMATCH = "lml_cardinality_mismatch"
    UNTRUSTED = "lml_untrusted_library_id"
    INVALID = "lml_invalid"
    LML_ERROR = "lml_error"
    WRITER_ERROR = "writer_error"


FAILURES = frozenset(
    (Skip.MISMATCH, Skip.UNTRUSTED, Skip.INVALID, Skip.LML_ERROR, Skip.WRITER_ERROR)
)


# Counters with another name in reports and logs.
_NAMES = {
    "resolved": "rows_resolved",
    "resolved_compilations": "rows_resolved_compilation",
    "unresolved": "rows_unresolved",
    "lml_calls": "lml_total_calls",
}
# The names in a dry run's report, and in other reports.
_DRY_NAMES = {
    "scanned": "scanned",
    "lml_total_calls": "lml_total_calls",
    "lml_total_latency_ms": "lml_total_latency_ms",
    "would_resolve": "rows_resolved",
    "would_resolve_compilation": "rows_resolved_compilation",
    "would_unresolved": "rows_unresolved",
    "would_skip": "rows_skipped",
    "source_rows_skipped_null_confidence": "source_rows_skipped_null_confidence",
}


@dataclass(slots=True)
class Tally:
    """What became of library rows.

    scanned = resolved + resolved_compilations + unresolved + the sum of skipped. A compilation is
    resolved once LML has visited its tracks. `lml_latency` is the sum over all calls. The fields
    with a meaning count in addition to the rows' outcomes.
    """

    resolved: int = 0
    resolved_compilations: int = 0
    unresolved: int = 0
    skipped: Counter[Skip] = field(default_factory=Counter)
    tracks: Counter[TrackCount] = field(default_factory=Counter)
    source_rows_skipped_null_confidence: int = field(
        default=0, metadata={"meaning": "Provenance entries skipped: no confidence."}
    )
    capture_missed: int = field(
        default=0,
        metadata={"meaning": "Rows whose change never reached the outbox, found by runs."},
    )
    identities_withdrawn: int = field(
        default=0,
        metadata={"meaning": "Removed: the row was renamed, and LML now finds none."},
    )
    resolved_now_unresolved: int = field(
        default=0, metadata={"meaning": "Identities that stay although LML now finds none."}
    )
    kept_manual: int = field(
        default=0, metadata={"meaning": "Identities left alone because a person set them."}
    )
    lml_calls: int = field(default=0, metadata={"meaning": "Bulk calls to LML."})
    lml_latency: timedelta = timedelta()

    @property
    def scanned(self) -> int:
        """The rows that were handled."""
        found = self.resolved + self.resolved_compilations + self.unresolved
        return found + self.skipped.total()

    @property
    def failed(self) -> int:
        """The rows without a usable answer."""
        return sum(self.skipped[reason] for reason in FAILURES)

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def minus(self, earlier: Tally) -> Tally:
        """Return the counts added since `earlier`, a copy of this tally."""
        return Tally(
            **{
                each.name: getattr(self, each.name) - getattr(earlier, each.name)
                for each in fields(self)
            }
        )

    def skip(self, reason: Skip, rows: int = 1) -> None:
        """Count rows that end with neither an identity nor an `unresolved`."""
        if rows:
            self.skipped[reason] += rows

    @property
    def latency_ms(self) -> int:
        """The latency of all calls together, in milliseconds."""
        return round(self.lml_latency.total_seconds() * 1000)

    def counters(self) -> Iterator[tuple[str, str, int]]:
        """Yield name, meaning and count of everything counted besides the rows' outcomes."""
        for each in fields(self):
            if "meaning" in each.metadata:
                yield each.name, each.metadata["meaning"], getattr(self, each.name)

    def report(self) -> dict[str, object]:
        """Return all counts under the names of a run's report, zeros included."""
        skipped = {str(reason): self.skipped[reason] for reason in Skip}
        tracks = {str(count): self.tracks[count] for count in TrackCount}
        return {**self._counts(), "rows_skipped": skipped, **tracks}

    def dry_report(self) -> dict[str, object]:
        """Return the counts under the names of a dry run's report."""
        report = self.report()
        return {dry: report[name] for dry, name in _DRY_NAMES.items()}

    def fields(self) -> dict[str, int]:
        """Return the counts under the names that logs use."""
        skipped = {f"rows_skipped.{reason}": count for reason, count in self.skipped.items()}
        tracks = {str(count): number for count, number in self.tracks.items()}
        return self._counts() | dict(sorted(skipped.items())) | dict(sorted(tracks.items()))

    def _counts(self) -> dict[str, int]:
        numbers = {each.name: getattr(self, each.name) for each in fields(self)}
        counts = {_NAMES.get(k, k): n for k, n in numbers.items() if isinstance(n, int)}
        return {"scanned": self.scanned} | counts | {"lml_total_latency_ms": self.latency_ms}


class Duty(StrEnum):
    """The tables that housekeeping keeps small; its failures are counted under these names."""

    OUTBOX = "outbox"
    LEDGER = "ledger"
    RUNS = "runs"
    REFRESHES = "refreshes"
    WARMTH = "warmth"
    ROTATION_FAILURES = "rotation_failures"
    SAMPLES = "samples"


@dataclass(slots=True)
class Distribution:
    """A histogram of durations in bounded memory; its quantiles are at most 6 % too high."""

    count: int = 0
    longest: timedelta = timedelta()
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: Sequence[float]) -> None:
        """Count durations; negative ones, from a clock that was set back, count as zero."""
        if not seconds:
            return
        self.count += len(seconds)
        self.longest = max(self.longest, timedelta(seconds=max(seconds)))
        counted = [max(_LEAST, each) for each in seconds]
        self._buckets.update([ceil(log10(each) * _BUCKETS_PER_DECADE) for each in counted])

    def quantile(self, share: float) -> timedelta:
        """Return the duration that `share` (0..1) of all durations do not exceed."""
        left = ceil(share * self.count)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(self.longest, timedelta(seconds=10 ** (bucket / _BUCKETS_PER_DECADE)))
        return self.longest
