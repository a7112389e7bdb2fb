"""What all callers of LML share: a circuit breaker for each stream, and permits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import IntEnum

import structlog

from listener.domain.change import Stream
from listener.domain.faults import LmlRefusedError, LmlUnavailableError
from listener.domain.pacing import LML_BACKOFF, TRIAL, Backoff, Breaker, BreakerState
from listener.domain.retrying import Failing
from listener.engine.clock import now

_log = structlog.stdlib.get_logger()

_NAP = timedelta(seconds=1)
# Longer than a consumer takes to notice the end of a pause: changes go first.
_STAND_BACK = timedelta(milliseconds=250)


class Circuit:
    """Opens when LML does not answer, never because of the content of an answer.

    While it is open, no call is made. Then one caller tries at most `TRIAL` rows, and all others
    wait for the outcome. `fault` is the fault that opened it, None while it is closed; `answers`
    counts how often answers were written.
    """

    def __init__(self, stream: Stream, backoff: Backoff = LML_BACKOFF) -> None:
        self.fault: LmlUnavailableError | None = None
        self.answers = 0
        self._breaker = Breaker(backoff)
        self._answered_at = float("-inf")
        self._log = _log.bind(stream=str(stream))

    @property
    def state(self) -> BreakerState:
        """The current state of the breaker."""
        return self._breaker.state(now())

    @property
    def failures(self) -> int:
        """How many times in a row LML failed to answer."""
        return self._breaker.failures

    def paused_for(self) -> timedelta:
        """Return the time until the next call is allowed, zero if it is allowed now."""
        return timedelta(seconds=self._breaker.remaining(now()))

    async def wait(self) -> None:
        """Wait until a call is allowed, and a little longer, so that changes go first."""
        # In naps: another caller may learn meanwhile that LML is back.
        while quiet := self.paused_for():  # noqa: ASYNC110
            await asyncio.sleep(min(quiet + _STAND_BACK, _NAP).total_seconds())

    def begin_trial(self) -> int | None:
        """Return how many rows this call may ask about, None for no limit."""
        return TRIAL if self._breaker.begin_trial(now()) else None

    def end_trial(self) -> None:
        """Allow the next call: the trial is over, even if it proved nothing about LML."""
        self._breaker.end_trial()

    def replied(self) -> None:
        """Record that LML replied, whatever the reply."""
        if self._breaker.failures:
            self._log.info("LML answers again", failures=self._breaker.failures)
        self.fault = None
        self._breaker.succeeded()

    def answered(self) -> None:
        """Record that a row was answered, and its answer written."""
        self.answers += 1
        self._answered_at = now()

    def answered_since(self, ago: timedelta) -> bool:
        """Return whether any row was answered within the last `ago`."""
        return self._answered_at > now() - ago.total_seconds()

    def others_answered(self, failing: Failing | None, read_at: float) -> bool:
        """Return whether other rows were answered since a row last failed.

        Only then may the row itself be at fault. False for a row that has not failed before.
        `failing` was read at `read_at`.
        """
        if failing is None:
            return False
        # A call may take longer than the time between two failures.
        return self.answered_since(failing.ago + timedelta(seconds=now() - read_at))

    def failed(self, fault: LmlUnavailableError) -> None:
        """Record that LML did not answer."""
        self.fault = fault
        failures = self._breaker.failures
        delay = self._breaker.failed(now(), fault.retry_after)
        if self._breaker.failures == failures:
            return
        # A refusal needs a person: log it as an error once, then as a reminder.
        refused = isinstance(fault, LmlRefusedError) and self._breaker.failures == 1
        log = self._log.error if refused else self._log.warning
        log(
            "LML unavailable, keeping changes in the outbox",
            reason=str(fault),
            failures=self._breaker.failures,
            next_try_in_seconds=round(delay.total_seconds(), 1),
        )

    def heard(self, *, well: bool) -> None:
        """Record the health that LML reports while the circuit is open."""
        self._breaker.heard(now(), well=well)


class Priority(IntEnum):
    """Who goes first: changes, because people wait for them; then retries; then searches."""

    CHANGE = 0
    RETRY = 1
    SEARCH = 2


class Permits:
    """Limits how many calls or batches run at a time, and reserves one for changes.

    With a total of one, none can be reserved: a change then waits for the one that is running.
    `in_flight` counts all of them; `for_patient` limits those that are not for changes.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self.for_patient = max(1, total - 1)
        self.in_flight = 0
        self._patient = 0
        self._waiting: Counter[Priority] = Counter()
        self._moved = asyncio.Condition()

    def for_changes(self) -> int:
        """Return how many calls for changes may be in flight now."""
        return self._total - self._patient

    @asynccontextmanager
    async def hold(self, priority: Priority) -> AsyncIterator[None]:
        """Hold a permit; callers with a higher priority get theirs first."""
        patient = priority is not Priority.CHANGE
        async with self._moved:
            self._waiting[priority] += 1
            try:
                await self._moved.wait_for(lambda: self._free(priority))
            finally:
                self._waiting[priority] -= 1
                # Others may have been waiting only for this caller, which may be cancelled here.
                self._moved.notify_all()
            self.in_flight += 1
            self._patient += patient
        try:
            yield
        finally:
            self.in_flight -= 1
            self._patient -= patient
            async with self._moved:
                self._moved.notify_all()

    def _free(self, priority: Priority) -> bool:
        kept = 0 if priority is Priority.CHANGE else self._patient - self.for_patient + 1
        first = not any(self._waiting[higher] for higher in Priority if higher < priority)
        return self.in_flight < self._total and kept <= 0 and first
