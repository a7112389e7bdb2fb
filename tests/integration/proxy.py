"""What stands between a session and the server, and can go dead without closing anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.conftest import address_of, through


class Proxy:
    """Passes on what clients and the server say to each other, until it is frozen."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._host, self._port = server
        self._alive: list[asyncio.Event] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._served: list[asyncio.Event] = []

    def freeze(self) -> None:
        """Pass nothing more on, in either direction, for the connections there are."""
        for alive in self._alive:
            alive.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what one client and the server say to each other."""
        alive = asyncio.Event()
        alive.set()
        self._alive.append(alive)
        server_reader, server_writer = await self._connect()
        self._writers += [writer, server_writer]
        self._served.append(served := asyncio.Event())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pass_on(reader, server_writer, alive))
            tasks.create_task(_pass_on(server_reader, writer, alive))
        served.set()

    async def close(self) -> None:
        """Cut every connection, and see it off."""
        for alive in self._alive:
            alive.set()
        for writer in self._writers:
            writer.transport.abort()
        for served in self._served:
            await served.wait()
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        return await asyncio.open_connection(self._host, self._port)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alive: asyncio.Event
) -> None:
    with suppress(OSError):
        while received := await reader.read(2**16):
            await alive.wait()
            writer.write(received)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy_before(dsn: str) -> AsyncIterator[tuple[str, Proxy]]:
    """Yield the DSN of a proxy before the server, and the proxy."""
    proxy = Proxy(address_of(dsn))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield through(dsn, server.sockets[0].getsockname()[1]), proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
