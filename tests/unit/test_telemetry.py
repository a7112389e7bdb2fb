"""Reports are passed on to every receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from listener.domain.change import Stream
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally
from listener.engine.telemetry import Telemetry, TelemetryFanOut

EVERYTHING = [
    ("settled", Stream.LIBRARY, (0.5, 2.0)),
    ("handled", Stream.ROTATION, 7, 0.25),
    ("run begins", "sweep", 3),
    ("run ends", None),
    ("call begins", 100),
    ("answered", {"hits": 9.0}),
    ("call ends", None),
    ("refresh begins", 50),
    ("refresh ends", None),
    ("windows begins", 3),
    ("windows ends", None),
]


class Receiver(Telemetry):
    """Notes every report."""

    def __init__(self) -> None:
        self.reports: list[tuple[object, ...]] = []

    def settled(self, stream: Stream, ages: Sequence[float], /) -> None:
        self.reports.append(("settled", stream, tuple(ages)))

    def handled(self, stream: Stream, rows: int, took: float, /) -> None:
        self.reports.append(("handled", stream, rows, took))

    @contextmanager
    def run(self, kind: str, tally: Tally | RotationTally, /) -> Iterator[None]:
        with self._block("run", kind, tally.scanned):
            yield

    @contextmanager
    def call(self, batch_size: int, /) -> Iterator[Callable[[Mapping[str, float]], None]]:
        with self._block("call", batch_size):
            yield lambda cache_stats: self.reports.append(("answered", cache_stats))

    @contextmanager
    def refresh(self, identities: int, /) -> Iterator[None]:
        with self._block("refresh", identities):
            yield

    @contextmanager
    def windows(self, tally: Tally, /) -> Iterator[None]:
        with self._block("windows", tally.scanned):
            yield

    @contextmanager
    def _block(self, name: str, *facts: object) -> Iterator[None]:
        self.reports.append((f"{name} begins", *facts))
        error: str | None = None
        try:
            yield
        except Exception as raised:
            error = str(raised)
            raise
        finally:
            self.reports.append((f"{name} ends", error))


def report_everything(telemetry: Telemetry) -> None:
    tally = Tally(resolved=3)
    telemetry.settled(Stream.LIBRARY, [0.5, 2.0])
    telemetry.handled(Stream.ROTATION, 7, 0.25)
    with telemetry.run("sweep", tally):
        pass
    with telemetry.call(100) as answered:
        answered({"hits": 9.0})
    with telemetry.refresh(50):
        pass
    with telemetry.windows(tally):
        pass


def test_every_receiver_gets_every_report() -> None:
    first, second, late = Receiver(), Receiver(), Receiver()
    telemetry = TelemetryFanOut(first, second)
    report_everything(telemetry)
    telemetry.add(late)
    report_everything(telemetry)
    assert first.reports == second.reports == EVERYTHING * 2
    assert late.reports == EVERYTHING


def test_every_receiver_sees_an_exception_and_the_caller_gets_it() -> None:
    first, second = Receiver(), Receiver()
    with (
        pytest.raises(ValueError, match="no answer"),
        TelemetryFanOut(first, second).call(1),
    ):
        raise ValueError("no answer")
    assert first.reports == second.reports == [("call begins", 1), ("call ends", "no answer")]


def test_no_receiver_is_needed() -> None:
    report_everything(TelemetryFanOut())
