"""Metrics for Prometheus: some are counted as things happen, the others read on each scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from listener.adapters.http.numbers import Numbers, families
from listener.domain.change import Stream
from listener.domain.due import RunKind
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally

# Nobody uses the `_created` series, which would double the number of lines.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_ROWS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
_RUN_OUTCOMES = ("done", "stopped", "failed")
_CALL_OUTCOMES = ("ok", "failed")


class Metrics:
    """Counts what happens, and renders all metrics as text."""

    def __init__(self, numbers: Callable[[], Numbers]) -> None:
        self._numbers = numbers
        self._growing: list[Tally] = []
        self._ended = Tally()
        self._registry = registry = CollectorRegistry()
        counter = partial(Counter, namespace="listener", registry=registry)
        histogram = partial(Histogram, namespace="listener", registry=registry)
        self._settled = counter("changes_settled", "Changes settled.", ("stream",))
        self._ages = histogram(
            "commit_to_identity_seconds",
            "Time from the recording of a change until it was settled and its identity written.",
            ("stream",),
            buckets=_SECONDS,
        )
        self._batch_rows = histogram(
            "batch_rows", "Rows per handled batch.", ("stream",), buckets=_ROWS
        )
        self._batch_seconds = histogram(
            "batch_seconds", "Duration of a batch.", ("stream",), buckets=_SECONDS
        )
        self._calls = histogram(
            "lml_call_seconds", "Duration of a bulk call.", ("outcome",), buckets=_SECONDS
        )
        self._refreshes = histogram(
            "refresh_call_seconds", "Duration of a refresh call.", ("outcome",), buckets=_SECONDS
        )
        self._runs = counter(
            "runs", "Searches for due rows that ended in this process.", ("kind", "outcome")
        )
        self._begin_series()
        ProcessCollector(registry=registry)
        registry.register(_Reader(self._read))

    def _begin_series(self) -> None:
        # increase() misses the first event of a series that only starts with it.
        for kind in RunKind:
            for outcome in _RUN_OUTCOMES:
                self._runs.labels(kind.value, outcome)
        for outcome in _CALL_OUTCOMES:
            self._calls.labels(outcome)
            self._refreshes.labels(outcome)
        for stream in Stream:
            for each in (self._settled, self._ages, self._batch_rows, self._batch_seconds):
                each.labels(stream)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def settled(self, stream: Stream, ages: Sequence[float], /) -> None:
        """Count settled changes, by their ages in seconds since they were recorded."""
        self._settled.labels(stream).inc(len(ages))
        observe = self._ages.labels(stream).observe
        for age in ages:
            observe(max(0.0, age))

    def handled(self, stream: Stream, rows: int, took: float, /) -> None:
        """Count a handled batch, whatever its outcome."""
        self._batch_rows.labels(stream).observe(rows)
        self._batch_seconds.labels(stream).observe(took)

    @contextmanager
    def call(self, _batch_size: int, /) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Count one call to LML, which lasts as long as the block; ignores its cache statistics."""
        with _timed(self._calls):
            yield lambda _cache_stats: None

    @contextmanager
    def run(self, kind: str, tally: Tally | RotationTally, /) -> Iterator[None]:
        """Count one run, which lasts as long as the block, and include its tally meanwhile."""
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
        """Count one refresh call; the refresher counts identities by their outcome."""
        return _timed(self._refreshes)

    def windows(self, _tally: Tally, /) -> AbstractContextManager[None]:
        """Count nothing: the tally is read on each scrape."""
        return nullcontext()

    def _read(self) -> Iterator[Metric]:
        numbers = self._numbers()
        total = Tally()
        for tally in (*numbers.tallies, *self._growing, self._ended):
            total.add(tally)
        return families(numbers, total)


@contextmanager
def _timed(calls: Histogram) -> Iterator[None]:
    began, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "ok"
    finally:
        calls.labels(outcome).observe(time.perf_counter() - began)


class _Reader(Collector):
    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        return self._read()

    def describe(self) -> Iterator[Metric]:
        # Called at registration, when there is nothing to read yet.
        return iter(())
