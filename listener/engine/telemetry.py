"""Reports on changes, runs and calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol, TypeVar

from listener.domain.change import Stream
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally

T = TypeVar("T")


class Telemetry(Protocol):
    """Reports to the operators' dashboards; it neither delays nor breaks what it reports on.

    The methods of this base class report nothing.
    """

    def settled(self, _stream: Stream, _ages: Sequence[float], /) -> None:
        """Report settled changes, by their ages in seconds since they were recorded."""

    def handled(self, _stream: Stream, _rows: int, _took: float, /) -> None:
        """Report a handled batch, whatever its outcome, and how many seconds it took."""

    def run(self, _kind: str, _tally: Tally | RotationTally, /) -> AbstractContextManager[None]:
        """Report a run and its final tally once the block ends, even with an exception.

        A run within a run is part of it.
        """
        return nullcontext()

    def call(
        self, _batch_size: int, /
    ) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
        """Report one call to LML, which lasts as long as the block.

        Yields a function to call with the reply's cache statistics once the reply was read.
        """
        return nullcontext(lambda _cache_stats: None)

    def refresh(self, _identities: int, /) -> AbstractContextManager[None]:
        """Report one call that refreshes identities, which lasts as long as the block."""
        return nullcontext()

    def windows(self, _tally: Tally, /) -> AbstractContextManager[None]:
        """Periodically report what was added to the tally, for the length of the block."""
        return nullcontext()


class TelemetryFanOut(Telemetry):
    """Passes each report on to all receivers, in their order; without any, it reports nothing."""

    def __init__(self, *receivers: Telemetry) -> None:
        self._receivers = list(receivers)

    def add(self, receiver: Telemetry) -> None:
        """Also pass on to this receiver what is reported from now on."""
        self._receivers.append(receiver)

    def settled(self, stream: Stream, ages: Sequence[float], /) -> None:
        for each in self._receivers:
            each.settled(stream, ages)

    def handled(self, stream: Stream, rows: int, took: float, /) -> None:
        for each in self._receivers:
            each.handled(stream, rows, took)

    @contextmanager
    def run(self, kind: str, tally: Tally | RotationTally, /) -> Iterator[None]:
        with _together(each.run(kind, tally) for each in self._receivers):
            yield

    @contextmanager
    def call(self, batch_size: int, /) -> Iterator[Callable[[Mapping[str, float]], None]]:
        with _together(each.call(batch_size) for each in self._receivers) as answered:

            def pass_on(cache_stats: Mapping[str, float]) -> None:
                for each in answered:
                    each(cache_stats)

            yield pass_on

    @contextmanager
    def refresh(self, identities: int, /) -> Iterator[None]:
        with _together(each.refresh(identities) for each in self._receivers):
            yield

    @contextmanager
    def windows(self, tally: Tally, /) -> Iterator[None]:
        with _together(each.windows(tally) for each in self._receivers):
            yield


@contextmanager
def _together(blocks: Iterable[AbstractContextManager[T]]) -> Iterator[list[T]]:
    with ExitStack() as stack:
        yield [stack.enter_context(block) for block in blocks]
