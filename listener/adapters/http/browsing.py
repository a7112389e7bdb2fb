"""The routes of the pages on which people find a release."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Protocol

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from listener.adapters.http.documents import (
    Found,
    Listed,
    RowStory,
    list_page,
    lists_page,
    search_page,
    story_page,
    trouble_page,
)
from listener.domain.faults import StoreUnavailableError

_log = structlog.stdlib.get_logger()

_ROW_ID, _LARGEST_ID = re.compile("[0-9]{1,10}"), 2**31 - 1
_PAGE_NUMBER = re.compile("[1-9][0-9]{0,5}")


class Catalogue(Protocol):
    """What the pages show; raises `StoreUnavailableError` if the database cannot be read.

    `meanings` says what each worklist holds, by its name. `csv` yields a whole worklist in parts.
    """

    @property
    def meanings(self) -> Mapping[str, str]: ...
    async def search(self, words: str) -> Found: ...
    async def story(self, library_id: int) -> RowStory: ...
    async def worklist(self, name: str, page: int) -> Listed: ...
    def csv(self, name: str) -> AsyncGenerator[bytes, None]: ...


class _Download(StreamingResponse):
    """Sends parts as they are read; if reading fails, hangs up before the reply ends.

    A client then reports a failed download instead of saving an incomplete file. The first part is
    already read: until something is sent, a failing database can still be reported by a page.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], name: str) -> None:
        headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
        super().__init__(rest, media_type="text/csv; charset=utf-8", headers=headers)
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._rest):
                await self._send(Request(scope, receive), send)
        except StoreUnavailableError as fault:
            _log.warning("download ended early", reason=str(fault))

    async def _send(self, request: Request, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        # The reply to HEAD has no body: there is nothing more to read.
        part = None if request.method == "HEAD" else self._first
        while part is not None:
            if await request.is_disconnected():
                return
            await send({"type": "http.response.body", "body": part, "more_body": True})
            part = await anext(self._rest, None)
        await send({"type": "http.response.body", "body": b""})


class Browsing:
    """Answers what people ask about the catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/search", self._search),
            Route("/library/{library_id}", self._story),
            Route("/lists", self._lists),
            Route("/lists/{name}.csv", self._csv),
            Route("/lists/{name}", self._list),
        ]

    async def _search(self, request: Request) -> Response:
        words = request.query_params.get("q", "").replace("\0", " ").strip()
        found = await self._catalogue.search(words) if words else None
        slow = found is not None and found.obstacle is not None
        status = HTTPStatus.SERVICE_UNAVAILABLE if slow else HTTPStatus.OK
        return HTMLResponse(search_page(words, found), status)

    async def _story(self, request: Request) -> Response:
        named = request.path_params["library_id"]
        library_id = int(named) if _ROW_ID.fullmatch(named) else 0
        if not 1 <= library_id <= _LARGEST_ID:
            return _not_found("That is no id of a row.")
        story = await self._catalogue.story(library_id)
        status = HTTPStatus.OK if story.is_there else HTTPStatus.NOT_FOUND
        return HTMLResponse(story_page(library_id, story), status)

    async def _lists(self, _: Request) -> Response:
        return HTMLResponse(lists_page(self._catalogue.meanings))

    async def _list(self, request: Request) -> Response:
        name, page = request.path_params["name"], request.query_params.get("page", "1")
        meaning = self._catalogue.meanings.get(name)
        if meaning is None or not _PAGE_NUMBER.fullmatch(page):
            return _not_found("There is no such list, or no such page of it.")
        listed = await self._catalogue.worklist(name, int(page))
        return HTMLResponse(list_page(name, meaning, listed, int(page)))

    async def _csv(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._catalogue.meanings:
            return _not_found("There is no such list.")
        parts = self._catalogue.csv(name)
        return _Download(await anext(parts), parts, name)


async def nowhere(_: Request, __: Exception) -> Response:
    """Answer a path that leads nowhere."""
    return _not_found("There is no such page.")


async def unreadable(_: Request, fault: Exception) -> Response:
    """Turn a fault of the database, or too many readers of it, into a page."""
    advice = "Reload the page later, or run `listener doctor` to see why."
    page = trouble_page("This cannot be shown now", f"{fault}.", advice)
    return HTMLResponse(page, HTTPStatus.SERVICE_UNAVAILABLE)


def _not_found(what: str) -> Response:
    return HTMLResponse(trouble_page("Not found", what), HTTPStatus.NOT_FOUND)
