"""Faults that the engine decides on."""

from __future__ import annotations

from datetime import timedelta


class StoreUnavailableError(Exception):
    """The database cannot be reached or does not answer; the data is not to blame."""


class WriteRefusedError(Exception):
    """The database refused this page of verdicts; other rows may still be written.

    `passing` says that the same page may be taken later: somebody holds a lock on it now.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class LaneLostError(Exception):
    """Another daemon follows the stream now."""


class RunGoesOnError(Exception):
    """Another run covers the same; the message says what to do."""


class LmlUnavailableError(Exception):
    """LML as a whole does not answer or does not let us in; no row is to blame.

    `retry_after` is what LML or its edge asked for, if it did.
    """

    def __init__(self, reason: str, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class LmlRefusedError(LmlUnavailableError):
    """LML does not let us in, or does not know what we ask: it stays so until a person acts."""


class CallBrokenOffError(LmlUnavailableError):
    """A question got to LML and came to nothing there: LML fails as a whole, or at one row."""


class RowsBreakOffError(CallBrokenOffError):
    """LML answers others, and breaks off what is asked about these rows: one of them is to blame.

    What was to be asked beside them can be asked at once.
    """


class RefusedInARowError(LmlUnavailableError):
    """LML refused so many pages in a row that it may refuse all; or many neighbours are bad."""


class PageRefusedError(Exception):
    """LML refused this page of questions; a smaller page may be answered."""


class TracksRefusedError(PageRefusedError):
    """LML could not answer this page with tracks; the same page without them may be answered."""


def first_of(error: BaseException) -> BaseException:
    """Return the first error that a group, or a group within it, holds; one alone is itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
