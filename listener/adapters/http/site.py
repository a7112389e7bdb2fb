"""The routes: probes, metrics, status and the page."""

from __future__ import annotations

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

from listener.adapters.http.guard import Guard
from listener.adapters.http.kept import Kept
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
# Within a second or two a change is to be seen: that is this, what a look takes, and a poll.
_KEEP_LOOK = timedelta(seconds=0.5)
_KEEP_METRICS = timedelta(seconds=0.1)
_KEEP_HISTORY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the routes have it from.

    `unready` tells why this daemon is not ready, `metrics` the text of the metrics, `latest` the
    JSON of what this daemon handled last. The others make JSON, and raise `StoreUnavailableError`
    if the database cannot be read.
    """

    unready: Callable[[], Sequence[str]]
    metrics: Callable[[], bytes]
    latest: Callable[[], bytes]
    status: Callable[[], Awaitable[bytes]]
    page: Callable[[], Awaitable[bytes]]
    history: Callable[[], Awaitable[bytes]]


def make_site(sources: Sources, token: str | None, hosts: frozenset[str] | None) -> ASGIApp:
    """Return the application; `token` and `hosts` are as for `Guard`."""

    async def alive(_: Request) -> Response:
        # Only a loop that turns can say so.
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        why = list(sources.unready())
        status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
        return JSONResponse({"ready": not why, "why": why}, status)

    async def render() -> bytes:
        return sources.metrics()

    rendered = Kept(render, _KEEP_METRICS)

    async def metrics(_: Request) -> Response:
        return Response(await rendered.get(), media_type=_METRICS)

    async def latest(_: Request) -> Response:
        return Response(sources.latest(), media_type=_JSON)

    routes = [
        Route("/livez", alive),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/latest.json", latest),
        Route("/status.json", _json(Kept(sources.status, _KEEP_LOOK))),
        Route("/page.json", _json(Kept(sources.page, _KEEP_LOOK))),
        Route("/history.json", _json(Kept(sources.history, _KEEP_HISTORY))),
        *_static(),
    ]
    return Guard(Starlette(routes=routes), token, hosts)


def _json(kept: Kept) -> Callable[[Request], Awaitable[Response]]:
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
