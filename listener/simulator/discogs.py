"""Discogs as LML meets it: a shared budget of calls, a narrow lane for refreshes, a breaker.

All times are seconds on the simulated clock. Nothing here sleeps: `call` answers when a call
starts and ends, and the simulator waits until then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

CallStatus = Literal[200, 429]
REMEMBERED_CALLS = 100_000
MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class DiscogsLimits:
    """The budget's figures; the defaults are those of LML's documentation.

    `ceiling` is Discogs' own limit per sliding minute, past which it answers 429 (None: never).
    `browsing_a_minute` people's calls come evenly and go before every refresh.
    """

    calls_a_minute: float = 50
    burst: int = 50
    lane_width: int = 2
    call_seconds: float = 0.4
    ceiling: int | None = None
    browsing_a_minute: float = 0
    refusals_to_open: int = 4
    open_seconds: float = 20


class Grant(NamedTuple):
    """The outcome of one call. `status` None: the breaker was open, so Discogs was not asked."""

    starts_at: float
    ends_at: float
    status: CallStatus | None


class DiscogsBudget:
    """A token bucket that starts full, asked in the order of arrival.

    `refusals_due` makes the next so many refresh calls answer 429.
    """

    def __init__(self, limits: DiscogsLimits = DiscogsLimits()) -> None:
        """Start at simulated time 0 with a full bucket."""
        self.limits = limits
        self.refusals_due = 0
        self.call_times: deque[float] = deque(maxlen=REMEMBERED_CALLS)
        self.calls = 0
        self.browsing_calls = 0
        self.longest_browsing_wait = 0.0
        self._tokens = float(limits.burst)
        self._time = 0.0
        self._next_browsing = 0.0
        self._lanes = [0.0] * limits.lane_width
        self._refusals_in_a_row = 0
        self._open_until = 0.0

    def call(self, now: float) -> Grant:
        """Take one refresh call that is wanted at `now`; it waits for a lane and for a token."""
        lane = self._lanes.index(min(self._lanes))
        starts_at = max(now, self._lanes[lane])
        if starts_at < self._open_until:
            return Grant(starts_at, starts_at, None)
        starts_at = self._take_token(starts_at)
        self._lanes[lane] = ends_at = starts_at + self.limits.call_seconds
        return Grant(starts_at, ends_at, self._answer(starts_at, ends_at))

    def advance(self, now: float) -> None:
        """Account for the browsing up to `now`."""
        self._browse_until(now)

    def change(self, limits: DiscogsLimits, now: float) -> None:
        """Continue with other limits; tokens above the new burst are lost."""
        self._browse_until(now)
        self._refill(now)
        self.limits = limits
        self._tokens = min(self._tokens, limits.burst)
        self._next_browsing = max(now, self._time)
        self._lanes = (self._lanes + [now] * limits.lane_width)[: limits.lane_width]

    def busiest_minute(self) -> int:
        """Return the most calls, browsing included, that began within any 60 seconds."""
        most, window = 0, deque[float]()
        for time in sorted(self.call_times):
            window.append(time)
            while window[0] <= time - MINUTE:
                window.popleft()
            most = max(most, len(window))
        return most

    def is_open(self, now: float) -> bool:
        """Return whether the breaker refuses calls at `now`."""
        return now < self._open_until

    def _take_token(self, wanted_at: float) -> float:
        time = max(wanted_at, self._time)
        while True:
            self._browse_until(time)
            time = max(time, self._time)
            self._refill(time)
            if self._tokens >= 1:
                self._spend(time)
                return time
            time = self._token_at(time)

    def _browse_until(self, time: float) -> None:
        """Give a token to each person who browsed up to `time` first."""
        while self.limits.browsing_a_minute and self._next_browsing <= time:
            asked_at = self._next_browsing
            self._refill(asked_at)
            served_at = max(asked_at, self._token_at(self._time))
            self._refill(served_at)
            self._spend(served_at)
            self.browsing_calls += 1
            self.longest_browsing_wait = max(self.longest_browsing_wait, served_at - asked_at)
            self._next_browsing += MINUTE / self.limits.browsing_a_minute

    def _refill(self, time: float) -> None:
        if time > self._time:
            gained = (time - self._time) * self.limits.calls_a_minute / MINUTE
            self._tokens = min(self.limits.burst, self._tokens + gained)
            self._time = time

    def _token_at(self, time: float) -> float:
        """Return when a whole token is available, from the bucket's state at `time`."""
        missing = 1 - self._tokens
        # A hair more than needed: the refill up to that time must not round to 0.999…
        return time + missing * MINUTE / self.limits.calls_a_minute + 1e-9 if missing > 0 else time

    def _spend(self, time: float) -> None:
        self._tokens -= 1
        self.calls += 1
        self.call_times.append(time)

    def _answer(self, starts_at: float, ends_at: float) -> CallStatus:
        if not self._refuses(starts_at):
            self._refusals_in_a_row = 0
            return 200
        self._refusals_in_a_row += 1
        if self._refusals_in_a_row >= self.limits.refusals_to_open:
            self._open_until = ends_at + self.limits.open_seconds
            self._refusals_in_a_row = 0
        return 429

    def _refuses(self, time: float) -> bool:
        if self.refusals_due > 0:
            self.refusals_due -= 1
            return True
        if self.limits.ceiling is None:
            return False
        newest = 0
        for called_at in reversed(self.call_times):
            if called_at <= time - MINUTE:
                break
            newest += 1
        return newest > self.limits.ceiling
