"""How long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double with every failure, from `first` up to `most`."""

    first: timedelta
    most: timedelta

    def delay(self, failures: int) -> timedelta:
        """Return the delay after the given number of failures in a row, at least one."""
        return min(self.most, self.first * (1 << min(failures - 1, 30)))


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
