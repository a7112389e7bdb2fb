"""Runs what the listener does in the database from tests that have no loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg

from listener.adapters.postgres.installation import install, installing
from listener.adapters.postgres.sessions import Connection
from listener.adapters.postgres.viewer import looking

P = ParamSpec("P")
T = TypeVar("T")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns; a loop that runs already is blocked meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def migrate(dsn: str, backend: str) -> list[str]:
    """Install the listener; return what was done."""

    async def migrating() -> list[str]:
        async with installing(dsn) as connection:
            return await install(connection, backend)

    return finish(migrating())


def look(
    dsn: str,
    backend: str,
    read: Callable[Concatenate[Connection, str, P], Awaitable[T]],
    *arguments: P.args,
    **options: P.kwargs,
) -> T:
    """Return what `read` does, as a command."""

    async def looked() -> T:
        async with looking(dsn, backend, "listener-test") as connection:
            return await read(connection, backend, *arguments, **options)

    return finish(looked())


def on(
    db: psycopg.Connection[Any],
    work: Callable[Concatenate[Connection, P], Awaitable[T]],
    *arguments: P.args,
    **options: P.kwargs,
) -> T:
    """Return what the work does in the very session of `db`, and in its transaction."""

    async def worked() -> T:
        connection = Connection(db.pgconn)
        try:
            if db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                await connection.set_autocommit(True)
            return await work(connection, *arguments, **options)
        finally:
            # The session is not its to close, or to warn about.
            del connection.pgconn

    return finish(worked())
