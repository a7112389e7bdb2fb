"""Listens on an address, and serves an application there in the running event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from listener.domain.faults import FixableError

_CONNECTIONS = 128
# Accepted per turn of the loop: far fewer than we hold, so that a request is read before its
# connection may have to give way.
_ACCEPTED_AT_ONCE = 32
# Waiting to be accepted.
_BACKLOG = 1_024
_HEADER_BYTES = 16_384
_FIRST_REQUEST = timedelta(seconds=10)
# Slow clients lose their connection; a browser opens the next one by itself.
_LIFE = timedelta(seconds=65)
# A newer connection has not had time to send its request.
_STALE = timedelta(seconds=0.25)
_LAST_REPLIES = timedelta(seconds=0.5)


def bound_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; from then on, connections queue. Raises `FixableError` if it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )[0]
        # asyncio disables Nagle's algorithm only if the protocol is given.
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(_BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        message = (
            f"HTTP_BIND is {host}:{port}: {error.strerror or error}; "
            "choose another address, or leave it empty to serve nothing"
        )
        raise FixableError(message) from error
    return bound


def url_of(bound: socket.socket, host: str) -> str:
    """Return the address for a browser."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}/"


class _Protocol(H11Protocol):
    """A connection for one request: it lives for a bounded time, and gives way to newer ones."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(_FIRST_REQUEST.total_seconds(), self._look)
        self.since = self.loop.time()
        self.is_given_up = False
        self._make_room()

    def send_400_response(self, msg: str) -> None:
        """Reject invalid HTTP; within a request, close the connection without a reply.

        uvicorn would reply twice, and log that as an error of ours.
        """
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None:
            super().send_400_response(msg)
        else:
            cycle.disconnected = True
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        """Close the oldest idle connection, or else the oldest: the new one may be a probe.

        A client that stopped reading stays busy forever, and would outlive every newer one.
        """
        all_ = cast("set[_Protocol]", self.connections)
        # This includes closing connections, which stay until their reply was read.
        held = [each for each in all_ if not each.is_given_up]
        if len(held) > _CONNECTIONS:
            stale = self.loop.time() - _STALE.total_seconds()
            oldest = min(held, key=lambda each: (each.is_busy or each.since > stale, each.since))
            oldest.give_up()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered; an incomplete one does not count."""
        return cast("object | None", self.cycle) is not None

    def _look(self) -> None:
        if self.is_busy:
            self._timer = self.loop.call_later(_LIFE.total_seconds(), self.give_up)
        else:
            self.give_up()

    def give_up(self) -> None:
        """Close at once, even if there is more to send."""
        self.is_given_up = True
        self.transport.abort()


class SiteServer(uvicorn.Server):
    """Serves an application on a listening socket, and leaves signals to the daemon."""

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
                h11_max_incomplete_event_size=_HEADER_BYTES,
                backlog=_ACCEPTED_AT_ONCE,
            )
        )
        self._bound = bound
        logging.getLogger("uvicorn.error").addFilter(_is_unforeseen)

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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving; asyncio has one number for accepting and for the backlog."""
        await super().startup(sockets)
        self._bound.listen(_BACKLOG)

    async def main_loop(self) -> None:
        """Wait; uvicorn would wake up ten times a second."""
        await asyncio.Event().wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the replies in progress, and close everything soon."""
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


def _is_unforeseen(record: logging.LogRecord) -> bool:
    """Leave out that a reply was not completed: what ends one early logs why."""
    return "without completing response" not in record.getMessage()
