"""Records samples of the streams, for people who look at them later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from listener.domain.change import Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse, Reading, Sample, WakeMode
from listener.domain.tally import Distribution, Duty
from listener.engine.clock import now
from listener.engine.ports import Samples
from listener.engine.supervisor import keep_doing
from listener.engine.telemetry import Telemetry

_log = structlog.stdlib.get_logger()

_TICK = timedelta(seconds=2)
_WRITE_EVERY = timedelta(seconds=10)
_COVERAGE_EVERY = timedelta(minutes=1)
_FOLD_EVERY = timedelta(minutes=5)
# Counting a very large library is slow: it may take one part in this many of the time.
_SHARE = 100


@dataclass(slots=True)
class _Account:
    """What happened on a stream since `since`."""

    since: float
    settled: Distribution = field(default_factory=Distribution)
    silent: timedelta = timedelta()


@dataclass(eq=False)
class Recorder(Telemetry):
    """Keeps an account of each stream that this daemon follows, and stores samples of it.

    A sample that cannot be written is dropped: nothing depends on it. `failures` counts the failed
    attempts to clear out old samples.
    """

    samples: Samples
    reading: Callable[[], Reading | None]
    pulses: Callable[[], Sequence[Pulse]]
    failures: Counter[Duty]
    _accounts: dict[Stream, _Account] = field(default_factory=dict, init=False)
    _claimed: dict[Stream, int] = field(default_factory=dict, init=False)
    _count_at: float = field(default=float("-inf"), init=False)
    _fold_at: float = field(default=float("-inf"), init=False)

    def settled(self, stream: Stream, ages: Sequence[float], /) -> None:
        self._account(stream).settled.add(ages)

    def handled(self, stream: Stream, rows: int, took: float, /) -> None:
        """Ignore batches."""

    async def record(self) -> None:
        """Store samples until cancelled."""
        await keep_doing("samples", self._record)

    async def _record(self) -> timedelta:
        followed = {pulse.stream: pulse for pulse in self.pulses()}
        self._accounts = {s: a for s, a in self._accounts.items() if s in followed}
        for stream, pulse in followed.items():
            account = self._account(stream)
            if pulse.breaker is not BreakerState.CLOSED:
                account.silent += _TICK
            if now() - account.since >= _WRITE_EVERY.total_seconds():
                await self._store(pulse, account)
        return _TICK

    def _account(self, stream: Stream) -> _Account:
        return self._accounts.setdefault(stream, _Account(now()))

    async def _store(self, pulse: Pulse, account: _Account) -> None:
        reading = self.reading()
        waiting = reading.of(pulse.stream) if reading is not None else None
        if waiting is None or reading is None or reading.fault is not None:
            return
        self._accounts[pulse.stream] = _Account(now())
        before = self._claimed.get(pulse.stream, 0)
        self._claimed[pulse.stream] = pulse.claimed
        settled, lasted = account.settled, timedelta(seconds=now() - account.since)
        try:
            sample = Sample(
                stream=pulse.stream,
                lasted=lasted,
                backlog=waiting.backlog,
                oldest=waiting.oldest,
                claimed=pulse.claimed - before,
                settled=settled.count,
                typical=settled.quantile(0.5) if settled.count else None,
                worst=settled.longest if settled.count else None,
                silent=min(account.silent, lasted),
                woken=pulse.wake_mode is WakeMode.NOTIFY,
                coverage=await self._coverage(pulse.stream),
            )
            await self.samples.write(sample)
        except StoreUnavailableError as fault:
            _log.debug("sample lost", stream=str(pulse.stream), reason=str(fault))
            return
        await self._fold()

    async def _coverage(self, stream: Stream) -> Sequence[int] | None:
        if stream is not Stream.LIBRARY or now() < self._count_at:
            return None
        began = now()
        coverage = await self.samples.count_coverage()
        self._count_at = began + max(_COVERAGE_EVERY.total_seconds(), _SHARE * (now() - began))
        return coverage

    async def _fold(self) -> None:
        if now() >= self._fold_at:
            self._fold_at = now() + _FOLD_EVERY.total_seconds()
            try:
                for stream in self._accounts:
                    await self.samples.fold(stream)
            except StoreUnavailableError as fault:
                self.failures[Duty.SAMPLES] += 1
                _log.warning("housekeeping failed", duty=str(Duty.SAMPLES), reason=str(fault))
