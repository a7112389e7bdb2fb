"""Whether LML may be asked now: one circuit breaker for all that ask it about one stream."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from listener.domain.change import Stream
from listener.domain.faults import LmlRefusedError, LmlUnavailableError
from listener.domain.pacing import LML_SILENCE, TRIAL, Backoff, Breaker, BreakerState

_log = structlog.stdlib.get_logger()


class Circuit:
    """Opens when LML does not answer, and never because of what it answers.

    While it is open nobody asks; then one call of at most `TRIAL` rows is tried, and the others
    wait for it. `fault` is what opened it, `answers` how often answers were written.
    """

    def __init__(self, stream: Stream, silence: Backoff = LML_SILENCE) -> None:
        self.fault: LmlUnavailableError | None = None
        self.answers = 0
        self._breaker = Breaker(silence)
        self._answered_at = float("-inf")
        self._log = _log.bind(stream=str(stream))

    @property
    def state(self) -> BreakerState:
        """How LML answers at present."""
        return self._breaker.state(_now())

    @property
    def failures(self) -> int:
        """How often in a row LML did not answer."""
        return self._breaker.failures

    def silence(self) -> timedelta:
        """Return for how long nobody may ask, zero if somebody may now."""
        return timedelta(seconds=self._breaker.remaining(_now()))

    def begin_trial(self) -> int | None:
        """Return how many rows the call that is made now may ask about, None if any number."""
        return TRIAL if self._breaker.begin_trial(_now()) else None

    def end_trial(self) -> None:
        """Let somebody else try: the trial showed nothing about LML."""
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
        self._answered_at = _now()

    def answered_since(self, ago: timedelta) -> bool:
        """Return whether a row was answered since then: only so can others fail by themselves."""
        return self._answered_at > _now() - ago.total_seconds()

    def failed(self, fault: LmlUnavailableError) -> None:
        """Note that LML did not answer."""
        self.fault = fault
        failures = self._breaker.failures
        delay = self._breaker.failed(_now(), fault.retry_after)
        if self._breaker.failures == failures:
            return
        # A refusal needs a person: an error once, and then only a reminder that it goes on.
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
        self._breaker.heard(_now(), well=well)


def _now() -> float:
    return asyncio.get_running_loop().time()
