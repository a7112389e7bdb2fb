"""The ways in which a call to LML fails, and what each means to who asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import assert_never

import httpx

from listener.domain.disposition import Disposition, dispose
from listener.domain.faults import LmlRefusedError, LmlUnavailableError, PageRefusedError

_RETRY_AFTER_CAP = timedelta(minutes=5)
# No pause that anybody means has more digits; a longer number might not fit a duration.
_LONGEST_RETRY_AFTER = 9


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
    """Return whether the same call may go well a moment later."""
    if isinstance(error, StatusError):
        return error.disposition in {Disposition.WAIT, Disposition.TRY_THEN_SPLIT}
    return isinstance(error, httpx.TransportError | TimeoutError | NotLmlError)


def meaning(error: StatusError, refused: type[PageRefusedError]) -> Exception:
    """Return the fault that a status stands for; `refused` if the rows may be to blame."""
    match error.disposition:
        case Disposition.WAIT:
            return LmlUnavailableError(str(error), error.retry_after)
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
