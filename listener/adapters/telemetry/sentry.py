"""Sends runs, windows and calls to LML as spans, and errors as events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import sentry_sdk
from sentry_sdk.transport import Transport
from sentry_sdk.types import Event, Hint

from listener import DISTRIBUTION
from listener.adapters.telemetry.errors import ErrorReporter
from listener.adapters.telemetry.scrub import Scrubber
from listener.adapters.telemetry.spans import (
    Calls,
    ChildSpan,
    Clock,
    Period,
    call,
    make_spans,
    name_of,
    rate_of,
    refresh,
    totals,
)
from listener.domain.change import Stream
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally

_FLUSH = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class SentryOptions:
    """Where to send, and which share of frequent spans; `secrets` are removed everywhere."""

    dsn: str
    environment: str
    traces_sample_rate: float
    secrets: tuple[str, ...] = ()
    window: timedelta = timedelta(minutes=1)


class SentryTelemetry:
    """Collects what happens, and creates the spans at the end.

    If a number is set on an existing span, Sentry stores it as text, which has no average. The
    numbers of a call are known once its reply was read, those of a run at its end: the span is
    created then, with the original times, and never changed.
    """

    def __init__(self, reporter: ErrorReporter, window: timedelta) -> None:
        self._reporter = reporter
        self._window = window
        self._calls_of_run: ContextVar[Calls | None] = ContextVar("calls of run", default=None)
        self._calls_of_window: Calls | None = None
        self._sending: set[asyncio.Future[None]] = set()

    def settled(self, stream: Stream, ages: Sequence[float], /) -> None:
        """Report nothing: windows count the changes."""

    def handled(self, stream: Stream, rows: int, took: float, /) -> None:
        """Report nothing: windows count the rows."""

    @contextmanager
    def run(self, kind: str, tally: Tally | RotationTally, /) -> Iterator[None]:
        """Send a span for the block, its calls, and the totals as they are at its end."""
        if self._calls_of_run.get() is not None:
            yield
            return
        calls, clock, status = Calls(), Clock(), "cancelled"
        token = self._calls_of_run.set(calls)
        try:
            yield
            status = "ok"
        except Exception as error:
            status = "internal_error"
            self._reporter.report("run failed", error, kind=kind, scanned=tally.scanned)
            raise
        finally:
            self._calls_of_run.reset(token)
            self._send(kind, clock.period(), calls.kept, tally, status)

    @contextmanager
    def call(self, batch_size: int, /) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Measure the block; yields a function that adds the call once its reply was read."""
        clock, period = Clock(), None

        def answered(cache_stats: Mapping[str, float], status: str = "ok") -> None:
            self._add(call(period or clock.period(), status, batch_size, cache_stats))

        try:
            yield answered
        except BaseException as error:
            answered({}, "internal_error" if isinstance(error, Exception) else "cancelled")
            raise
        period = clock.period()

    @contextmanager
    def refresh(self, identities: int, /) -> Iterator[None]:
        """Measure the block, and add the call at its end."""
        clock, status = Clock(), "cancelled"
        try:
            yield
            status = "ok"
        except Exception:
            status = "internal_error"
            raise
        finally:
            self._add(refresh(clock.period(), status, identities))

    @contextmanager
    def windows(self, tally: Tally, /) -> Iterator[None]:
        """Send a span for each window of the block in which something was scanned."""
        loop = asyncio.get_running_loop()
        calls, clock, before = Calls(), Clock(), tally.minus(Tally())
        self._calls_of_window = calls
        next_time: asyncio.TimerHandle

        def close() -> None:
            nonlocal clock, before
            added, period = tally.minus(before), clock.period()
            clock = Clock()
            if not added.scanned:
                # Keep the calls of this window: their rows may be written in the next one.
                calls.forget_before(period.began)
                return
            before = tally.minus(Tally())
            self._send("window", period, calls.kept, added, "ok")
            calls.kept = []

        def tick() -> None:
            nonlocal next_time
            next_time = loop.call_later(self._window.total_seconds(), tick)
            close()

        next_time = loop.call_later(self._window.total_seconds(), tick)
        try:
            yield
        finally:
            next_time.cancel()
            close()
            self._calls_of_window = None

    async def sent(self) -> None:
        """Return once everything that ended was passed to the SDK."""
        if self._sending:
            await asyncio.wait(self._sending)

    def _add(self, part: ChildSpan) -> None:
        calls = self._calls_of_run.get() or self._calls_of_window
        if calls is not None:
            calls.add(part)

    def _send(
        self,
        kind: str,
        period: Period,
        calls: list[ChildSpan],
        tally: Tally | RotationTally,
        status: str,
    ) -> None:
        parts = (*calls, totals(period.ended, status, tally))
        # In a thread: the spans of many calls would stop the loop for a tenth of a second.
        sending = asyncio.get_running_loop().run_in_executor(
            None, make_spans, name_of(tally), kind, period, parts, status
        )
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)


@asynccontextmanager
async def open_sentry(
    options: SentryOptions, transport: Transport | None = None
) -> AsyncIterator[SentryTelemetry]:
    """Send to Sentry for the length of the block, and for up to two seconds after it.

    Errors logged meanwhile are captured. What cannot be sent is dropped.
    """
    _start_sdk(options, transport)
    reporter = ErrorReporter(_capture)
    logging.getLogger().addHandler(reporter)
    telemetry = SentryTelemetry(reporter, options.window)
    try:
        yield telemetry
    finally:
        logging.getLogger().removeHandler(reporter)
        await telemetry.sent()
        client = sentry_sdk.get_client()
        # In a thread: a second signal must be handled even while Sentry does not answer.
        await asyncio.to_thread(client.close, _FLUSH.total_seconds())
        sentry_sdk.get_global_scope().set_client(None)


def _capture(event: Mapping[str, Any]) -> None:
    sentry_sdk.capture_event(cast("Event", event))


def _start_sdk(options: SentryOptions, transport: Transport | None) -> None:
    scrubber = Scrubber((options.dsn, *options.secrets))

    def scrub(event: Event, _hint: Hint) -> Event:
        return cast("Event", scrubber.event(event))

    sentry_sdk.init(
        dsn=options.dsn,
        environment=options.environment,
        release=f"listener@{version(DISTRIBUTION)}",
        traces_sampler=partial(rate_of, frequent=options.traces_sample_rate),
        transport=transport,
        before_send=scrub,
        before_send_transaction=scrub,
        # Collect nothing but what we pass; by default, that excludes personal data.
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        send_client_reports=False,
        # It would start a thread and drop spans while Sentry is slow; the queue is bounded anyway.
        enable_backpressure_handling=False,
        # Otherwise the SDK reads these from the environment.
        debug=False,
        spotlight=False,
    )
    # It warns of every failed attempt to reach Sentry, which does not belong in our log.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
