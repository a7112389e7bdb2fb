"""What holds a call back: LML's work permits, and a gate that a test or a demo shuts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from threading import Lock

from listener.simulator.clock import SimulatedClock

PERMITS = 5
# An event loop cannot sleep for less than this, so several short rows share one sleep.
_SHORTEST = timedelta(milliseconds=10)


class WorkPermits:
    """Hands out permits in the order of arrival; without a number to all at once.

    `held` are those at work now, `most_at_work` is how many ever were at a time.
    """

    def __init__(self, number: int | None, clock: SimulatedClock) -> None:
        self._clock = clock
        self.held = 0
        self.most_at_work = 0
        self.set(number)

    def set(self, number: int | None) -> None:
        """Change the number of permits; callers already waiting still get one of the old ones."""
        self.number = number
        self._free = asyncio.Semaphore(number) if number else None

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold one for the block."""
        free = self._free
        if free is not None:
            await free.acquire()
        self.held += 1
        self.most_at_work = max(self.most_at_work, self.held)
        try:
            yield
        finally:
            self.held -= 1
            if free is not None:
                free.release()

    async def spend(self, rows: int, each: timedelta) -> None:
        """Work on rows as a call does: as many at a time as there are permits.

        It takes `rows * each` if all permits are free all the time.
        """
        width = min(self.number or 1, rows)
        at_once = max(1, round(_SHORTEST * self._clock.factor / (each * width))) if each else rows
        waiting = deque(min(at_once, rows - start) for start in range(0, rows, at_once))

        async def work() -> None:
            while waiting:
                part = waiting.popleft()
                async with self.hold():
                    await self._clock.sleep(each * width * part)

        await asyncio.gather(*(work() for _ in range(width)))


class Gate:
    """Open at first. Shut and opened from any thread; passed on the server's event loop."""

    def __init__(self) -> None:
        """Start open."""
        self._lock = Lock()
        self._shut = False
        self._waiting: list[asyncio.Future[None]] = []

    def shut(self) -> None:
        """Hold every further call."""
        with self._lock:
            self._shut = True

    def open(self) -> None:
        """Release all held calls and let further ones pass."""
        with self._lock:
            self._shut = False
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.get_loop().call_soon_threadsafe(_let_go, future)

    async def wait(self) -> None:
        """Return when the gate is open."""
        with self._lock:
            if not self._shut:
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
        await future


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
