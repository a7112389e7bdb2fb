"""The listening socket."""

from __future__ import annotations

import socket

from listener.domain.faults import FixableError

_BACKLOG = 64


class BindError(FixableError):
    """Cannot listen on the address; the message says which, why, and what to do."""


def bound_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; from then on, connections queue."""
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
        raise BindError(message) from error
    return bound


def url_of(bound: socket.socket, host: str) -> str:
    """Return the address for a browser."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}/"
