"""Watches what becomes of changes, from a session of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

from listener.demo.choices import DemoFailedError
from listener.demo.statements import statement

# Every commit that matters wakes us; this bounds what a lost wake-up could add to a measurement.
_LOOK_EVERY = 0.05


class Outcome(NamedTuple):
    """What a release became."""

    outcome: str
    sources: list[str]
    identified: bool


class Watch:
    """Waits for facts in the database; times are those of the event loop."""

    def __init__(
        self,
        looking: psycopg.AsyncConnection[Any],
        listening: psycopg.AsyncConnection[Any],
        schema: str,
        require: Callable[[], None],
    ) -> None:
        """Look with one session and be woken by the other; `require` raises if the daemon died."""
        self._looking = looking
        self._listening = listening
        self._schema = schema
        self._require = require

    async def answered(self, ids: Sequence[int], patience: float = 90) -> float:
        """Return when the present names of these releases were seen to have their verdicts."""

        async def fact() -> bool:
            return not (await self.read("count_unanswered", ids=list(ids)))[0].unanswered

        return await self.until(fact, "verdicts", patience)

    async def settled(self, stream: str, ids: Sequence[int], patience: float = 90) -> float:
        """Return when the changes of these rows were seen to have left the outbox."""

        async def fact() -> bool:
            rows = await self.read("count_unsettled", stream=stream, ids=list(ids))
            return not rows[0].unsettled

        return await self.until(fact, f"the changes of {stream} to leave the outbox", patience)

    async def followed(self, former: Sequence[str | None], patience: float = 30) -> float:
        """Return when every stream was seen to be followed by somebody who is not in `former`."""

        async def fact() -> bool:
            return not {None, *former} & set(await self.holders())

        return await self.until(fact, "the daemon to follow", patience)

    async def outcomes(self, ids: Sequence[int]) -> list[Outcome]:
        """Return what these releases became, in the order of their ids."""
        return [Outcome(*row) for row in await self.read("read_outcomes", ids=list(ids))]

    async def holders(self) -> list[str | None]:
        """Return who follows the streams."""
        return [row.holder for row in await self.read("read_holders")]

    async def entries(self) -> int:
        """Return how many entries the outbox ever had."""
        return int((await self.read("read_entries"))[0].entries)

    async def read(self, name: str, **parameters: Any) -> list[Any]:  # noqa: ANN401
        """Return the rows of one of the demo's statements, with their columns as attributes."""
        cursor = await self._looking.execute(statement(name, self._schema), parameters)
        return await cursor.fetchall()

    async def until(self, fact: Callable[[], Awaitable[bool]], what: str, patience: float) -> float:
        """Return when the fact was seen; raises `DemoFailedError` after `patience` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while not await fact():
            self._require()
            if loop.time() > deadline:
                raise DemoFailedError(f"gave up after waiting {patience:.0f} s for {what}")
            await self.moved(_LOOK_EVERY)
        return loop.time()

    async def moved(self, at_most: float) -> None:
        """Return at the next commit of the ledger or the outbox, or after `at_most` seconds."""
        async for _ in self._listening.notifies(timeout=at_most, stop_after=1):
            pass


@asynccontextmanager
async def watching(dsn: str, schema: str, require: Callable[[], None]) -> AsyncIterator[Watch]:
    """Watch a database that the listener is installed in, for the length of the block."""
    connect = psycopg.AsyncConnection.connect
    async with (
        await connect(dsn, autocommit=True, application_name="demo watch") as looking,
        await connect(dsn, autocommit=True, application_name="demo ear") as listening,
    ):
        await looking.execute(statement("announce_verdicts", schema))
        looking.row_factory = namedtuple_row
        await listening.execute("LISTEN demo_moved")
        yield Watch(looking, listening, schema, require)
