"""The ways in which a call to LML fails, and what each means to who asked."""

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
    CallInterruptedError,
    LmlRefusedError,
    LmlUnavailableError,
    PageRefusedError,
    TracksRefusedError,
    first_of,
)

_RETRY_AFTER_CAP = timedelta(minutes=5)
# No pause that anybody means has more digits; a longer number might not fit a duration.
_LONGEST_RETRY_AFTER = 9
_KEY_REFUSED = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))


# Refused twice: parts of the page may go through, the same page will not.
_TRIES = {Disposition.HALT: 1, Disposition.SPLIT: 1, Disposition.TRY_THEN_SPLIT: 2}
_TOO_LONG = (httpx.ReadTimeout, httpx.WriteTimeout)
# LML was reached, and took too long.
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
    """An answer with another status than 200."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"LML answered {response.status_code} to {response.request.url.path}")
        refused = response.status_code in _KEY_REFUSED
        words = "refused our key ({})" if refused else "answered {}"
        self.cause = words.format(response.status_code)
        says_json = "json" in response.headers.get("content-type", "")
        self.disposition = dispose(response.status_code, says_json=says_json)
        self.retry_after = _retry_after(response)


class MalformedReplyError(Exception):
    """A reply that cannot be read: too long, cut, in another encoding or of another shape."""


class NotLmlError(Exception):
    """A 200 whose body is no JSON object: somebody else answered, and no row is to blame."""


# An address that cannot be spelled, be it ours or that of a redirect, is no HTTPError to httpx.
_UNSPELLABLE = (httpx.InvalidURL, UnicodeError)
UNANSWERED = (httpx.HTTPError, TimeoutError, *_UNSPELLABLE)
FAILURES = (StatusError, MalformedReplyError, NotLmlError, *UNANSWERED)


@dataclass(frozen=True, slots=True)
class Failed:
    """A try without an answer: what it means to who asked, and the most tries that are worth it.

    It is made at once of the error: that holds megabytes, by its traceback, until the garbage
    collector comes.
    """

    fault: Exception
    tries: int | None = None


def failed(error: Exception, path: str, refused: type[PageRefusedError]) -> Failed:
    """Return what one of `FAILURES` means; `refused` if the rows may be to blame."""
    if isinstance(error, StatusError):
        return Failed(meaning(error, refused), _TRIES.get(error.disposition))
    if isinstance(error, MalformedReplyError):
        return Failed(unreadable(refused)(str(error)), tries=1)
    if isinstance(error, NotLmlError):
        return Failed(LmlUnavailableError(str(error)))
    reason = reason_of(error)
    message = f"no answer to {path}: {reason}"
    # What LML took too long for would take as long again, and others wait for its place.
    tries = (
        1 if isinstance(error, _TOO_LONG) or not isinstance(error, httpx.TransportError) else None
    )
    # Nobody can tell a service that hangs from one that is slow with tracks.
    if refused is TracksRefusedError and isinstance(error, _NO_ANSWER_IN_TIME):
        return Failed(refused(message), tries)
    interrupted = isinstance(error, _AFTER_CONNECTING)
    fault = CallInterruptedError if interrupted else LmlUnavailableError
    return Failed(fault(message, cause=f"not answered ({reason})"), tries)


def unreadable(refused: type[PageRefusedError]) -> type[Exception]:
    """Return what a reply that cannot be read means.

    Of one with tracks those may be the reason. Any other is as good as none: LML may fail, or fail
    at one row.
    """
    return refused if refused is TracksRefusedError else CallInterruptedError


def reason_of(error: BaseException) -> str:
    """Return the system's own words for a call that failed; without any, the kind of error.

    The text of an error of the protocol may quote a header with its token.
    """
    if isinstance(error, StatusError | NotLmlError):
        return str(error)
    if isinstance(error, _UNSPELLABLE):
        return "an address that cannot be used"
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
            return LmlUnavailableError(str(error), error.retry_after, error.cause)
        case Disposition.INTERRUPTED:
            return CallInterruptedError(str(error), error.retry_after, error.cause)
        case Disposition.HALT:
            return LmlRefusedError(str(error), cause=error.cause)
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
