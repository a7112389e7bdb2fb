"""What to do when LML replies with an error instead of answers."""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus


class Disposition(Enum):
    """What to do about an error reply.

    WAIT: LML is busy, restarting or down; no row is to blame, and changes are kept.
    INTERRUPTED: the edge got no answer from LML; LML may be down, or one row may crash it.
    HALT: LML rejects our key or lacks the route; a person must act.
    SPLIT: the batch is too large, or one of its rows spoils it; smaller batches may succeed.
    TRY_THEN_SPLIT: like SPLIT, but the error may be transient: first retry the same batch, without
    tracks if it asked for them, because LML cannot always answer with tracks.
    """

    WAIT = "wait"
    INTERRUPTED = "interrupted"
    HALT = "halt"
    SPLIT = "split"
    TRY_THEN_SPLIT = "try, then split"


_ACCESS_ERRORS = frozenset(
    (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
    )
)
_EDGE_ERRORS = frozenset((HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT))
_BATCH_ERRORS = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
)


def dispose(status: int, *, says_json: bool) -> Disposition:
    """Classify a status other than 200; `says_json` says whether its content type is JSON.

    LML's own gate sends a 500 in JSON when LML has no token configured. Any other 500 is a bug that
    a single input may trigger. We follow no redirect, which would leak our key: the address is
    wrong.
    """
    if status in _ACCESS_ERRORS or HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Disposition.HALT
    if status in _BATCH_ERRORS:
        return Disposition.SPLIT
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return Disposition.HALT if says_json else Disposition.TRY_THEN_SPLIT
    return Disposition.INTERRUPTED if status in _EDGE_ERRORS else Disposition.WAIT
