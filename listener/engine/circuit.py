"""Whether LML may be asked now: the circuit breaker that all who ask about one stream share."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from listener.domain.change import Stream
from listener.domain.faults import LmlRefusedError, LmlUnavailableError
from listener.domain.pacing import LML_BACKOFF, TRIAL, Backoff, Breaker, BreakerState
from listener.domain.question import Failing
from listener.engine.clock import now

_log = structlog.stdlib.get_logger()

_NAP = timedelta(seconds=1)
# Longer than a consumer takes to notice the end of a silence: changes go first.
_STAND_BACK = timedelta(milliseconds=250)


class Circuit:
    """Opens when LML does not answer, and never because of what it answers.

    While it is open nobody asks; then one call of at most `TRIAL` rows is tried, and all others
    wait for it. `fault` is what opened it, None while it is closed;
    `answers` counts how often answers were written.
    """

    def __init__(self, stream: Stream, backoff: Backoff = LML_BACKOFF) -> None:
        self.fault: LmlUnavailableError | None = None
        self.answers = 0
        self._breaker = Breaker(backoff)
        self._answered_at = float("-inf")
        self._log = _log.bind(stream=str(stream))

    @property
    def state(self) -> BreakerState:
        """How LML answers at present."""
        return self._breaker.state(now())

    @property
    def failures(self) -> int:
        """How often in a row LML did not answer."""
        return self._breaker.failures

    def paused_for(self) -> timedelta:
        """Return for how long nobody may ask, zero if somebody may now."""
        return timedelta(seconds=self._breaker.remaining(now()))

    async def wait(self) -> None:
        """Wait until somebody may ask, a little longer than those who follow changes."""
        # In naps: others may hear meanwhile that LML is back.
        while quiet := self.paused_for():  # noqa: ASYNC110
            await asyncio.sleep(min(quiet + _STAND_BACK, _NAP).total_seconds())

    def begin_trial(self) -> int | None:
        """Return how many rows the call that is made now may ask about, None if any number."""
        return TRIAL if self._breaker.begin_trial(now()) else None

    def end_trial(self) -> None:
        """Let somebody else try: the trial is over, even if it showed nothing about LML."""
        self._breaker.end_trial()

    def replied(self) -> None:
        """Note that LML replied, whatever it said."""
        if self._breaker.failures:
            self._log.info("LML answers again", failures=self._breaker.failures)
        self.fault = None
        self._breaker.succeeded()

    def answered(self) -> None:
        """Note that a row was answered, and its answer written."""
        self.answers += 1
        self._answered_at = now()

    def answered_since(self, ago: timedelta) -> bool:
        """Return whether a row was answered since then."""
        return self._answered_at > now() - ago.total_seconds()

    def others_answered(self, failing: Failing | None, read_at: float) -> bool:
        """Return whether a row was answered since the last failure of another, read at `read_at`.

        Only then can the other one be at fault itself. Of one that did not fail before: False.
        """
        if failing is None:
            return False
        # A call may take longer than the time between two failures.
        return self.answered_since(failing.ago + timedelta(seconds=now() - read_at))

    def failed(self, fault: LmlUnavailableError) -> None:
        """Note that LML did not answer."""
        self.fault = fault
        failures = self._breaker.failures
        delay = self._breaker.failed(now(), fault.retry_after)
        if self._breaker.failures == failures:
            return
        # A refusal needs a person: it is an error once, then a reminder that it goes on.
        refused = isinstance(fault, LmlRefusedError) and self._breaker.failures == 1
        log = self._log.error if refused else self._log.warning
        log(
            "LML unavailable, keeping changes in the outbox",
            reason=str(fault),
            failures=self._breaker.failures,
            next_try_in_seconds=round(delay.total_seconds(), 1),
        )

    def heard(self, *, well: bool) -> None:
        """Note what LML says of itself while the circuit is open."""
        self._breaker.heard(now(), well=well)
