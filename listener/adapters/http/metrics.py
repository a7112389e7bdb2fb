"""Metrics for Prometheus: some are counted as things happen, the others read when asked for."""

from __future__ import annotations

import platform
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from listener import DISTRIBUTION
from listener.domain.change import Stream
from listener.domain.health import Cause, Wellness, Word
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse, Reading, WakeMode
from listener.domain.refreshing import RotationTally, Status
from listener.domain.run import RunKind
from listener.domain.tally import Duty, Skip, Tally
from listener.domain.tracks import TrackCount

# When each series began nobody asks for, and it would be a line for every one of them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_ROWS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
_RUN_OUTCOMES = ("done", "stopped", "failed")
# What LML says of a refresh; a newer one may say anything.
_REFRESHES: tuple[str, ...] = tuple(Status)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is read when metrics are asked for.

    `claimed` and `captured` count changes since the start. `tallies` are those that still grow;
    `tokens` are the Discogs calls that refreshes may still cost, None before it is known.
    `uncaptured` streams lack triggers, None where that is not watched.
    `successes` are those of the scheduled jobs.
    """

    ready: bool
    pulses: Sequence[Pulse] = ()
    claimed: Mapping[Stream, int] = field(default_factory=dict)
    captured: Mapping[Stream, int] = field(default_factory=dict)
    reading: Reading | None = None
    tallies: Sequence[Tally] = ()
    refreshed: Mapping[str, int] = field(default_factory=dict)
    neglected: Mapping[Duty, int] = field(default_factory=dict)
    calls_in_flight: int = 0
    tokens: int | None = None
    log_lines_dropped: int = 0
    uncaptured: AbstractSet[Stream] | None = None
    wellness: Wellness | None = None
    successes: Mapping[str, datetime] = field(default_factory=dict)


class Metrics:
    """Counts, and tells all numbers as text."""

    def __init__(self, numbers: Callable[[], Numbers]) -> None:
        self._numbers = numbers
        self._growing: list[Tally] = []
        self._ended = Tally()
        self._registry = registry = CollectorRegistry()
        counter = partial(Counter, namespace="listener", registry=registry)
        histogram = partial(Histogram, namespace="listener", registry=registry)
        self._settled = counter("changes_settled", "Changes done with.", ("stream",))
        self._ages = histogram(
            "commit_to_identity_seconds",
            "From the recording of a change until it was settled, its identity being written.",
            ("stream",),
            buckets=_SECONDS,
        )
        self._batch_rows = histogram(
            "batch_rows", "Rows of a batch that was handled.", ("stream",), buckets=_ROWS
        )
        self._batch_seconds = histogram(
            "batch_seconds", "How long a batch took.", ("stream",), buckets=_SECONDS
        )
        self._calls = histogram(
            "lml_call_seconds", "How long a bulk call took.", ("outcome",), buckets=_SECONDS
        )
        self._runs = counter("runs", "Searches for due rows that ended here.", ("kind", "outcome"))
        # A series that begins with its first event hides that one from increase().
        for kind in RunKind:
            for outcome in _RUN_OUTCOMES:
                self._runs.labels(kind.value, outcome)
        for outcome in ("ok", "failed"):
            self._calls.labels(outcome)
        for stream in Stream:
            for each in (self._settled, self._ages, self._batch_rows, self._batch_seconds):
                each.labels(stream)
        ProcessCollector(namespace="listener", registry=registry)
        registry.register(_Reader(self._read))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def settled(self, stream: Stream, ages: Sequence[float], /) -> None:
        """Note changes that were settled, by their ages since they were recorded."""
        self._settled.labels(stream).inc(len(ages))
        observe = self._ages.labels(stream).observe
        for age in ages:
            observe(max(0.0, age))

    def handled(self, stream: Stream, rows: int, took: float, /) -> None:
        """Note a batch that was handled, however that ended."""
        self._batch_rows.labels(stream).observe(rows)
        self._batch_seconds.labels(stream).observe(took)

    @contextmanager
    def call(self, _batch_size: int, /) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Count one call to LML, which lasts as long as the block; its statistics are not used."""
        began, outcome = time.perf_counter(), "failed"
        try:
            yield lambda _cache_stats: None
            outcome = "ok"
        finally:
            self._calls.labels(outcome).observe(time.perf_counter() - began)

    @contextmanager
    def run(self, kind: str, tally: Tally | RotationTally, /) -> Iterator[None]:
        """Note one run, which lasts as long as the block, and what it counts meanwhile."""
        outcome = "stopped"
        if isinstance(tally, Tally):
            self._growing.append(tally)
        try:
            yield
            outcome = "done"
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._growing = [each for each in self._growing if each is not tally]
            if isinstance(tally, Tally):
                self._ended.add(tally)
            self._runs.labels(kind, outcome).inc()

    def refresh(self, _identities: int, /) -> AbstractContextManager[None]:
        """Count nothing: the refresher counts identities by their outcome."""
        return nullcontext()

    def windows(self, _tally: Tally, /) -> AbstractContextManager[None]:
        """Count nothing: the tally is read when metrics are asked for."""
        return nullcontext()

    def _read(self) -> Iterator[Metric]:
        numbers = self._numbers()
        total = Tally()
        for tally in (*numbers.tallies, *self._growing, self._ended):
            total.add(tally)
        yield _one("build_info", "What runs.", {"version": version(DISTRIBUTION), **_PYTHON}, 1)
        yield _one("ready", "Whether /readyz says yes.", {}, numbers.ready)
        yield from _of_verdict(numbers)
        yield from _of_pulses(numbers)
        yield from _of_reading(numbers.reading)
        yield _counts("verdicts", "What became of rows.", "outcome", _outcomes(total))
        credited = "What became of the credits of compilations."
        yield _counts("compilation_tracks", credited, "outcome", _tracks(total))
        for name, meaning, count in total.counters():
            yield _counts(name, meaning, None, {"": count})
        yield _counts("rotation_refreshes", "Refreshed identities.", "status", _refreshed(numbers))
        neglected = {str(duty): numbers.neglected.get(duty, 0) for duty in Duty}
        failed = "Failures to clear out what nobody needs any more."
        yield _counts("housekeeping_failures", failed, "duty", neglected)
        in_flight = "Calls of LML in flight."
        yield _one("lml_calls_in_flight", in_flight, {}, numbers.calls_in_flight)
        dropped = "Log lines that standard error did not take."
        yield _counts("log_lines_dropped", dropped, None, {"": numbers.log_lines_dropped})
        if numbers.uncaptured is not None:
            capturing = _family("capturing", "Whether the triggers are at work.", "stream")
            for stream in Stream:
                capturing.add_metric([stream], stream not in numbers.uncaptured)
            yield capturing
        if numbers.tokens is not None:
            yield _one(
                "pace_tokens",
                "Discogs calls that refreshes may still cost in this minute.",
                {},
                numbers.tokens,
            )


