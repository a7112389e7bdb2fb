"""Examines LML without asking about any row, and compares its commit with the required one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

import httpx
from pydantic_core import from_json, to_json

from listener.adapters.lml.failures import UNANSWERED, MalformedReplyError, reason_of
from listener.adapters.lml.http import API, HEALTH, Bounds, open_http, read_body, root_of
from listener.domain.gate import Relation, Route

_TIMEOUT = timedelta(seconds=10)
_CONNECT_SECONDS = 5
_HEALTH = Bounds(2**20, values=10_000)
# The reply to an empty question is short.
_REPLY = Bounds(2**20, values=10_000)
# A comparison lists up to 250 commits and 300 files with their patches, whose commas count.
_COMPARISON = Bounds(32 * 2**20, values=2_000_000)
# Requests that each route rejects before it does any work.
_NOTHING = {
    Route.LIBRARY: to_json({"inputs": []}),
    Route.ROTATION: to_json({"identity_ids": []}),
    Route.MINT: to_json({"kind": "release", "source": "discogs_release", "external_id": "0"}),
}


class NoAnswerError(Exception):
    """There was no reply, or no readable one; the message contains no secret."""


class _UnreadableReplyError(NoAnswerError):
    """The reply was too long, or in an encoding that was not requested."""


@dataclass(frozen=True, slots=True)
class Health:
    """The reply of /health; an empty commit becomes None."""

    status: str
    commit: str | None


@dataclass(frozen=True, slots=True)
class Probe:
    """How a route answered an empty question.

    `is_lml` is False if it answered 200 with a body that is not LML's; errors may have any body.
    """

    status: int
    took: timedelta
    is_lml: bool = True


class LmlProbe:
    """Examines one LML."""

    def __init__(self, http: httpx.AsyncClient, api_key: str | None) -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def health(self) -> Health:
        """Read /health, which LML answers with 200, or with 503 while it is unhealthy."""
        request = self._http.build_request("GET", HEALTH)
        status, body = await _exchange(self._http, request, "LML", _HEALTH)
        if status not in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}:
            raise NoAnswerError(f"LML answered {status} to /health")
        document = _document(body, "LML's /health")
        said, commit = document.get("status"), document.get("commit_sha")
        if not isinstance(said, str) or not isinstance(commit, str | None):
            raise NoAnswerError("LML's /health answered without a valid status and commit")
        return Health(said, commit or None)

    async def probe(self, route: Route) -> Probe:
        """Send an empty question to a route; LML rejects it before it does any work."""
        headers = {"content-type": "application/json", **self._headers}
        request = self._http.build_request(
            "POST", f"{API}/{route}", content=_NOTHING[route], headers=headers
        )
        began = time.monotonic()
        try:
            status, body = await _exchange(
                self._http, request, "LML", _REPLY, read=(HTTPStatus.OK,)
            )
        except _UnreadableReplyError:
            status, body = HTTPStatus.OK, b""
        took = timedelta(seconds=time.monotonic() - began)
        return Probe(status, took, status != HTTPStatus.OK or _is_reply(body))


@asynccontextmanager
async def open_probe(base_url: str, api_key: str | None) -> AsyncIterator[LmlProbe]:
    """Open a client on LML's base URL, which may end in a slash or in /api/v1."""
    async with _client(root_of(base_url)) as http:
        yield LmlProbe(http, api_key)


async def compare_commits(url: str, base: str, head: str, token: str | None) -> Relation:
    """Ask the code host how `head` relates to `base`; `url` contains {base} and {head}.

    The code host must answer like GitHub's "Compare two commits". Raises `NoAnswerError`.
    """
    headers = {"accept": "application/vnd.github+json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    host = "the code host"
    try:
        address = httpx.URL(url.replace("{base}", base).replace("{head}", head))
    except httpx.InvalidURL as error:
        raise NoAnswerError("GATE_COMPARE_URL is not an address") from error
    async with _client(str(address)) as http:
        request = http.build_request("GET", address, headers=headers)
        status, body = await _exchange(http, request, host, _COMPARISON)
    if status != HTTPStatus.OK:
        raise NoAnswerError(f"{host} answered {status} to {base}...{head}{_hint(status)}")
    said = _document(body, "the code host's answer").get("status")
    try:
        return Relation(str(said))
    except ValueError as error:
        raise NoAnswerError(f"{host} does not report how {head} relates to {base}") from error


def _client(base_url: str) -> httpx.AsyncClient:
    return open_http(
        base_url, timeout=httpx.Timeout(_TIMEOUT.total_seconds(), connect=_CONNECT_SECONDS)
    )


async def _exchange(
    http: httpx.AsyncClient,
    request: httpx.Request,
    who: str,
    bounds: Bounds,
    read: Collection[int] | None = None,
) -> tuple[int, bytes | bytearray]:
    """Return status and body; the body is read only for the statuses in `read`, or for all."""
    try:
        # httpx limits each read; a reply that trickles in needs a limit on the whole call.
        async with asyncio.timeout(_TIMEOUT.total_seconds()):
            response = await http.send(request, stream=True)
            try:
                if read is not None and response.status_code not in read:
                    return response.status_code, b""
                return response.status_code, await read_body(response, bounds)
            finally:
                await response.aclose()
    except MalformedReplyError as error:
        raise _UnreadableReplyError(f"cannot read the answer of {who}: {error}") from error
    except UNANSWERED as error:
        raise NoAnswerError(f"{who} does not answer: {reason_of(error)}") from error


def _is_reply(body: bytes | bytearray) -> bool:
    """Return whether this is a JSON object whose `results`, if any, are a list or null."""
    try:
        document = from_json(body)
    except ValueError:
        return False
    return isinstance(document, dict) and isinstance(document.get("results", ""), list | None)


def _document(body: bytes | bytearray, what: str) -> dict[str, object]:
    try:
        document = from_json(body)
    except ValueError as error:
        raise NoAnswerError(f"{what} is not JSON") from error
    if not isinstance(document, dict):
        raise NoAnswerError(f"{what} is not a JSON object")
    return document


def _hint(status: int) -> str:
    match status:
        case HTTPStatus.NOT_FOUND:
            return ": it does not know a commit, or the repository is private (GITHUB_TOKEN)"
        case HTTPStatus.UNAUTHORIZED:
            return ": GITHUB_TOKEN is wrong"
        case HTTPStatus.FORBIDDEN | HTTPStatus.TOO_MANY_REQUESTS:
            return ": GITHUB_TOKEN is missing, or there were too many requests"
        case _:
            return ""
