"""The routes: probes, metrics, status and the page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from listener.adapters.http.browsing import Browsing, Catalogue, nowhere, unreadable
from listener.adapters.http.guard import Guard
from listener.domain.faults import StoreUnavailableError

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_JSON = "application/json"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
# A change shows within a second or two: this, plus reading the database, plus a poll.
_KEEP_LOOK = timedelta(seconds=0.5)
_KEEP_METRICS = timedelta(seconds=0.1)
_KEEP_HISTORY = timedelta(seconds=5)
# Making a value takes at most one part in this many of the time.
_SHARE = 5


@dataclass(frozen=True, slots=True)
class Sources:
    """What the routes serve.

    `unready` returns why this daemon is not ready, `metrics` the metrics as text, `latest` the JSON
    of what this daemon handled last. The others return JSON, and raise `StoreUnavailableError` if
    they cannot read the database. The `catalogue` is for the pages of releases.
    """

    unready: Callable[[], Sequence[str]]
    metrics: Callable[[], bytes]
    latest: Callable[[], bytes]
    status: Callable[[], Awaitable[bytes]]
    page: Callable[[], Awaitable[bytes]]
    history: Callable[[], Awaitable[bytes]]
    catalogue: Catalogue


class _Kept:
    """A value made at most once per `keep`, and less often if making it takes long."""

    def __init__(self, make: Callable[[], Awaitable[bytes]], keep: timedelta) -> None:
        self._make = make
        self._keep = keep.total_seconds()
        self._value = b""
        self._until = float("-inf")
        self._turn = asyncio.Lock()

    async def get(self) -> bytes:
        """Return the current value, or that of a moment ago."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if (began := loop.time()) >= self._until:
                self._value = await self._make()
                self._until = loop.time() + max(self._keep, _SHARE * (loop.time() - began))
            return self._value


def make_site(sources: Sources, token: str | None, hosts: frozenset[str] | None) -> ASGIApp:
    """Return the application; `token` and `hosts` are as for `Guard`."""

    async def render() -> bytes:
        return sources.metrics()

    rendered = _Kept(render, _KEEP_METRICS)

    async def metrics(_: Request) -> Response:
        return Response(await rendered.get(), media_type=_METRICS)

    async def latest(_: Request) -> Response:
        return Response(sources.latest(), media_type=_JSON)

    routes = [
        *_probes(sources.unready),
        Route("/metrics", metrics),
        Route("/latest.json", latest),
        Route("/status.json", _json(_Kept(sources.status, _KEEP_LOOK))),
        Route("/page.json", _json(_Kept(sources.page, _KEEP_LOOK))),
        Route("/history.json", _json(_Kept(sources.history, _KEEP_HISTORY))),
        *_static(),
        *Browsing(sources.catalogue).routes(),
    ]
    pages = {HTTPStatus.NOT_FOUND: nowhere, StoreUnavailableError: unreadable}
    return Guard(Starlette(routes=routes, exception_handlers=pages), token, hosts)


def _probes(unready: Callable[[], Sequence[str]]) -> list[Route]:
    async def alive(_: Request) -> Response:
        # Only a running loop can answer.
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        why = list(unready())
        status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
        return JSONResponse({"ready": not why, "why": why}, status)

    return [Route("/livez", alive), Route("/readyz", ready)]


def _json(kept: _Kept) -> Callable[[Request], Awaitable[Response]]:
    async def reply(_: Request) -> Response:
        try:
            return Response(await kept.get(), media_type=_JSON)
        except StoreUnavailableError as fault:
            return JSONResponse({"fault": str(fault)}, HTTPStatus.SERVICE_UNAVAILABLE)

    return reply


def _static() -> list[Route]:
    files = [path for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES]
    return [
        Route("/" if path.name == "index.html" else f"/{path.name}", _file(path)) for path in files
    ]


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content, kind = path.read_bytes(), _TYPES[path.suffix]

    async def reply(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return reply
