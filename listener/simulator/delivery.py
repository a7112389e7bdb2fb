"""Faults in transit: replies that never arrive, end early, trickle, lie or are huge."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterator

from starlette.responses import Response

from listener.simulator.exchange import Exchange
from listener.simulator.faults import BodyKind, Fault, FaultName
from listener.simulator.replies import error_body
from listener.simulator.requests import Rejection

_MIB = 1 << 20
_PIECE = b" " * _MIB
_HEAD, _TAIL = b'{"results":[', b"]}"
_MESSAGES = {
    400: "malformed request",
    401: "missing token",
    403: "wrong token",
    404: "not found",
    405: "method not allowed",
    413: "request entity too large",
    422: "invalid request",
    429: "too many requests",
    500: "Internal Server Error",
}


def _default_kind(status: int) -> BodyKind:
    if status == 500:  # noqa: PLR2004
        return "text"
    return "html" if status == 429 or status > 500 else "message"  # noqa: PLR2004


async def _status(exchange: Exchange, fault: Fault, _body: bytes) -> int:
    rejection = Rejection(fault.status, _MESSAGES.get(fault.status, "service unavailable"))
    body, media_type = error_body(rejection, fault.body or _default_kind(fault.status))
    headers = {"retry-after": fault.retry_after} if fault.retry_after else None
    content = body if fault.text is None else fault.text.encode()
    await exchange.respond(Response(content, fault.status, headers, media_type))
    return fault.status


async def _reset(exchange: Exchange, _fault: Fault, _body: bytes) -> None:
    transport = exchange.transport
    # Lingering for 0 s turns the close into a reset; without it the client sees a clean end.
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await exchange.until_disconnect()


async def _reset_midway(exchange: Exchange, fault: Fault, body: bytes) -> None:
    await exchange.begin((b"content-length", b"%d" % len(body)))
    await exchange.piece(body[: len(body) // 2], more=True)
    await _reset(exchange, fault, body)


async def _cut(exchange: Exchange, _fault: Fault, body: bytes) -> None:
    await exchange.begin((b"content-length", b"%d" % len(body)))
    await exchange.piece(body[: len(body) // 2], more=True)
    exchange.transport.close()
    await exchange.until_disconnect()


async def _hang(exchange: Exchange, _fault: Fault, _body: bytes) -> None:
    await exchange.until_disconnect()


async def _drip(exchange: Exchange, fault: Fault, body: bytes) -> int:
    size = fault.size or 1
    await exchange.begin((b"content-length", b"%d" % len(body)))
    for start in range(0, len(body), size):
        if exchange.transport.is_closing():
            break
        await exchange.piece(body[start : start + size], more=start + size < len(body))
        await asyncio.sleep(fault.interval.total_seconds())
    return 200


def _whole(
    change: Callable[[bytes], bytes], media_type: str = "application/json"
) -> Callable[[Exchange, Fault, bytes], Awaitable[int]]:
    async def deliver(exchange: Exchange, _fault: Fault, body: bytes) -> int:
        await exchange.respond(Response(change(body), 200, media_type=media_type))
        return 200

    return deliver


async def _redirect(exchange: Exchange, fault: Fault, _body: bytes) -> int:
    await exchange.respond(Response(b"", 307, {"location": fault.location}))
    return 307


async def _gzip(exchange: Exchange, _fault: Fault, body: bytes) -> int:
    squeeze = zlib.compressobj(wbits=31)
    content = squeeze.compress(body) + squeeze.flush()
    headers = {"content-encoding": "gzip"}
    await exchange.respond(Response(content, 200, headers, "application/json"))
    return 200


async def _gzip_bomb(exchange: Exchange, fault: Fault, _body: bytes) -> int:
    pieces = _bomb((fault.size or 256 * _MIB) // _MIB)
    await _stream(exchange, pieces, (b"content-encoding", b"gzip"))
    return 200


def _bomb(mebibytes: int) -> Iterator[bytes]:
    """Yield one gzip stream that unpacks to a JSON reply of about `mebibytes` of blanks."""
    squeeze = zlib.compressobj(9, wbits=31)
    yield squeeze.compress(_HEAD)
    for _ in range(mebibytes):
        yield squeeze.compress(_PIECE)
    yield squeeze.compress(_TAIL) + squeeze.flush()


async def _huge_body(exchange: Exchange, fault: Fault, _body: bytes) -> int:
    await _stream(exchange, _blanks(fault))
    return 200


async def _huge_declared(exchange: Exchange, fault: Fault, _body: bytes) -> int:
    length = sum(len(piece) for piece in _blanks(fault))
    await _stream(exchange, _blanks(fault), (b"content-length", b"%d" % length))
    return 200


def _blanks(fault: Fault) -> Iterator[bytes]:
    yield _HEAD
    for _ in range((fault.size or 100 * _MIB) // _MIB):
        yield _PIECE
    yield _TAIL


async def _stream(
    exchange: Exchange, pieces: Iterator[bytes], *headers: tuple[bytes, bytes]
) -> None:
    await exchange.begin(*headers)
    for piece in filter(None, pieces):
        if exchange.transport.is_closing():
            await exchange.until_disconnect()
            return
        await exchange.piece(piece, more=True)
        # Gives the loop a chance to notice a disconnect and to answer other clients.
        await asyncio.sleep(0)
    await exchange.piece(b"", more=False)


_HTML_PAGE = b"<!doctype html><html><body><h1>Welcome to the proxy</h1></body></html>"
_DELIVERIES: dict[FaultName, Callable[[Exchange, Fault, bytes], Awaitable[int | None]]] = {
    FaultName.STATUS: _status,
    FaultName.RESET: _reset,
    FaultName.RESET_MIDWAY: _reset_midway,
    FaultName.CUT: _cut,
    FaultName.HANG: _hang,
    FaultName.DRIP: _drip,
    FaultName.TRUNCATED_JSON: _whole(lambda body: body[: len(body) // 2]),
    FaultName.NOT_JSON: _whole(lambda _: b"results: none today"),
    FaultName.INVALID_UTF8: _whole(lambda _: b'{"results": ["\xff\xfe"]}'),
    FaultName.EMPTY_BODY: _whole(lambda _: b""),
    FaultName.HTML: _whole(lambda _: _HTML_PAGE, "text/html"),
    FaultName.WRONG_CONTENT_TYPE: _whole(lambda body: body, "text/plain"),
    FaultName.REDIRECT: _redirect,
    FaultName.GZIP: _gzip,
    FaultName.GZIP_BOMB: _gzip_bomb,
    FaultName.HUGE_BODY: _huge_body,
    FaultName.HUGE_DECLARED: _huge_declared,
}
# These act before LML has worked, so no honest reply is built for them.
AT_ONCE = frozenset(
    {
        FaultName.STATUS,
        FaultName.RESET,
        FaultName.HANG,
        FaultName.REDIRECT,
        FaultName.GZIP_BOMB,
        FaultName.HUGE_BODY,
        FaultName.HUGE_DECLARED,
    }
)


def implemented() -> frozenset[FaultName]:
    """Return the names of all faults that `deliver` knows."""
    return frozenset(_DELIVERIES)


async def deliver(exchange: Exchange, fault: Fault, body: bytes) -> int | None:
    """Send `body` with the fault; return the status sent, None if no whole reply was."""
    return await _DELIVERIES[fault.name](exchange, fault, body)
