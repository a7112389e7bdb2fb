"""The calls to LML that may be in flight, shared by what must not wait and what can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Permits:
    """Bounds the calls in flight; live changes come first, and one call is kept free for them.

    With a total of one nothing can be kept free: a live change then waits for the call in flight.
    `in_flight` counts them all.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self.for_patient = max(1, total - 1)
        self.in_flight = 0
        self._patient = 0
        self._live_waiting = 0
        self._moved = asyncio.Condition()

    def for_live(self) -> int:
        """Return how many calls for changes may be in flight now."""
        return self._total - self._patient

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Hold a permit for a question that somebody waits for."""
        async with self._moved:
            self._live_waiting += 1
            try:
                await self._moved.wait_for(lambda: self.in_flight < self._total)
            finally:
                self._live_waiting -= 1
                # Who is cancelled here may be all that others stood back for.
                self._moved.notify_all()
            self.in_flight += 1
        try:
            yield
        finally:
            await self._give_back()

    @asynccontextmanager
    async def patient(self) -> AsyncIterator[None]:
        """Hold a permit for a question that can wait for others."""
        async with self._moved:
            await self._moved.wait_for(self._free_for_patient)
            self.in_flight += 1
            self._patient += 1
        try:
            yield
        finally:
            self._patient -= 1
            await self._give_back()

    def _free_for_patient(self) -> bool:
        return (
            self.in_flight < self._total
            and self._patient < self.for_patient
            and not self._live_waiting
        )

    async def _give_back(self) -> None:
        self.in_flight -= 1
        async with self._moved:
            self._moved.notify_all()
