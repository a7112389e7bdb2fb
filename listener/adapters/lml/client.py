"""Asks LML over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx
import structlog
from pydantic_core import to_json
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_random_exponential,
)

from listener.adapters.lml.address import API, HEALTH, root_of
from listener.adapters.lml.failures import (
    NotLmlError,
    OversizedReplyError,
    StatusError,
    is_interrupted,
    meaning,
    reason_of,
    worth_a_retry,
)
from listener.adapters.lml.reply import BulkReply
from listener.adapters.lml.tracks import CONTRACT, is_known
from listener.adapters.lml.wire import (
    MalformedReplyError,
    read_minted,
    read_refreshed,
    read_release,
)
from listener.domain.disposition import Disposition
from listener.domain.faults import (
    CallInterruptedError,
    LmlUnavailableError,
    PageRefusedError,
    TracksRefusedError,
)
from listener.domain.gate import Route
from listener.domain.question import Question
from listener.domain.refreshing import Refreshed

_log = structlog.stdlib.get_logger()

_HEALTH_TIMEOUT = timedelta(seconds=5)
_LONGEST_CONTRACT = 40


@dataclass(frozen=True, slots=True)
class LmlLimits:
    """Bounds of asking: tries of a call, the time of each, the size of replies.

    `connections` is how many calls their callers will have in flight at most.
    """

    connections: int
    attempts: int
    resolve_timeout: timedelta
    refresh_timeout: timedelta
    reply_bytes: int


# LML was reached, and took too long.
_NO_ANSWER_IN_TIME = (httpx.ReadTimeout, TimeoutError)


class LmlClient:
    """The questions that the listener puts to LML."""

    def __init__(self, http: httpx.AsyncClient, limits: LmlLimits, health: str) -> None:
        self._http = http
        self._health = health
        self._limits = limits
        self._failing = False
        self._told_contract = False

    async def ask(
        self, questions: Sequence[Question], *, with_tracks: bool = False, once: bool = False
    ) -> BulkReply:
        """Put one page of 1 to 1000 questions, only `once` or again if the call fails.

        Raises `LmlUnavailableError` if no row is to blame, `CallInterruptedError` if one may be,
        `PageRefusedError` if one is or all are, and `TracksRefusedError` if it may be that tracks
        were asked for: the reply was too long, took too long, or LML stumbled over it.
        """
        refused = TracksRefusedError if with_tracks else PageRefusedError
        inputs = [
            {
                "library_id": question.library_id,
                "artist_name": question.artist_name,
                "album_title": question.album_title,
                "legacy_release_id": question.legacy_release_id,
            }
            for question in questions
        ]
        body = await self._post(
            Route.LIBRARY,
            {"inputs": inputs, "include_tracks": with_tracks},
            self._limits.resolve_timeout,
            refused,
            attempts=1 if once else None,
        )
        return BulkReply(body, refused, self._heed_contract if with_tracks else None)

    def _heed_contract(self, contract: object) -> None:
        if is_known(contract) or self._told_contract:
            return
        self._told_contract = True
        _log.warning(
            "tracks of LML are not trusted, told once",
            contract=repr(contract)[:_LONGEST_CONTRACT],
            known=CONTRACT,
        )

    async def refresh(self, identity_ids: Sequence[int]) -> dict[int, Refreshed]:
        """Have 1 to 50 identities refreshed; returns what is said of each, raises as `ask`.

        One try only: each may cost Discogs calls, and its caller accounts for them.
        """
        body = await self._post(
            Route.ROTATION,
            {"identity_ids": list(identity_ids)},
            self._limits.refresh_timeout,
            attempts=1,
        )
        try:
            return read_refreshed(body)
        except MalformedReplyError as error:
            raise PageRefusedError(str(error)) from error

    async def mint(self, discogs_release_id: int) -> int:
        """Return the identity of a Discogs release, made now if it is new; raises as `ask`."""
        body = await self._post(
            Route.MINT,
            {
                "kind": "release",
                "source": "discogs_release",
                "external_id": str(discogs_release_id),
            },
            self._limits.resolve_timeout,
        )
        try:
            return read_minted(body)
        except MalformedReplyError as error:
            raise PageRefusedError(str(error)) from error

    async def well(self) -> bool:
        """Return whether LML says that it is well; that is not a promise that it answers."""
        try:
            # The status alone: whatever else comes, be it endless, is not read.
            async with (
                asyncio.timeout(_HEALTH_TIMEOUT.total_seconds()),
                self._http.stream("GET", self._health) as response,
            ):
                return response.status_code == HTTPStatus.OK
        except (httpx.HTTPError, TimeoutError):
            return False

    async def release(self) -> str | None:
        """Return version and commit of the LML that answers, None if it does not say."""
        try:
            async with (
                asyncio.timeout(_HEALTH_TIMEOUT.total_seconds()),
                self._http.stream("GET", self._health) as response,
            ):
                body = await self._read(response)
        except (httpx.HTTPError, TimeoutError, OversizedReplyError):
            return None
        return read_release(body)

    async def _post(
        self,
        path: str,
        body: dict[str, Any],
        deadline: timedelta,
        refused: type[PageRefusedError] = PageRefusedError,
        attempts: int | None = None,
    ) -> bytes:
        # While it fails one try a call is enough: its caller comes again.
        attempts = 1 if self._failing else attempts or self._limits.attempts
        retrying = AsyncRetrying(
            stop=partial(_is_enough, attempts),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            retry=retry_if_exception(worth_a_retry),
            before_sleep=_log_retry,
            reraise=True,
        )
        content = to_json(body)
        try:
            reply: bytes = await retrying(self._attempt, path, content, deadline)
            self._failing = False
            return reply
        except StatusError as error:
            fault = meaning(error, refused)
            self._failing = isinstance(fault, LmlUnavailableError)
            raise fault from error
        except OversizedReplyError as error:
            raise refused(str(error)) from error
        except NotLmlError as error:
            self._failing = True
            raise LmlUnavailableError(str(error)) from error
        except (httpx.HTTPError, TimeoutError) as error:
            self._failing = True
            message = f"no answer to {path}: {reason_of(error)}"
            # Nobody can tell a service that hangs from one that is slow with tracks.
            if refused is TracksRefusedError and isinstance(error, _NO_ANSWER_IN_TIME):
                raise refused(message) from error
            unavailable = CallInterruptedError if is_interrupted(error) else LmlUnavailableError
            raise unavailable(message) from error

    async def _attempt(self, path: str, content: bytes, deadline: timedelta) -> bytes:
        # httpx bounds each read; a reply that drips needs a bound for the whole call.
        async with (
            asyncio.timeout(deadline.total_seconds()),
            self._http.stream("POST", path, content=content) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                raise StatusError(response)
            body = await self._read(response)
        if body.lstrip()[:1] != b"{":
            raise NotLmlError(f"the reply to {path} is not a JSON object")
        return body

    async def _read(self, response: httpx.Response) -> bytes:
        chunks, size = [], 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._limits.reply_bytes:
                message = f"the reply exceeds {self._limits.reply_bytes} bytes"
                raise OversizedReplyError(message)
            chunks.append(chunk)
        return b"".join(chunks)


@asynccontextmanager
async def open_lml(
    base_url: str, api_key: str | None, limits: LmlLimits
) -> AsyncIterator[LmlClient]:
    """Open a client on LML's base URL, which may end in a slash or in /api/v1."""
    headers = {"content-type": "application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    root = root_of(base_url)
    async with httpx.AsyncClient(
        base_url=root + API,
        headers=headers,
        timeout=httpx.Timeout(
            max(limits.resolve_timeout, limits.refresh_timeout).total_seconds(), connect=5, pool=5
        ),
        limits=httpx.Limits(max_connections=limits.connections + 1),
        follow_redirects=False,
    ) as http:
        yield LmlClient(http, limits, root + HEALTH)


def _is_enough(attempts: int, state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    refused = isinstance(error, StatusError) and error.disposition is Disposition.TRY_THEN_SPLIT
    # Refused twice: parts of the page may go through, the same page will not.
    return state.attempt_number >= (min(attempts, 2) if refused else attempts)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    reason = "" if error is None else reason_of(error)
    _log.info("asking LML again", attempt=state.attempt_number, reason=reason)
