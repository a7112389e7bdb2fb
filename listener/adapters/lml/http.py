"""HTTP: LML's address, one request per connection, no cookies, and limits on replies."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast
from urllib.parse import urlsplit

import httpx

from listener.adapters.lml.failures import MalformedReplyError
from listener.network import proxy_for

API = "/api/v1"
HEALTH = "/health"

# The only encoding that we request; the second name is an older one for it.
_GZIP = ("gzip", "x-gzip")
# How much is unpacked at once: a few bytes may unpack to a lot, and must not block the loop.
_PIECE = 2**16
# In JSON, every value but the outermost follows one of these; those inside strings count, too.
_BEFORE_VALUES = (b",", b"[", b"{")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that we read of a reply: unpacked bytes, and JSON values.

    A parsed value takes up to some hundred times the memory of its text.
    """

    size: int
    values: int


def open_http(
    base_url: str,
    *,
    timeout: httpx.Timeout,
    connections: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.AsyncClient:
    """Return a client that carries nothing over from one request to the next.

    A late or repeated reply meets a closed connection; on an open one it would count as the reply
    to the next request.
    """
    proxy = proxy_for(base_url)
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"accept-encoding": _GZIP[0], **(headers or {})},
        timeout=timeout,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=0),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        proxy=proxy,
        verify=_trusting(base_url, proxy or ""),
        trust_env=False,
    )


def _trusting(*addresses: str) -> ssl.SSLContext:
    if any(urlsplit(address).scheme == "https" for address in addresses):
        return httpx.create_ssl_context()
    # Reading the system's certificates takes 30 ms. This one trusts nobody.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def root_of(base_url: str) -> str:
    """Return the address above API; the base URL may end in a slash or in API itself."""
    return base_url.rstrip("/").removesuffix(API)


async def read_body(response: httpx.Response, bounds: Bounds) -> bytearray:
    """Return the unpacked body of a streamed reply; raises `MalformedReplyError`."""
    unpack = _unpacker(response.headers.get("content-encoding", ""))
    body, values = bytearray(), 0
    try:
        async for chunk in cast("httpx.AsyncByteStream", response.stream):
            for piece in unpack(chunk):
                body += piece
                values += sum(piece.count(mark) for mark in _BEFORE_VALUES)
                _check(len(body), values, bounds)
                await asyncio.sleep(0)
    except BaseException:
        # An error may outlive its call, and with it everything that its frames hold.
        body.clear()
        raise
    return body


def _check(size: int, values: int, bounds: Bounds) -> None:
    if size > bounds.size:
        raise MalformedReplyError(f"the reply exceeds {bounds.size} bytes")
    if values > bounds.values:
        raise MalformedReplyError(f"the reply has more than {bounds.values} values")


def _unpacker(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return lambda chunk: iter((chunk,))
    if encoding not in _GZIP:
        raise MalformedReplyError(f"the reply comes as {encoding[:40]!r}, which was not requested")
    gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def unpack(chunk: bytes) -> Iterator[bytes]:
        try:
            while chunk and not gzip.eof:
                yield gzip.decompress(chunk, _PIECE)
                chunk = gzip.unconsumed_tail
        except zlib.error as error:
            raise MalformedReplyError("the reply is not gzip, although labelled so") from error

    return unpack
