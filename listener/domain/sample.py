"""Samples: what happened on a stream within some seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from listener.domain.change import Stream

COVERAGE = (
    "resolved",
    "unresolved",
    "compilation",
    "failed",
    "parked",
    "never",
    "nameless",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened on a stream in the last `lasted`.

    `typical` and `worst` are times from the recording of a change to its settlement, None if no
    change was settled. `silent` is how long calls to LML were paused, `woken` says whether wake-ups
    arrive. `coverage` counts the library's rows in the order of `COVERAGE`.
    """

    stream: Stream
    lasted: timedelta
    backlog: int
    oldest: timedelta | None
    claimed: int
    settled: int
    typical: timedelta | None
    worst: timedelta | None
    silent: timedelta
    woken: bool
    coverage: Sequence[int] | None = None
