"""Faults, by who is to blame: a service, or something in a page of rows."""

from __future__ import annotations

from datetime import timedelta


class StoreUnavailableError(Exception):
    """The database cannot be reached or does not answer; no row is to blame."""


class LmlUnavailableError(Exception):
    """LML does not answer, or does not accept our key; no row is to blame.

    `retry_after` is what LML or its edge asked for, if it did.
    """

    def __init__(self, reason: str, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class LmlRefusedError(LmlUnavailableError):
    """LML rejects our key or lacks the route, until a person acts."""


class CallInterruptedError(LmlUnavailableError):
    """A call reached LML and ended without an answer: LML may be down, or fail at one row."""


SERVICE_FAULTS = (StoreUnavailableError, LmlUnavailableError)
ServiceFault = StoreUnavailableError | LmlUnavailableError


class PageRefusedError(Exception):
    """This page of rows was refused; a smaller page may go through."""


class TracksRefusedError(PageRefusedError):
    """LML could not answer this page with tracks; the same page without them may be answered."""


class StatementRefusedError(PageRefusedError):
    """The database refused a statement about these rows; others may still go through."""


class LaneLostError(Exception):
    """Another daemon follows the stream now."""


class RunGoesOnError(Exception):
    """Another run covers the same; the message says what to do."""


def first_of(error: BaseException) -> BaseException:
    """Return the first error that a group, or a group within it, holds; one alone is itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
