"""Connections lent for short pieces of work."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import errors

from listener.adapters.postgres import connection as connections
from listener.adapters.postgres.connection import (
    Database,
    open_pool,
    open_session,
    session,
    translated,
)
from listener.domain.faults import StoreUnavailableError
from tests.conftest import Connection, through
from tests.integration.test_wakeups import Proxy


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            psycopg.OperationalError("lost\nline 2"),
            "lost; start PostgreSQL, or correct DATABASE_URL",
        ),
        (TimeoutError(), "no answer in time; start PostgreSQL, or correct DATABASE_URL"),
        (errors.UndefinedTable("there is none"), "there is none"),
        (errors.InsufficientPrivilege(), "InsufficientPrivilege"),
    ],
)
def test_fault_of_the_database_is_told_in_words(error: Exception, said: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught, translated():
        raise error
    assert str(caught.value) == said


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
        done, _ = await asyncio.wait((waiting,), timeout=10)
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


@pytest.mark.timeout(60)
async def test_connections_that_nothing_comes_from_any_more_do_not_hold_up_new_ones(
    db: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(db.info.host, db.info.port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    behind = replace(database, dsn=through(database.dsn, port))
    async with open_pool(behind, size=2) as pool:
        async with session(pool), session(pool):
            pass
        proxy.freeze()
        with monkeypatch.context() as brief:
            brief.setattr(connections, "_DEADLINE", timedelta(seconds=0.2))
            with pytest.raises(StoreUnavailableError):
                async with session(pool) as connection:
                    await connection.execute("SELECT 1")
        async with asyncio.timeout(20), session(pool) as connection:
            await connection.execute("SELECT 1")
    server.close()
    await proxy.close()
    await server.wait_closed()


def _sessions(db: Connection, name: str) -> bool:
    return db.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %s)", (name,)
    ).fetchone() == (True,)
