"""The record of what the simulated LML was asked."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from threading import Condition
from time import monotonic
from typing import NamedTuple

from listener.simulator.faults import Endpoint


class Question(NamedTuple):
    """One row of a bulk call."""

    library_id: int
    artist_name: str
    album_title: str
    legacy_release_id: int | None


@dataclass(slots=True)
class Call:
    """One request: times are `time.monotonic()` seconds; `finished_at` and `status` None: open.

    A call without an answer (reset, hang) ends with status None. `ids` are identity ids.
    """

    endpoint: Endpoint
    path: str
    had_token: bool
    started_at: float
    rows: int = 0
    with_tracks: bool = False
    questions: list[Question] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    fault: str | None = None
    status: int | None = None
    finished_at: float | None = None


class Calls:
    """Counts every call and keeps the newest ones with what they asked. Safe across threads."""

    def __init__(self, kept_rows: int = 50_000) -> None:
        """Keep calls worth `kept_rows` rows (a call without rows counts as one); 0 keeps none."""
        self.kept_rows = kept_rows
        self.in_flight: Counter[str] = Counter()
        self._changed = Condition()
        self.reset()

    def reset(self) -> None:
        """Forget everything but the calls that are open."""
        with self._changed:
            self.counts: Counter[str] = Counter()
            self.rows: Counter[str] = Counter()
            self.statuses: Counter[str] = Counter()
            self.most_in_flight = self.in_flight.copy()
            self._kept: deque[Call] = deque()
            self._kept_weight = 0

    def begin(self, endpoint: Endpoint, path: str, *, had_token: bool) -> Call:
        """Open a call; its rows are not known yet."""
        call = Call(endpoint, path, had_token, monotonic())
        with self._changed:
            self.in_flight[endpoint] += 1
            self.most_in_flight[endpoint] = max(
                self.most_in_flight[endpoint], self.in_flight[endpoint]
            )
        return call

    def read(self, call: Call) -> None:
        """Count a call whose body was read; from now on waiters see it."""
        with self._changed:
            self.counts[call.endpoint] += 1
            self.rows[call.endpoint] += call.rows
            if self.kept_rows:
                self._keep(call)
            self._changed.notify_all()

    def end(self, call: Call) -> None:
        """Close a call."""
        with self._changed:
            call.finished_at = monotonic()
            self.in_flight[call.endpoint] -= 1
            self.statuses[f"{call.endpoint} {call.status or 'none'}"] += 1
            self._changed.notify_all()

    def recent(self, endpoint: str | None = None) -> list[Call]:
        """Return the kept calls, oldest first, of one endpoint or of all."""
        with self._changed:
            return [call for call in self._kept if endpoint in {None, call.endpoint}]

    def questions(self) -> list[Question]:
        """Return the questions of the kept bulk calls in order of arrival."""
        return [question for call in self.recent("bulk") for question in call.questions]

    def wait_for(self, count: int, endpoint: str = "bulk", seconds: float = 10) -> None:
        """Block until `count` calls have arrived; raise TimeoutError after `seconds`.

        From a coroutine: `await asyncio.to_thread(calls.wait_for, 1)`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.counts[endpoint] >= count, seconds):
                text = f"received {self.counts[endpoint]} calls of {endpoint}, not {count}"
                raise TimeoutError(text)

    def wait_until_idle(self, seconds: float = 10) -> None:
        """Block until no call is open; raise TimeoutError after `seconds`."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self.in_flight.total(), seconds):
                text = f"{self.in_flight.total()} calls are still open"
                raise TimeoutError(text)

    def _keep(self, call: Call) -> None:
        self._kept.append(call)
        self._kept_weight += max(1, call.rows)
        while self._kept_weight > self.kept_rows and len(self._kept) > 1:
            self._kept_weight -= max(1, self._kept.popleft().rows)
