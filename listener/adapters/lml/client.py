"""Asks LML over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import httpx
import structlog
from pydantic_core import to_json
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    wait_random_exponential,
)

from listener.adapters.lml.failures import (
    FAILURES,
    UNANSWERED,
    Failed,
    MalformedReplyError,
    NotLmlError,
    StatusError,
    failed,
    unreadable,
)
from listener.adapters.lml.http import API, HEALTH, Bounds, open_http, read_body, root_of
from listener.adapters.lml.results import BulkReply
from listener.adapters.lml.wire import CONTRACT, is_known, read_minted, read_refreshed, read_release
from listener.domain.faults import (
    BatchRefusedError,
    CallInterruptedError,
    LmlUnavailableError,
    TracksRefusedError,
)
from listener.domain.gate import Route
from listener.domain.question import Question
from listener.domain.refreshing import Refreshed

_log = structlog.stdlib.get_logger()

_HEALTH_TIMEOUT = timedelta(seconds=5)
_LONGEST_CONTRACT = 40

# A row has at most some fifty values. A credit has up to forty, and a release has 56 credits on
# average: this leaves room for half as many again, and for the largest release.
_VALUES, _VALUES_WITH_TRACKS = 200, 2_000
_MARGIN = 100_000
# Bytes per value on average, with its name and indentation; fewer than twenty are common.
_LONGEST_VALUE = 32


@dataclass(frozen=True, slots=True)
class LmlLimits:
    """Limits on calls: attempts, timeouts, the size of replies.

    `connections` is the most calls that may be in flight.
    """

    connections: int
    attempts: int
    resolve_timeout: timedelta
    refresh_timeout: timedelta
    reply_bytes: int


T = TypeVar("T")
_OBJECT = re.compile(rb"\s*\{")


class LmlClient:
    """A client of one LML."""

    def __init__(self, http: httpx.AsyncClient, limits: LmlLimits, health: str) -> None:
        self._http = http
        self._health = health
        self._limits = limits
        self._turn = asyncio.Lock()
        self._failing = False
        self._warned_of_contract = False

    async def ask(
        self, questions: Sequence[Question], *, with_tracks: bool = False, once: bool = False
    ) -> BulkReply:
        refused = TracksRefusedError if with_tracks else BatchRefusedError
        values = _VALUES_WITH_TRACKS if with_tracks else _VALUES
        body = await self._post(
            Route.LIBRARY,
            _content(questions, with_tracks=with_tracks),
            self._limits.resolve_timeout,
            refused,
            values=values * len(questions),
            attempts=1 if once else None,
        )
        check_contract = self._check_contract if with_tracks else None
        return BulkReply(body, unreadable(refused), self._turn, check_contract)

    def _check_contract(self, contract: object) -> None:
        if is_known(contract) or self._warned_of_contract:
            return
        self._warned_of_contract = True
        _log.warning(
            "ignoring tracks under an unknown contract, logged once",
            contract=repr(contract)[:_LONGEST_CONTRACT],
            known=CONTRACT,
        )

    async def refresh(self, identity_ids: Sequence[int]) -> dict[int, Refreshed]:
        """Make one attempt: each may cost Discogs calls, which the caller accounts for."""
        body = await self._post(
            Route.ROTATION,
            to_json({"identity_ids": list(identity_ids)}),
            self._limits.refresh_timeout,
            values=_VALUES_WITH_TRACKS * len(identity_ids),
            attempts=1,
        )
        return _read(read_refreshed, body)

    async def mint(self, discogs_release_id: int) -> int:
        body = await self._post(
            Route.MINT,
            to_json(
                {
                    "kind": "release",
                    "source": "discogs_release",
                    "external_id": str(discogs_release_id),
                }
            ),
            self._limits.resolve_timeout,
        )
        return _read(read_minted, body)

    async def well(self) -> bool:
        """Return whether LML reports that it is healthy; it may fail to answer all the same."""
        try:
            # Only the status is read: the body may be endless.
            async with self._health_reply() as response:
                return response.status_code == HTTPStatus.OK
        except UNANSWERED:
            return False

    async def release(self) -> str | None:
        """Return version and commit of the running LML, or None if unknown."""
        try:
            async with self._health_reply() as response:
                body = await read_body(response, self._bounds())
        except (*UNANSWERED, MalformedReplyError):
            return None
        return read_release(body)

    @asynccontextmanager
    async def _health_reply(self) -> AsyncIterator[httpx.Response]:
        async with (
            asyncio.timeout(_HEALTH_TIMEOUT.total_seconds()),
            self._http.stream("GET", self._health) as response,
        ):
            yield response

    async def _post(
        self,
        path: str,
        content: bytes,
        deadline: timedelta,
        refused: type[BatchRefusedError] = BatchRefusedError,
        *,
        values: int = 0,
        attempts: int | None = None,
    ) -> bytearray:
        # While LML fails, one attempt is enough: the caller retries.
        attempts = 1 if self._failing else attempts or self._limits.attempts
        retrying = AsyncRetrying(
            stop=partial(_is_enough, attempts),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            retry=retry_if_result(_is_failed),
            before_sleep=_log_retry,
            retry_error_callback=_last,
        )
        reply: bytearray | Failed = await retrying(
            self._attempt, path, content, deadline, self._bounds(values), refused
        )
        if isinstance(reply, Failed):
            self._failing = isinstance(reply.fault, LmlUnavailableError)
            raise reply.fault
        self._failing = False
        return reply

    async def _attempt(
        self,
        path: str,
        content: bytes,
        deadline: timedelta,
        bounds: Bounds,
        refused: type[BatchRefusedError],
    ) -> bytearray | Failed:
        try:
            # httpx limits each read; a reply that trickles in needs a limit on the whole call.
            async with (
                asyncio.timeout(deadline.total_seconds()),
                self._http.stream("POST", path, content=content) as response,
            ):
                if response.status_code != HTTPStatus.OK:
                    raise StatusError(response)
                body = await read_body(response, bounds)
            if _OBJECT.match(body) is None:
                raise NotLmlError(f"the reply to {path} is not a JSON object")
        except FAILURES as error:
            return failed(error, path, refused)
        return body

    def _bounds(self, values: int = 0) -> Bounds:
        most = values + _MARGIN
        return Bounds(min(self._limits.reply_bytes, most * _LONGEST_VALUE), most)


@asynccontextmanager
async def open_lml(
    base_url: str, api_key: str | None, limits: LmlLimits
) -> AsyncIterator[LmlClient]:
    """Open a client on LML's base URL, which may end in a slash or in /api/v1."""
    headers = {"content-type": "application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    root = root_of(base_url)
    async with open_http(
        root + API,
        headers=headers,
        timeout=httpx.Timeout(
            max(limits.resolve_timeout, limits.refresh_timeout).total_seconds(), connect=5, pool=5
        ),
        connections=limits.connections + 1,
    ) as http:
        yield LmlClient(http, limits, root + HEALTH)


def _content(questions: Sequence[Question], *, with_tracks: bool) -> bytes:
    # Calls last long, so that what is kept of each counts.
    inputs = [
        {
            "library_id": question.library_id,
            "artist_name": question.artist_name,
            "album_title": question.album_title,
            "legacy_release_id": question.legacy_release_id,
        }
        for question in questions
    ]
    return to_json({"inputs": inputs, "include_tracks": with_tracks})


def _read(read: Callable[[bytearray], T], body: bytearray) -> T:
    try:
        return read(body)
    except MalformedReplyError as error:
        raise CallInterruptedError(str(error)) from error
    finally:
        # An error may outlive its call, and with it everything that its frames hold.
        body.clear()


def _is_failed(reply: object) -> bool:
    return isinstance(reply, Failed)


def _is_enough(attempts: int, state: RetryCallState) -> bool:
    return state.attempt_number >= min(attempts, _last(state).tries or attempts)


def _log_retry(state: RetryCallState) -> None:
    reason = str(_last(state).fault)
    _log.info("asking LML again", attempt=state.attempt_number, reason=reason)


def _last(state: RetryCallState) -> Failed:
    if state.outcome is None:
        raise RuntimeError("the attempt has not ended yet")
    failed: Failed = state.outcome.result()
    return failed
