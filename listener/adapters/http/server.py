"""Serves an application in the loop that is running."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_CONNECTIONS = 64
_HEADER_BYTES = 16_384
_FIRST_REQUEST = timedelta(seconds=10)
_IDLE = timedelta(seconds=15)
# Slow readers and writers end with their connection; a browser opens the next one unasked.
_LIFE = timedelta(minutes=1)
_GRACE = timedelta(seconds=5)
_LAST_REPLIES = timedelta(seconds=0.5)


class _Protocol(H11Protocol):
    """A connection that lives for a bounded time; more than so many at once are hung up on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(_FIRST_REQUEST.total_seconds(), self._look)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        if cast("object | None", self.cycle) is None:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(_LIFE.total_seconds(), self._end)

    def _end(self) -> None:
        if self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False
            self._timer = self.loop.call_later(_GRACE.total_seconds(), self.transport.abort)


class SiteServer(uvicorn.Server):
    """Serves an application on a socket that listens, and leaves signals to the daemon."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                date_header=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=round(_IDLE.total_seconds()),
                h11_max_incomplete_event_size=_HEADER_BYTES,
            )
        )
        self._bound = bound

    async def answer(self) -> None:
        """Serve until cancelled."""
        try:
            await self.serve(sockets=[self._bound])
        finally:
            if self.started:
                await self.shutdown([self._bound])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Wait; uvicorn would look ten times a second."""
        await asyncio.Event().wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let replies that are on their way out, and close everything soon."""
        for server in self.servers:
            server.close()
        for bound in sockets or ():
            bound.close()
        if tasks := self.server_state.tasks:
            await asyncio.wait(tasks, timeout=_LAST_REPLIES.total_seconds())
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
