"""Faults, by who is to blame: a service, or something in a batch of rows."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, TypeVar, overload

E = TypeVar("E", bound=BaseException)


class FixableError(Exception):
    """A person can fix the cause; the message says what is wrong and what to do."""


class StoreUnavailableError(FixableError):
    """The database cannot be reached or does not answer; no row is to blame.

    `event` is what the log says of it.
    """

    event: ClassVar[str] = "database unavailable"


class StoreRefusedError(StoreUnavailableError):
    """The database answers and refuses us: a missing right, column or index, or a limit."""

    event = "database refuses"


class InstallationError(FixableError):
    """The database is not as this version needs it; the message says why and what to do."""


class LmlUnavailableError(Exception):
    """LML does not answer, or rejects our key; no row is to blame.

    `retry_after` is the delay that LML or its edge asked for, if any; `cause` is what LML has done,
    as in "LML has answered 503".
    """

    def __init__(
        self,
        reason: str,
        retry_after: timedelta | None = None,
        cause: str = "given no usable answer",
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.cause = cause


class LmlRefusedError(LmlUnavailableError):
    """LML rejects our key or lacks the route; a person must act."""


class CallInterruptedError(LmlUnavailableError):
    """A call reached LML and ended without an answer: LML may be down, or a row may crash it."""


SERVICE_FAULTS = (StoreUnavailableError, LmlUnavailableError)
ServiceFault = StoreUnavailableError | LmlUnavailableError


class BatchRefusedError(Exception):
    """A service refused this batch of rows; a smaller batch may succeed."""


class TracksRefusedError(BatchRefusedError):
    """LML could not answer this batch with tracks; it may answer without them."""


class StatementRefusedError(BatchRefusedError):
    """The database refused a statement about these rows; statements about others may succeed."""


class LaneLostError(Exception):
    """Another daemon follows the stream now."""


class RunGoesOnError(Exception):
    """Another run already covers these rows; the message says what to do."""


@overload
def first_of(error: BaseExceptionGroup[E]) -> E: ...
@overload
def first_of(error: BaseException) -> BaseException: ...
def first_of(error: BaseException) -> BaseException:
    """Return the first leaf error of a group, or the error itself if it is not a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
