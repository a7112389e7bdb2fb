"""How long to wait before trying again."""

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


# A service that is down is tried at most four times a minute, and at once when it says it is back.
LML_BACKOFF = Backoff(first=timedelta(seconds=8), most=timedelta(seconds=15))
# Rows asked about to find out whether LML answers again: one of several might interrupt the call.
TRIAL = 1


@dataclass(slots=True)
class Pause:
    """The silence kept towards a service that failed; `now` is monotonic seconds."""

    backoff: Backoff
    failures: int = 0
    until: float = float("-inf")

    def failed(self, now: float, at_least: timedelta | None = None) -> timedelta:
        """Note a failure; return how long to keep silent."""
        # Calls that fail during the silence failed for the same reason.
        delay = timedelta(seconds=self.remaining(now))
        if not delay:
            self.failures += 1
            delay = self.backoff.delay(self.failures)
        delay = max(delay, at_least or timedelta())
        self.until = now + delay.total_seconds()
        return delay

    def succeeded(self) -> None:
        """Note that the service answered."""
        self.failures = 0
        self.until = float("-inf")

    def remaining(self, now: float) -> float:
        """Return the seconds of silence left, 0 if none."""
        return max(0.0, self.until - now)


class BreakerState(StrEnum):
    """Closed: all goes well. Open: nothing is asked. Half-open: one small batch is tried."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Breaker(Pause):
    """A pause towards a service that has several callers, and that also reports how it is.

    It ends early when the service reports that it is well. That proves little, so it counts once,
    and again only after the service reported that it is not. A pause that the service asked for is
    kept in any case. After the pause one call is tried: until it ends, or for as long as a pause
    may last, nobody else asks.
    """

    _not_before: float = float("-inf")
    _word_counts: bool = True
    _trial_until: float = float("-inf")

    def failed(self, now: float, at_least: timedelta | None = None) -> timedelta:
        """Note a failure; return how long to keep silent."""
        if at_least is not None:
            self._not_before = max(self._not_before, now + at_least.total_seconds())
        self.end_trial()
        # Named: slots make a new class of this one, which a bare super() does not know.
        return Pause.failed(self, now, at_least)

    def succeeded(self) -> None:
        """Note that the service answered."""
        self._word_counts = True
        self.end_trial()
        Pause.succeeded(self)

    def remaining(self, now: float) -> float:
        """Return the seconds until somebody may ask again, 0 if now."""
        return max(Pause.remaining(self, now), self._trial_until - now)

    def begin_trial(self, now: float) -> bool:
        """Return whether the call made now must be a trial: a small one, which others wait for."""
        if self.failures:
            self._trial_until = now + self.backoff.most.total_seconds()
        return bool(self.failures)

    def end_trial(self) -> None:
        """Let somebody else try: the trial is over, even if it showed nothing about the service."""
        self._trial_until = float("-inf")

    def heard(self, now: float, *, well: bool) -> None:
        """Note what the service reports of itself during a pause."""
        if not well:
            self._word_counts = True
        elif self._word_counts and now >= self._not_before:
            self._word_counts = False
            self.until = now

    def state(self, now: float) -> BreakerState:
        """Return whether anything may be asked now."""
        if not self.failures:
            return BreakerState.CLOSED
        paused = Pause.remaining(self, now) > 0
        return BreakerState.OPEN if paused else BreakerState.HALF_OPEN
