"""Permits for calls to LML and for work on the database, shared by changes and patient work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class Priority(IntEnum):
    """Who goes first: changes, because people wait for them; then retries; then searches."""

    CHANGE = 0
    RETRY = 1
    SEARCH = 2


class Permits:
    """Limits how many calls or batches go on at a time, and reserves one for changes.

    With a total of one none can be reserved: a change then waits for the one that goes on.
    `in_flight` counts all of them; `for_patient` limits those that are not for changes.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self.for_patient = max(1, total - 1)
        self.in_flight = 0
        self._patient = 0
        self._waiting: Counter[Priority] = Counter()
        self._moved = asyncio.Condition()

    def for_changes(self) -> int:
        """Return how many calls for changes may be in flight now."""
        return self._total - self._patient

    @asynccontextmanager
    async def hold(self, priority: Priority) -> AsyncIterator[None]:
        """Hold a permit; callers with a higher priority get theirs first."""
        patient = priority is not Priority.CHANGE
        async with self._moved:
            self._waiting[priority] += 1
            try:
                await self._moved.wait_for(lambda: self._free(priority))
            finally:
                self._waiting[priority] -= 1
                # Others may have been waiting only for this caller, which may be cancelled here.
                self._moved.notify_all()
            self.in_flight += 1
            self._patient += patient
        try:
            yield
        finally:
            self.in_flight -= 1
            self._patient -= patient
            async with self._moved:
                self._moved.notify_all()

    def _free(self, priority: Priority) -> bool:
        kept = 0 if priority is Priority.CHANGE else self._patient - self.for_patient + 1
        first = not any(self._waiting[higher] for higher in Priority if higher < priority)
        return self.in_flight < self._total and kept <= 0 and first
