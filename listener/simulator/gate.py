"""A gate that holds calls back until a test or a demo opens it."""

from __future__ import annotations

import asyncio
from threading import Lock


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
