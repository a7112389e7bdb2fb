"""Who may ask what: reading only, with the token, from where it is meant to be asked."""

from __future__ import annotations

import base64
import binascii
import hmac
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What probes ask: they have no token, and learn no more than yes or no and why.
OPEN_PATHS = frozenset(("/livez", "/readyz"))
_METHODS = frozenset(("GET", "HEAD"))
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    # Requests that were sent ahead on one connection would take the loop for as long as they last.
    "connection": "close",
}
_CHALLENGE = {"www-authenticate": 'Basic realm="listener", charset="UTF-8"'}


class Guard:
    """Lets through what may be asked, and says to every browser what may be done with the reply.

    The token is taken as a bearer token, or as the password of any user, which is what a browser
    asks a person for. `hosts` are the names that we may be called by, None for any: a page of
    another site could make a browser ask us under the name of that site.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the application answer."""

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
            return PlainTextResponse("reading only\n", status, {"allow": "GET, HEAD"})
        if scope["path"] in OPEN_PATHS:
            return None
        headers = Headers(scope=scope)
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            status = HTTPStatus.MISDIRECTED_REQUEST
            return PlainTextResponse("not known by this name; set HTTP_TOKEN\n", status)
        if self._token is None:
            return None
        if hmac.compare_digest(_shown(headers.get("authorization", "")), self._token):
            return None
        return PlainTextResponse("HTTP_TOKEN is needed\n", HTTPStatus.UNAUTHORIZED, _CHALLENGE)


def _name(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()


def _shown(authorization: str) -> bytes:
    """Return the token that a request shows, empty if none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
