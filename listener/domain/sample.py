"""Samples: how a stream went for some seconds."""

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
    """How a stream went for the time `lasted`, up to now.

    `typical` and `worst` are the times from the recording of a change until it was settled, None
    if none was. `silent` is for how long LML was not asked, `woken` whether wake-ups arrive.
    `coverage` counts the library's rows in the order of `COVERAGE`.
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
