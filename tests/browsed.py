"""A catalogue for tests of the pages, which needs no database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from listener.adapters.http.documents import Entry, Found, Listed, RowStory
from listener.domain.faults import StoreUnavailableError


@dataclass
class FakeCatalogue:
    """Has the rows 1 to `rows`; raises `fault` after `parts` parts of a download."""

    meanings: ClassVar[Mapping[str, str]] = {"parked": "failed too often"}

    rows: int = 3
    fault: str | None = None
    parts: int = 0
    obstacle: str | None = None
    asked: list[object] = field(default_factory=list)
    gate: asyncio.Event | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def search(self, words: str) -> Found:
        await self._look(words)
        return Found(self._entries(), self.obstacle)

    async def story(self, library_id: int) -> RowStory:
        await self._look(library_id)
        there = library_id <= self.rows
        return RowStory(f"Tape {library_id}", there, [("row", f"{library_id} of the library")])

    async def worklist(self, name: str, page: int) -> Listed:
        await self._look((name, page))
        return Listed(self._entries(), more=True)

    async def csv(self, name: str) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self.parts):
                yield b"1,Can,Tape 1\n" * 1000
            await self._look(name)
            yield b"the end\n"
        finally:
            self.closed.set()

    async def _look(self, asked: object) -> None:
        self.asked.append(asked)
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise StoreUnavailableError(self.fault)

    def _entries(self) -> list[Entry]:
        return [Entry({"title": f"Tape {row}"}, row) for row in range(1, self.rows + 1)]
