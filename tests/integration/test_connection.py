"""Connections lent for short pieces of work."""

from __future__ import annotations

import asyncio

import pytest

from listener.adapters.postgres.connection import Database, open_pool, session


@pytest.mark.parametrize("ticks", range(8))
async def test_cancellation_that_meets_the_connection_is_not_lost(
    database: Database, ticks: int
) -> None:
    entered: list[object] = []

    async def work() -> None:
        async with session(pool) as connection:
            entered.append(connection)
            await asyncio.sleep(60)

    async with open_pool(database, size=1) as pool:
        async with session(pool):
            waiting = asyncio.get_running_loop().create_task(work())
            await asyncio.sleep(0.01)
        for _ in range(ticks):
            await asyncio.sleep(0)
        waiting.cancel()
        done, _ = await asyncio.wait((waiting,), timeout=1)
        assert done, "the cancellation was lost"
        assert waiting.cancelled()
