"""A session for those who look again and again, kept only while they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from listener.adapters.postgres.installation import UnreachableError
from listener.adapters.postgres.status import looking

# With a hyphen, because it is no replica.
PAGE = "listener-page"
_KEEP = timedelta(seconds=30)
_CANCEL = timedelta(seconds=1)

T = TypeVar("T")


class Viewer:
    """Makes one look at a time, beside the loop; raises `InstallationError`, as `looking` does."""

    def __init__(self, dsn: str, backend: str) -> None:
        self._dsn = dsn
        self._backend = backend
        self._stack = ExitStack()
        self._connection: psycopg.Connection[Any] | None = None
        self._turn = asyncio.Lock()
        self._closing: asyncio.TimerHandle | None = None

    async def look(self, read: Callable[[psycopg.Connection[Any], str], T]) -> T:
        """Return what `read` does, given the connection and the backend's schema."""
        async with self._turn:
            if self._closing is not None:
                self._closing.cancel()
            kept = self._connection is not None
            try:
                return await asyncio.to_thread(self._look, read)
            except UnreachableError:
                # A session that was kept may have gone long ago.
                if not kept:
                    raise
                return await asyncio.to_thread(self._look, read)
            finally:
                loop = asyncio.get_running_loop()
                self._closing = loop.call_later(_KEEP.total_seconds(), self._close)

    async def close(self) -> None:
        """Break off a look that goes on, and close the session."""
        if self._closing is not None:
            self._closing.cancel()
        if self._turn.locked() and self._connection is not None:
            await asyncio.to_thread(self._connection.cancel_safe, timeout=_CANCEL.total_seconds())
        else:
            self._close()

    def _look(self, read: Callable[[psycopg.Connection[Any], str], T]) -> T:
        connection, self._connection = self._connection, None
        with self._stack as stack:
            if connection is None:
                connection = stack.enter_context(looking(self._dsn, self._backend, PAGE))
            self._connection = connection
            try:
                seen = read(connection, self._backend)
            except BaseException:
                self._connection = None
                raise
            self._stack = stack.pop_all()
        return seen

    def _close(self) -> None:
        if not self._turn.locked():
            self._connection = None
            self._stack.close()


@asynccontextmanager
async def open_viewer(dsn: str, backend: str) -> AsyncIterator[Viewer]:
    """Open what looks for the length of the block; nothing is connected before the first look."""
    viewer = Viewer(dsn, backend)
    try:
        yield viewer
    finally:
        await viewer.close()
