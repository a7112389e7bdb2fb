"""Decides how long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double with every failure, from `first` up to `most`."""

    first: timedelta
    most: timedelta

    def delay(self, failures: int) -> timedelta:
        """Return the delay after the given number of failures in a row, at least one."""
        return min(self.most, self.first * (1 << min(failures - 1, 30)))


# At most four attempts a minute while LML is down, and one at once when it says that it is back.
LML_BACKOFF = Backoff(first=timedelta(seconds=8), most=timedelta(seconds=15))
# How many rows to ask about to find out whether LML answers again: a single bad row among several
# could interrupt the call.
TRIAL = 1


@dataclass(slots=True)
class Pause:
    """Pauses calls to a service that failed; `now` is monotonic seconds."""

    backoff: Backoff
    failures: int = 0
    until: float = float("-inf")

    def failed(self, now: float, at_least: timedelta | None = None) -> timedelta:
        """Record a failure; return how long to pause."""
        # Calls that fail during the pause failed for the same reason.
        delay = timedelta(seconds=self.remaining(now))
        if not delay:
            self.failures += 1
            delay = self.backoff.delay(self.failures)
        delay = max(delay, at_least or timedelta())
        self.until = now + delay.total_seconds()
        return delay

    def succeeded(self) -> None:
        """Record that the service answered."""
        self.failures = 0
        self.until = float("-inf")

    def remaining(self, now: float) -> float:
        """Return the remaining seconds of the pause, 0 if there is none."""
        return max(0.0, self.until - now)


class BreakerState(StrEnum):
    """Closed: calls go through. Open: no calls. Half-open: one trial call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Breaker(Pause):
    """Pauses calls to a service that has several callers and also reports its health.

    The pause ends early when the service reports that it is healthy. That proves little, so it
    counts once, and again only after the service has reported that it is not. A pause that the
    service asked for never ends early. After the pause one caller makes a trial call; until it
    ends, or for the length of the longest pause, all others wait.
    """

    _not_before: float = float("-inf")
    _word_counts: bool = True
    _trial_until: float = float("-inf")

    def failed(self, now: float, at_least: timedelta | None = None) -> timedelta:
        """Record a failure; return how long to pause."""
        if at_least is not None:
            self._not_before = max(self._not_before, now + at_least.total_seconds())
        self.end_trial()
        # dataclass(slots=True) creates a new class, so a bare super() would fail.
        return Pause.failed(self, now, at_least)

    def succeeded(self) -> None:
        """Record that the service answered."""
        self._word_counts = True
        self.end_trial()
        Pause.succeeded(self)

    def remaining(self, now: float) -> float:
        """Return the seconds until the next call is allowed, 0 if it is allowed now."""
        return max(Pause.remaining(self, now), self._trial_until - now)

    def begin_trial(self, now: float) -> bool:
        """Return whether this call must be a trial: a small one that other callers wait for."""
        if self.failures:
            self._trial_until = now + self.backoff.most.total_seconds()
        return bool(self.failures)

    def end_trial(self) -> None:
        """Allow the next call: the trial is over, even if it proved nothing about the service."""
        self._trial_until = float("-inf")

    def heard(self, now: float, *, well: bool) -> None:
        """Record the health that the service reports during a pause."""
        if not well:
            self._word_counts = True
        elif self._word_counts and now >= self._not_before:
            self._word_counts = False
            self.until = now

    def state(self, now: float) -> BreakerState:
        """Return the state of the circuit."""
        if not self.failures:
            return BreakerState.CLOSED
        paused = Pause.remaining(self, now) > 0
        return BreakerState.OPEN if paused else BreakerState.HALF_OPEN