_PYTHON = {"python": platform.python_version()}


class _Reader(Collector):
    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        return self._read()

    def describe(self) -> Iterator[Metric]:
        # Asked at the registration, when there is nothing to read yet.
        return iter(())


def _of_verdict(numbers: Numbers) -> Iterator[Metric]:
    succeeded = _family(
        "last_success_timestamp_seconds",
        "When a job last succeeded, or since when it could have; absent while it is switched off.",
        "job",
    )
    for job, at in numbers.successes.items():
        succeeded.add_metric([job], at.timestamp())
    yield succeeded
    wellness = numbers.wellness
    if wellness is None:
        return
    level = list(Word).index(wellness.word)
    yield _one("wellness", "The verdict: 0 well, 1 strained, 2 failing.", {}, level)
    cause = _family("cause", "Why all is not well, 1 for what is.", "cause")
    present = {why.cause for why in wellness.why}
    for each in Cause:
        cause.add_metric([each], each in present)
    yield cause


def _of_pulses(numbers: Numbers) -> Iterator[Metric]:
    following = {pulse.stream: pulse for pulse in numbers.pulses}
    is_here = _family("following", "Whether the stream is followed from here.", "stream")
    held = _family("changes_held", "Changes claimed and not settled.", "stream")
    stalled = _family("loop_turn_age_seconds", "Since the slower loop last turned.", "stream")
    rung = _family("rung", "How changes make themselves known, 1 for what is.", "stream", "rung")
    breaker = _family("breaker", "How LML answers, 1 for what is.", "stream", "state")
    for stream in Stream:
        pulse = following.get(stream)
        is_here.add_metric([stream], pulse is not None)
        held.add_metric([stream], 0 if pulse is None else pulse.held)
        for step in WakeMode:
            rung.add_metric([stream, step], pulse is not None and pulse.wake_mode is step)
        for state in BreakerState:
            breaker.add_metric([stream, state], pulse is not None and pulse.breaker is state)
        if pulse is not None:
            stalled.add_metric([stream], pulse.stalled.total_seconds())
    yield from (is_here, held, stalled, rung, breaker)
    yield _counts("changes_captured", "Changes recorded.", "stream", numbers.captured)
    yield _counts("changes_claimed", "Changes read from the outbox.", "stream", numbers.claimed)


def _of_reading(reading: Reading | None) -> Iterator[Metric]:
    up = reading is not None and reading.fault is None
    yield _one("database_up", "Whether the database answered when last read.", {}, up)
    if reading is None or not reading.waiting:
        return
    backlog = _family("backlog_changes", "Changes in the outbox.", "stream")
    oldest = _family("oldest_change_age_seconds", "Age of the oldest; 0 if none.", "stream")
    for each in reading.waiting:
        backlog.add_metric([each.stream], each.backlog)
        age = 0.0 if each.oldest is None else (each.oldest + reading.age).total_seconds()
        oldest.add_metric([each.stream], age)
    yield from (backlog, oldest)
    yield _one("parked_rows", "Rows set aside for a person.", {}, reading.parked)
    age = reading.age.total_seconds()
    yield _one("reading_age_seconds", "Since the database was last read.", {}, age)


def _outcomes(tally: Tally) -> dict[str, int]:
    skipped = {str(reason): tally.skipped[reason] for reason in Skip}
    found = {"resolved": tally.resolved, "resolved_compilation": tally.resolved_compilations}
    return {**found, "unresolved": tally.unresolved, **skipped}


def _tracks(tally: Tally) -> dict[str, int]:
    return {count.removeprefix("compilation_track_"): tally.tracks[count] for count in TrackCount}


def _refreshed(numbers: Numbers) -> dict[str, int]:
    counts = Counts(dict.fromkeys(_REFRESHES, 0))
    for status, count in numbers.refreshed.items():
        counts[status if status in _REFRESHES else "other"] += count
    return counts


def _family(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"listener_{name}", meaning, labels=labels)


def _one(name: str, meaning: str, labels: Mapping[str, str], value: float) -> GaugeMetricFamily:
    family = _family(name, meaning, *labels)
    family.add_metric(list(labels.values()), value)
    return family


def _counts(
    name: str, meaning: str, label: str | None, counts: Mapping[str, int] | Mapping[Stream, int]
) -> CounterMetricFamily:
    labels = [] if label is None else [label]
    family = CounterMetricFamily(f"listener_{name}", meaning, labels=labels)
    for value, count in counts.items():
        family.add_metric([] if label is None else [value], count)
    return family
