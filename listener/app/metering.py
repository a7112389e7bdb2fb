"""Passes what telemetry receives on to the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from listener.adapters.http.metrics import Metrics
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally
from listener.engine.ports import Telemetry


class Metered:
    """Telemetry that also counts runs and calls in the metrics."""

    def __init__(self, telemetry: Telemetry, metrics: Metrics) -> None:
        self._telemetry = telemetry
        self._metrics = metrics

    @contextmanager
    def run(self, kind: str, tally: Tally | RotationTally, /) -> Iterator[None]:
        """Report a run."""
        with self._metrics.run(kind, tally), self._telemetry.run(kind, tally):
            yield

    @contextmanager
    def call(self, batch_size: int, /) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Report a call to LML."""
        with self._metrics.call(), self._telemetry.call(batch_size) as answered:
            yield answered

    def refresh(self, identities: int, /) -> AbstractContextManager[None]:
        """Report a refresh call; the metrics count its outcome elsewhere."""
        return self._telemetry.refresh(identities)

    def windows(self, tally: Tally, /) -> AbstractContextManager[None]:
        """Report windows; the metrics are pulled instead."""
        return self._telemetry.windows(tally)
