"""Keeps what was made for a moment, so that many viewers cost one look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

# Making it takes this share of the time at most.
_SHARE = 5


class Kept:
    """Makes something at most once in `keep`, and less often where that takes long."""

    def __init__(self, make: Callable[[], Awaitable[bytes]], keep: timedelta) -> None:
        self._make = make
        self._keep = keep.total_seconds()
        self._value = b""
        self._until = float("-inf")
        self._turn = asyncio.Lock()

    async def get(self) -> bytes:
        """Return it as it is, or was a moment ago."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if (began := loop.time()) >= self._until:
                self._value = await self._make()
                self._until = loop.time() + max(self._keep, _SHARE * (loop.time() - began))
            return self._value
