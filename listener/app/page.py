"""What the page shows: the state of all, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import psycopg

from listener import DISTRIBUTION
from listener.adapters.postgres.installation import InstallationError
from listener.adapters.postgres.parked import ParkedRow, list_parked
from listener.adapters.postgres.status import RunStatus, Status, StreamStatus, read_status
from listener.adapters.postgres.steps import LastWord, Step, read_history, read_last_words
from listener.adapters.postgres.viewer import Viewer
from listener.app.report import as_json, dumped
from listener.app.state import DaemonState
from listener.domain.change import Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.health import (
    Findings,
    Pulse,
    StreamState,
    WakeMode,
    Wellness,
    Word,
    judge_wellness,
)
from listener.domain.pacing import BreakerState

_PARKED_SHOWN = 50
_DAY = timedelta(days=1)
# About as many points as a chart has room for.
_SPANS = {
    "hour": (timedelta(hours=1), timedelta(seconds=30)),
    "day": (_DAY, timedelta(minutes=10)),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look for the page brought."""

    status: Status
    parked: Sequence[ParkedRow]
    last_words: Sequence[LastWord]


class Page:
    """Makes the JSON that is served; raises `StoreUnavailableError` if it cannot look.

    `include_null_canonical` is that of the searches' scope.
    """

    def __init__(
        self, viewer: Viewer, state: DaemonState, *, include_null_canonical: bool = True
    ) -> None:
        self._viewer = viewer
        self._state = state
        self._read_status = partial(read_status, include_null_canonical=include_null_canonical)

    async def status(self) -> bytes:
        """Return what `listener status --json` prints."""
        return as_json(await self._look(self._read_status)).encode()

    async def state(self) -> bytes:
        """Return how all is now; that it cannot be seen is a state, too."""
        pulses = self._state.pulses()
        shown: dict[str, Any] = {"version": version(DISTRIBUTION), "status": None, "parked": []}
        try:
            seen = await self._look(self._see)
        except StoreUnavailableError as fault:
            why = f"the database cannot be looked at: {fault}"
            shown["wellness"] = asdict(Wellness(Word.FAILING, (why,)))
            return dumped(shown).encode()
        streams = [self._state_of(each, seen, pulses) for each in seen.status.streams]
        wellness = judge_wellness(streams, _findings(seen.status), self._state.max_lag)
        shown["wellness"] = asdict(wellness)
        shown["status"] = asdict(seen.status)
        shown["rungs"] = {each.stream: each.wake_mode for each in streams}
        shown["parked"] = [asdict(row) for row in seen.parked]
        return dumped(shown).encode()

    async def history(self) -> bytes:
        """Return how it went in the last hour and day, in columns."""
        return dumped(await self._look(_remember)).encode()

    async def _look(self, read: Callable[[psycopg.Connection[Any], str], T]) -> T:
        try:
            return await self._viewer.look(read)
        except InstallationError as error:
            raise StoreUnavailableError(str(error)) from error

    def _see(self, connection: psycopg.Connection[Any], backend: str) -> Seen:
        status = self._read_status(connection, backend)
        # To list them takes a walk over all that are parked: only where there are some.
        parked = list_parked(connection, backend, _PARKED_SHOWN) if status.coverage.parked else []
        return Seen(status, parked, read_last_words(connection, backend))

    def _state_of(self, told: StreamStatus, seen: Seen, pulses: Sequence[Pulse]) -> StreamState:
        pulse = next((each for each in pulses if each.stream == told.stream), None)
        word = next((each for each in seen.last_words if each.stream == told.stream), None)
        return StreamState(
            stream=Stream(told.stream),
            backlog=told.backlog,
            oldest=_duration(told.oldest_seconds),
            followed=bool(told.holder_alive),
            wake_mode=pulse.wake_mode if pulse is not None else _rung(word),
            breaker=None if told.breaker is None else BreakerState(told.breaker),
            stalled=pulse.stalled if pulse is not None else timedelta(),
            fault=told.fault,
        )


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _rung(word: LastWord | None) -> WakeMode | None:
    if word is None:
        return None
    return WakeMode.NOTIFY if word.woken else WakeMode.POLL


def _findings(status: Status) -> Findings:
    lately = [run for run in status.runs if run.started_at > status.at - _DAY]
    ended = [run for run in lately if run.outcome != "running"]
    return Findings(
        missing=status.missing,
        parked=status.coverage.parked,
        failed=status.coverage.failed,
        never_asked=status.coverage.never,
        failed_run=_failure(ended[0]) if ended else None,
        capture_missed=status.capture_missed,
    )


def _failure(run: RunStatus) -> str | None:
    if run.outcome not in {"failed", "lost"}:
        return None
    return f"{run.kind}, {run.reason or 'its process died'}"


def _remember(connection: psycopg.Connection[Any], backend: str) -> dict[str, Any]:
    return {
        name: {
            "seconds": span.total_seconds(),
            "step": step.total_seconds(),
            "streams": _columns(read_history(connection, backend, span, step)),
        }
        for name, (span, step) in _SPANS.items()
    }


def _columns(steps: Sequence[Step]) -> dict[str, dict[str, list[Any]]]:
    columns: dict[str, dict[str, list[Any]]] = {}
    for step in steps:
        stream = columns.setdefault(step.stream, {})
        for name, value in asdict(step).items():
            if name != "stream":
                shown = value.timestamp() if name == "at" else value
                stream.setdefault(name, []).append(
                    round(shown, 3) if isinstance(shown, float) else shown
                )
    return columns
