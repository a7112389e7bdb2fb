"""The ways in which a call to LML fails, and what each means to who asked."""

from __future__ import annotations

import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import assert_never

import httpx

from listener.domain.disposition import Disposition, dispose
from listener.domain.faults import (
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    PageRefusedError,
    first_of,
)

_RETRY_AFTER_CAP = timedelta(minutes=5)
# No pause that anybody means has more digits; a longer number might not fit a duration.
_LONGEST_RETRY_AFTER = 9


_AFTER_CONNECTING = (
    httpx.ReadTimeout,
    httpx.ReadError,
    httpx.WriteTimeout,
    httpx.WriteError,
    httpx.RemoteProtocolError,
    TimeoutError,
)


class StatusError(Exception):
    """An answer with another status than 200."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"LML answered {response.status_code} to {response.request.url.path}")
        says_json = "json" in response.headers.get("content-type", "")
        self.disposition = dispose(response.status_code, says_json=says_json)
        self.retry_after = _retry_after(response)


class OversizedReplyError(Exception):
    """A reply with more bytes than are read."""


class NotLmlError(Exception):
    """A 200 whose body is no JSON object: somebody else answered, and no row is to blame."""


def worth_a_retry(error: BaseException) -> bool:
    """Return whether the same call may go well a moment later.

    One that LML took too long for would take as long again, and others wait for its place.
    """
    if isinstance(error, StatusError):
        return error.disposition not in {Disposition.HALT, Disposition.SPLIT}
    took_too_long = isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)
    return isinstance(error, httpx.TransportError | NotLmlError) and not took_too_long


def is_interrupted(error: BaseException) -> bool:
    """Return whether a call ended without an answer after the connection was made."""
    return isinstance(error, _AFTER_CONNECTING)


def reason_of(error: BaseException) -> str:
    """Return the system's own words for a call that failed; without any, the kind of error.

    The text of an error of the protocol may quote a header with its token.
    """
    if isinstance(error, StatusError | NotLmlError):
        return str(error)
    cause: BaseException | None = error if isinstance(error, httpx.NetworkError) else None
    while cause is not None:
        cause = first_of(cause)
        if isinstance(cause, OSError) and cause.errno is not None:
            # asyncio puts words of its own, with the address, for those of the system.
            theirs = isinstance(cause, socket.gaierror | ssl.SSLError)
            return str(cause.strerror) if theirs else os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def meaning(error: StatusError, refused: type[PageRefusedError]) -> Exception:
    """Return the fault that a status stands for; `refused` if the rows may be to blame."""
    match error.disposition:
        case Disposition.WAIT:
            return LmlUnavailableError(str(error), error.retry_after)
        case Disposition.INTERRUPTED:
            return CallInterruptedError(str(error), error.retry_after)
        case Disposition.HALT:
            return LmlRefusedError(str(error))
        case Disposition.SPLIT:
            return PageRefusedError(str(error))
        case Disposition.TRY_THEN_SPLIT:
            return refused(str(error))
        case _:
            assert_never(error.disposition)


def _retry_after(response: httpx.Response) -> timedelta | None:
    # Seconds or a date: RFC 9110, section 10.2.3.
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        longest = len(value) > _LONGEST_RETRY_AFTER
        return _RETRY_AFTER_CAP if longest else min(_RETRY_AFTER_CAP, timedelta(seconds=int(value)))
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    left = until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)
    return min(_RETRY_AFTER_CAP, max(timedelta(), left))
