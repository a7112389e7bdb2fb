"""Connections lent for short pieces of work."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from listener.adapters.postgres.connection import Database, open_pool, open_session, session
from tests.conftest import Connection


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


async def test_session_whose_opening_is_broken_off_is_closed(
    db: Connection, database: Database
) -> None:
    for half_milliseconds in range(24):
        opening = asyncio.get_running_loop().create_task(open_session(database))
        await asyncio.sleep(half_milliseconds / 2000)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).close()
    async with asyncio.timeout(5):
        while _sessions(db, database.holder):
            await asyncio.sleep(0.01)


def _sessions(db: Connection, name: str) -> bool:
    return db.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %s)", (name,)
    ).fetchone() == (True,)
