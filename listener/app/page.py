"""What the page shows: the current state, and its history."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

from listener import DISTRIBUTION
from listener.adapters.postgres.samples import Step, read_steps
from listener.adapters.postgres.sessions import Connection
from listener.adapters.postgres.status import Status, read_status
from listener.adapters.postgres.viewer import Viewer
from listener.adapters.postgres.worklists import ParkedRow, list_parked
from listener.app.verdict import successes, verdict_on, with_verdict
from listener.app.wording import dumped
from listener.domain.faults import InstallationError, StoreUnavailableError
from listener.domain.health import Wellness, blind
from listener.settings import StatusSettings

_PARKED_SHOWN = 50
_DAY = timedelta(days=1)
# About as many points as fit in a chart.
_SPANS = {
    "hour": (timedelta(hours=1), timedelta(seconds=30)),
    "day": (_DAY, timedelta(minutes=10)),
}

# Counting a very large library takes a while: at most this share of the time.
_JUDGE_EVERY = timedelta(seconds=15)
_SHARE = 20
_OUTDATED = timedelta(minutes=5)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Seen:
    """The result of one read for the page."""

    status: Status
    parked: Sequence[ParkedRow]


class Page:
    """Makes the JSON that is served; raises `StoreUnavailableError` if the database fails.

    `seen` is what the verdict is based on, None if the last read failed.
    """

    def __init__(self, viewer: Viewer, settings: StatusSettings) -> None:
        self.seen: Status | None = None
        self.successes: Mapping[str, datetime] = {}
        self._viewer = viewer
        self._settings = settings
        # Read once: another version may be installed while this one runs.
        self._version = version(DISTRIBUTION)
        self._wellness: Wellness | None = None
        self._judged_at = float("-inf")
        self._read_status = partial(
            read_status, include_null_canonical=settings.include_null_canonical
        )

    async def status(self) -> bytes:
        """Return what `listener status --json` prints."""
        status = await self._look(self._read_status)
        return dumped(with_verdict(status, self._settings)).encode()

    async def state(self) -> bytes:
        """Return the current state; an unreachable database is a state, too."""
        shown: dict[str, Any] = {"version": self._version, "status": None, "parked": []}
        try:
            seen = await self._look(self._see)
        except StoreUnavailableError as fault:
            shown["wellness"] = asdict(blind(str(fault)))
            return dumped(shown).encode()
        shown["wellness"] = asdict(verdict_on(seen.status, self._settings))
        shown["status"] = asdict(seen.status)
        shown["parked"] = [asdict(row) for row in seen.parked]
        return dumped(shown).encode()

    def wellness(self) -> Wellness | None:
        """Return the last verdict, None before the first; if outdated, one that says so."""
        age = timedelta(seconds=time.monotonic() - self._judged_at) if self._wellness else None
        if age is not None and age > _OUTDATED:
            return blind(f"the last look ended {age.total_seconds():.0f} s ago")
        return self._wellness

    async def judge(self) -> timedelta:
        """Renew the verdict for callers that must not wait; return how long it is recent enough."""
        began = time.monotonic()
        try:
            status = await self._look(self._read_status)
            self._wellness = verdict_on(status, self._settings)
            self.seen, self.successes = status, successes(status)
        except StoreUnavailableError as fault:
            self._wellness, self.seen = blind(str(fault)), None
        self._judged_at = time.monotonic()
        return max(_JUDGE_EVERY, _SHARE * timedelta(seconds=self._judged_at - began))

    async def history(self) -> bytes:
        """Return the history of the last hour and day, in columns."""
        return dumped(await self._look(_remember)).encode()

    async def _look(self, read: Callable[[Connection, str], Awaitable[T]]) -> T:
        try:
            return await self._viewer.look(read)
        except InstallationError as error:
            raise StoreUnavailableError(str(error)) from error

    async def _see(self, connection: Connection, backend: str) -> _Seen:
        status = await self._read_status(connection, backend)
        # Listing them scans all parked rows, so skip it if there are none.
        if not status.coverage.parked:
            return _Seen(status, [])
        return _Seen(status, await list_parked(connection, backend, _PARKED_SHOWN))


async def _remember(connection: Connection, backend: str) -> dict[str, Any]:
    return {
        name: {
            "seconds": span.total_seconds(),
            "step": step.total_seconds(),
            "streams": _columns(await read_steps(connection, backend, span, step)),
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
