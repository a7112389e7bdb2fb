"""Runs what a command does in the database, on a session of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import click

from listener.adapters.postgres.installation import installing
from listener.adapters.postgres.sessions import Connection
from listener.adapters.postgres.viewer import looking
from listener.settings import DatabaseSettings

T = TypeVar("T")
Work = Callable[[Connection, str], Awaitable[T]]


def look(settings: DatabaseSettings, read: Work[T]) -> T:
    """Return what `read` does, given the connection and the backend's schema."""
    # With a hyphen, because it is not a replica.
    name = f"listener-{click.get_current_context().info_name}"
    opening = looking(settings.database_url.get_secret_value(), settings.wxyc_schema_name, name)
    return _run(opening, settings, read)


def change(settings: DatabaseSettings, work: Work[T]) -> T:
    """Return what `work` does; only one process at a time installs, grants or uninstalls."""
    return _run(installing(settings.database_url.get_secret_value()), settings, work)


def _run(
    opening: AbstractAsyncContextManager[Connection], settings: DatabaseSettings, work: Work[T]
) -> T:
    async def run() -> T:
        async with opening as connection:
            return await work(connection, settings.wxyc_schema_name)

    return asyncio.run(run())
