"""Sessions for callers that read: once, or again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TypeVar

from listener.adapters.postgres.connection import connected
from listener.adapters.postgres.errors import translated
from listener.adapters.postgres.installation import require_installed
from listener.adapters.postgres.sessions import Connection
from listener.domain.faults import StoreUnavailableError

# With a hyphen, because it is not a replica.
PAGE = "listener-page"
# Reading takes seconds: only a hanging server takes this long.
_LONGEST = timedelta(minutes=1)
_LIMITS = {
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    # JIT compilation of a count over the whole library takes longer than the count itself.
    "jit": "off",
}

T = TypeVar("T")


@asynccontextmanager
async def looking(dsn: str, backend: str, name: str) -> AsyncIterator[Connection]:
    """Connect as `name` for statements that take seconds at most.

    Raises `InstallationError` if the listener's tables are missing, or of another version;
    otherwise as `connected`.
    """
    async with connected(dsn, name, _LIMITS) as connection:
        await require_installed(connection, backend)
        yield connection


class Viewer:
    """Reads for one caller at a time; raises as `looking` does."""

    def __init__(self, dsn: str, backend: str, name: str, stack: AsyncExitStack) -> None:
        self._dsn = dsn
        self._backend = backend
        self._name = name
        self._stack = stack
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def look(self, read: Callable[[Connection, str], Awaitable[T]]) -> T:
        """Return what `read` does, given the connection and the backend's schema."""
        async with self._turn:
            kept = self._connection
            try:
                return await self._look(read)
            except StoreUnavailableError:
                # A kept session may have been cut long ago.
                if kept is None or kept is not self._connection or not kept.closed:
                    raise
                return await self._look(read)

    async def _look(self, read: Callable[[Connection, str], Awaitable[T]]) -> T:
        if self._connection is None or self._connection.closed:
            await self._stack.aclose()
            opening = looking(self._dsn, self._backend, self._name)
            self._connection = await self._stack.enter_async_context(opening)
        with translated():
            async with asyncio.timeout(_LONGEST.total_seconds()):
                return await read(self._connection, self._backend)


@asynccontextmanager
async def open_viewer(dsn: str, backend: str, name: str = PAGE) -> AsyncIterator[Viewer]:
    """Open a viewer for the length of the block; it connects only when it first reads.

    `name` is the name of its session.
    """
    async with AsyncExitStack() as stack:
        yield Viewer(dsn, backend, name, stack)
