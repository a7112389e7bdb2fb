"""What is known about the streams: a daemon's pulse, readings of the database, and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from listener.domain.change import Stream
from listener.domain.pacing import BreakerState

# A healthy loop turns at least every 5 s, whatever it waits for.
TURN = timedelta(seconds=5)
# After this long without a turn a loop is stuck.
STALLED = timedelta(seconds=12)
COVERAGE = (
    "resolved",
    "unresolved",
    "compilation",
    "failed",
    "parked",
    "never",
    "nameless",
)


class WakeMode(StrEnum):
    """How a daemon learns of changes: it is woken, it polls, or it has no session."""

    NOTIFY = "notify"
    POLL = "poll"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Pulse:
    """How this daemon follows one stream.

    `stalled` is the time since the slower of its loops last turned, `looked` the time since it last
    read the outbox. `claimed` counts changes since the start, `held` those of them that are not
    settled. `fault` says what prevents it from handling any change.
    """

    stream: Stream
    wake_mode: WakeMode
    breaker: BreakerState
    stalled: timedelta
    looked: timedelta | None
    claimed: int
    held: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class StreamReading:
    """The database's view of one stream; `retrying` rows failed and wait for another attempt."""

    stream: Stream
    backlog: int
    oldest: timedelta | None
    followed: bool
    retrying: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database reported `age` ago, or in `fault` why the last attempt failed.

    `discogs_calls` estimates what refreshes cost within the budget's window.
    """

    waiting: Sequence[StreamReading]
    parked: int
    age: timedelta
    fault: str | None = None
    discogs_calls: int = 0

    def of(self, stream: Stream) -> StreamReading | None:
        """Return what was read about a stream."""
        return next((each for each in self.waiting if each.stream is stream), None)


@dataclass(frozen=True, slots=True)
class LaneReport:
    """How a holder is doing with its stream, as each beat records it in the lane.

    `fault` is what prevents changes from being handled, `stalled` how long ago the slower loop
    turned, `lml_trouble` how LML fails to answer, and `lml_pause` how long calls to it are paused.
    """

    breaker: BreakerState = BreakerState.CLOSED
    fault: str | None = None
    stalled: timedelta = timedelta()
    lml_trouble: str | None = None
    lml_pause: timedelta = timedelta()


def is_alive(pulses: Sequence[Pulse]) -> bool:
    """Return whether every loop still turns; if one does not, only a restart helps."""
    return all(pulse.stalled <= STALLED for pulse in pulses)


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
