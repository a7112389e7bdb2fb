"""What a reply that is no answer means for the questions that were put."""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus


class Disposition(Enum):
    """What to do about it, by what the reply shows.

    WAIT: the service itself is busy, restarting or gone; no row is to blame, all is kept.
    INTERRUPTED: the edge had no answer from the service: that may be gone, or fail at one row.
    HALT: it does not accept our key, or lacks the route; nothing changes until a person acts.
    SPLIT: the page is too large, or one of its rows spoils it: smaller pages may be answered.
    TRY_THEN_SPLIT: as SPLIT, but the fault may have been momentary: first the same page once more,
    and if it was asked with tracks, once without them: LML cannot always answer with tracks.
    """

    WAIT = "wait"
    INTERRUPTED = "interrupted"
    HALT = "halt"
    SPLIT = "split"
    TRY_THEN_SPLIT = "try, then split"


_NO_ENTRY = frozenset(
    (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
    )
)
_NO_ANSWER = frozenset((HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT))
_ABOUT_THE_PAGE = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
)


def dispose(status: int, *, says_json: bool) -> Disposition:
    """Decide on a status that is not 200; `says_json` is what its content type says.

    A 500 in JSON comes from LML's own gate: its token is not set. Any other 500 is a bug that one
    input may trigger. A redirect would take the token elsewhere: the address is wrong.
    """
    if status in _NO_ENTRY or HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Disposition.HALT
    if status in _ABOUT_THE_PAGE:
        return Disposition.SPLIT
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return Disposition.HALT if says_json else Disposition.TRY_THEN_SPLIT
    return Disposition.INTERRUPTED if status in _NO_ANSWER else Disposition.WAIT
