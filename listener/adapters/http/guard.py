"""Checks every request: read-only, with the token, and addressed to one of our names."""

from __future__ import annotations

import base64
import binascii
import hmac
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# For probes, which have no token; the replies reveal only whether we are ready, and why not.
_OPEN_PATHS = frozenset(("/livez", "/readyz"))
_METHODS = frozenset(("GET", "HEAD"))
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    # Pipelined requests on one connection would occupy the loop.
    "connection": "close",
}
_CHALLENGE = {"www-authenticate": 'Basic realm="listener", charset="UTF-8"'}


class Guard:
    """Passes on permitted requests, and adds security headers to every reply.

    The token may be a bearer token, or the password of any user, which a browser asks for. `hosts`
    are the names that requests may use for us, None for any: another site's page could make a
    browser send us requests under that site's name.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on to the application."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["type"] == "http":
            refusal = self._refusal(scope)
            await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        if scope["method"] not in _METHODS:
            status = HTTPStatus.METHOD_NOT_ALLOWED
            return PlainTextResponse("read-only: use GET or HEAD\n", status, {"allow": "GET, HEAD"})
        if scope["path"] in _OPEN_PATHS:
            return None
        headers = Headers(scope=scope)
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            status = HTTPStatus.MISDIRECTED_REQUEST
            return PlainTextResponse("unknown host name; set HTTP_TOKEN to allow any\n", status)
        if self._token is None:
            return None
        if hmac.compare_digest(_token_of(headers.get("authorization", "")), self._token):
            return None
        return PlainTextResponse("HTTP_TOKEN is needed\n", HTTPStatus.UNAUTHORIZED, _CHALLENGE)


def _name(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()


def _token_of(authorization: str) -> bytes:
    """Return the token of a request, empty if it has none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
