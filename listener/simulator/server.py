"""Serving a simulator: in a thread of this process, or as the whole process."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from listener.simulator.app import SimulatorApp
from listener.simulator.exchange import TRANSPORT
from listener.simulator.state import Simulator

BACKLOG = 2048
LOOPBACK = "127.0.0.1"


class _Protocol(HttpToolsProtocol):
    """Gives the application its transport, for resets and cuts."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class _SimulatorServer(uvicorn.Server):
    """Serves until it is stopped, then cuts all open connections and ends at once."""

    def __init__(self, simulator: Simulator, port: int = 0, host: str = LOOPBACK) -> None:
        """Bind `port` of `host` (0: a free one); from now on connections queue."""
        super().__init__(
            uvicorn.Config(
                SimulatorApp(simulator),
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                date_header=False,
                server_header=False,
                timeout_keep_alive=600,
            )
        )
        self._socket = _bound_socket(host, port)
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        self.ready = Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def answer(self) -> None:
        """Serve until `stop`."""
        await self.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Ask the server to stop; safe from any thread once it is ready, and from a signal."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End on a signal, with exit code 0: uvicorn would raise the signal again."""
        del sig, frame
        self.stop()

    async def main_loop(self) -> None:
        """Wait for `stop`; uvicorn would look ten times a second."""
        self._loop = asyncio.get_running_loop()
        self.ready.set()
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything at once; uvicorn would wait for answers that never come."""
        del sockets
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        tasks = list(self.server_state.tasks)
        # One turn of the loop lets each request notice that its connection is gone.
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _bound_socket(host: str, port: int) -> socket.socket:
    # With the protocol named, asyncio turns Nagle's delay off: it looks at that number, and the
    # 0 that `socket.create_server` leaves there costs 40 ms a call.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    bound.listen(BACKLOG)
    return bound


@contextmanager
def simulator_thread(simulator: Simulator, port: int = 0) -> Iterator[str]:
    """Serve `simulator` from a thread for the length of the block; yields its base URL."""
    server = _SimulatorServer(simulator, port)
    thread = Thread(target=asyncio.run, args=(server.answer(),), name="simulator", daemon=True)
    thread.start()
    server.ready.wait()
    try:
        yield server.url
    finally:
        server.stop()
        thread.join()


async def serve(
    simulator: Simulator, port: int, *, host: str = LOOPBACK, watch_stdin: bool = False
) -> None:
    """Print the URL, then serve until SIGTERM or SIGINT.

    With `watch_stdin` also until standard input ends: a parent that dies closes it, however it
    died, so no simulator outlives the program that started it.
    """
    server = _SimulatorServer(simulator, port, host)
    if watch_stdin:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), server.stop)
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    await server.answer()
