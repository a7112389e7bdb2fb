"""The ways in which a call to LML fails, and what each means for the caller."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import assert_never

import httpx

from listener.domain.disposition import Disposition, dispose
from listener.domain.faults import (
    BatchRefusedError,
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    TracksRefusedError,
    first_of,
)

_RETRY_AFTER_CAP = timedelta(minutes=5)
# No sensible pause has more digits, and a longer number might not fit a timedelta.
_LONGEST_RETRY_AFTER = 9
_KEY_REFUSED = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
# How often to attempt the same batch: after two refusals only parts of it may go through.
_TRIES = {Disposition.HALT: 1, Disposition.SPLIT: 1, Disposition.TRY_THEN_SPLIT: 2}
_TOO_LONG = (httpx.ReadTimeout, httpx.WriteTimeout)
# LML was reached but took too long.
_NO_ANSWER_IN_TIME = (httpx.ReadTimeout, TimeoutError)
_AFTER_CONNECTING = (
    httpx.ReadTimeout,
    httpx.ReadError,
    httpx.WriteTimeout,
    httpx.WriteError,
    httpx.RemoteProtocolError,
    TimeoutError,
)


class StatusError(Exception):
    """A reply with a status other than 200."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"LML answered {response.status_code} to {response.request.url.path}")
        refused = response.status_code in _KEY_REFUSED
        words = "refused our key ({})" if refused else "answered {}"
        self.cause = words.format(response.status_code)
        says_json = "json" in response.headers.get("content-type", "")
        self.disposition = dispose(response.status_code, says_json=says_json)
        self.retry_after = _retry_after(response)


class MalformedReplyError(Exception):
    """An unreadable reply: too long, cut off, in another encoding or of another shape."""


class NotLmlError(Exception):
    """A 200 without a JSON object: something other than LML answered, so no row is to blame."""


# An invalid address, ours or that of a redirect, is not an HTTPError in httpx.
_BAD_ADDRESS = (httpx.InvalidURL, UnicodeError)
UNANSWERED = (httpx.HTTPError, TimeoutError, *_BAD_ADDRESS)
FAILURES = (StatusError, MalformedReplyError, NotLmlError, *UNANSWERED)


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed attempt: what it means for the caller, and how many attempts make sense.

    It replaces the error at once: through its traceback, that would hold megabytes until the next
    garbage collection.
    """

    fault: Exception
    tries: int | None = None


def failed(error: Exception, path: str, refused: type[BatchRefusedError]) -> Failed:
    """Return what one of `FAILURES` means; `refused` if the rows may be to blame."""
    if isinstance(error, StatusError):
        return Failed(meaning(error, refused), _TRIES.get(error.disposition))
    if isinstance(error, MalformedReplyError):
        return Failed(unreadable(refused)(str(error)), tries=1)
    if isinstance(error, NotLmlError):
        return Failed(LmlUnavailableError(str(error)))
    reason = reason_of(error)
    message = f"no answer to {path}: {reason}"
    # A call that timed out would take as long again, while other calls wait for LML.
    tries = (
        1 if isinstance(error, _TOO_LONG) or not isinstance(error, httpx.TransportError) else None
    )
    # A service that hangs looks like one that is slow because of the tracks.
    if refused is TracksRefusedError and isinstance(error, _NO_ANSWER_IN_TIME):
        return Failed(refused(message), tries)
    interrupted = isinstance(error, _AFTER_CONNECTING)
    fault = CallInterruptedError if interrupted else LmlUnavailableError
    return Failed(fault(message, cause=f"not answered ({reason})"), tries)


def unreadable(refused: type[BatchRefusedError]) -> type[Exception]:
    """Return the fault that an unreadable reply stands for.

    If tracks were requested, they may be the reason. Otherwise it is like no reply: LML may be
    failing, or failing on one row.
    """
    return refused if refused is TracksRefusedError else CallInterruptedError


def reason_of(error: BaseException) -> str:
    """Return the system's message for a failed call, or else the type of the error.

    The message of a protocol error may quote a header with our token.
    """
    if isinstance(error, StatusError | NotLmlError):
        return str(error)
    if isinstance(error, _BAD_ADDRESS):
        return "an address that cannot be used"
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "timed out"
    cause: BaseException | None = error if isinstance(error, httpx.NetworkError) else None
    while cause is not None:
        cause = first_of(cause)
        if isinstance(cause, OSError) and cause.errno is not None:
            # asyncio replaces the system's message with its own, which contains the address.
            theirs = isinstance(cause, socket.gaierror | ssl.SSLError)
            return str(cause.strerror) if theirs else os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def meaning(error: StatusError, refused: type[BatchRefusedError]) -> Exception:
    """Return the fault that a status stands for; `refused` if the rows may be to blame."""
    match error.disposition:
        case Disposition.WAIT:
            return LmlUnavailableError(str(error), error.retry_after, error.cause)
        case Disposition.INTERRUPTED:
            return CallInterruptedError(str(error), error.retry_after, error.cause)
        case Disposition.HALT:
            return LmlRefusedError(str(error), cause=error.cause)
        case Disposition.SPLIT:
            return BatchRefusedError(str(error))
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
