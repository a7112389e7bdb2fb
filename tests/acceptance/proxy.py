"""What stands between the daemon and its database, and may swallow what they say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.conftest import address_of, through


class Proxy:
    """Stands between clients and the server; once `dead` is set, nothing passes any more.

    All sessions stay open: it is as if the network had swallowed them. With `only` this is the lot
    of sessions that have sent these bytes before, and later ones pass.
    """

    def __init__(
        self, server: tuple[str, int], listener: socket.socket, only: bytes | None
    ) -> None:
        self.dead = threading.Event()
        self._only = only
        self._server = server
        self._listener = listener
        self._held: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Cut every connection, and see it off."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in self._held:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._held:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._serve(self._listener.accept()[0])

    def _connected(self) -> socket.socket:
        host, port = self._server
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(f"{host}/.s.PGSQL.{port}")
        return upstream

    def _serve(self, client: socket.socket) -> None:
        upstream = self._connected()
        self._held += [client, upstream]
        doomed = threading.Event()
        for ends in ((client, upstream), (upstream, client)):
            thread = threading.Thread(target=self._carry, args=(*ends, doomed))
            self._threads.append(thread)
            thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while received := source.recv(65_536):
                if self._only is None or (self._only in received and not self.dead.is_set()):
                    doomed.set()
                if not (doomed.is_set() and self.dead.is_set()):
                    target.sendall(received)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def proxy_before(dsn: str, only: bytes | None = None) -> Iterator[tuple[str, Proxy]]:
    """Yield the DSN of a proxy before the server, and the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(address_of(dsn), listener, only)
        try:
            yield through(dsn, listener.getsockname()[1]), proxy
        finally:
            proxy.close()
