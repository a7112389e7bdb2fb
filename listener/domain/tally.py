"""Counts by outcome."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

_BUCKETS_PER_DECADE = 40


class Skip(StrEnum):
    """Why a row that was looked at ends without an identity or an `unresolved`."""

    COMPILATION = "compilation"
    NULL_ARTIST = "null_artist"
    GONE = "gone"
    ALREADY_ANSWERED = "already_answered"
    SUPERSEDED = "superseded"
    MISMATCH = "lml_cardinality_mismatch"
    INVALID = "lml_invalid"
    LML_ERROR = "lml_error"
    WRITER_ERROR = "writer_error"


@dataclass(slots=True)
class Tally:
    """What became of library rows: scanned = resolved + unresolved + the sum of skipped.

    `source_rows_skipped_null_confidence` counts provenance entries, `foreign_ids` counts results
    for rows that were not asked about; both stand apart from the rows.
    """

    resolved: int = 0
    unresolved: int = 0
    skipped: Counter[Skip] = field(default_factory=Counter)
    source_rows_skipped_null_confidence: int = 0
    foreign_ids: int = 0
    lml_calls: int = 0

    @property
    def scanned(self) -> int:
        """Rows looked at."""
        return self.resolved + self.unresolved + self.skipped.total()

    def skip(self, reason: Skip, rows: int = 1) -> None:
        """Count rows that end with neither an identity nor an `unresolved`."""
        if rows:
            self.skipped[reason] += rows

    def fields(self) -> dict[str, int]:
        """Return the counts under the names that logs use."""
        counts = {
            "scanned": self.scanned,
            "rows_resolved": self.resolved,
            "rows_unresolved": self.unresolved,
            "source_rows_skipped_null_confidence": self.source_rows_skipped_null_confidence,
            "lml_untrusted_library_id": self.foreign_ids,
            "lml_total_calls": self.lml_calls,
        }
        skipped = {f"rows_skipped.{reason}": count for reason, count in self.skipped.items()}
        return counts | dict(sorted(skipped.items()))


@dataclass(slots=True)
class Distribution:
    """Durations by size, in bounded memory; a quantile is at most 6 % too high."""

    count: int = 0
    longest: timedelta = timedelta()
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, duration: timedelta) -> None:
        """Count one duration; negative ones (a clock was set back) count as zero."""
        seconds = max(duration.total_seconds(), 1e-6)
        self.count += 1
        self.longest = max(self.longest, duration)
        self._buckets[math.ceil(math.log10(seconds) * _BUCKETS_PER_DECADE)] += 1

    def quantile(self, share: float) -> timedelta:
        """Return the duration that `share` (0..1) of all durations do not exceed."""
        left = math.ceil(share * self.count)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(self.longest, timedelta(seconds=10 ** (bucket / _BUCKETS_PER_DECADE)))
        return self.longest
