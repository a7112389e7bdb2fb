"""Translates errors of psycopg into the faults of the domain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout

from listener.domain.faults import StatementRefusedError, StoreRefusedError, StoreUnavailableError

CONNECT = "start PostgreSQL, or correct DATABASE_URL"

_LOGIN = "correct DATABASE_URL, or the limit of connections, or wait, as the server says"
# psycopg reports no SQLSTATE for a refused login, and the message may be in any language. Only
# messages from the server begin with a severity and two blanks.
_SAID_AT_LOGIN = re.compile(r"(^|failed: )[^\s:][^:\n]*:  ", re.MULTILINE)
Refused = StoreUnavailableError | StatementRefusedError

# SQLSTATE classes that concern the database itself: connection, a read-only server, resources,
# operator intervention, the system. All others concern the statement.
_SERVICE_CLASSES = frozenset(("08", "25", "53", "57", "58"))
# The statement fails whatever the rows: a missing right, column or index; an outdated plan; a
# table that has become something else, or lacks the key that its publication needs.
_STATEMENT_CLASSES, _NOT_READY = frozenset(("0A", "26", "42")), "55000"
# A session's plan or catalogue is outdated; internal errors.
_SESSION_CLASSES = _STATEMENT_CLASSES | {"XX"}
# Columns that a verdict may leave empty. A NOT NULL on any other one concerns every row.
_OPTIONAL = frozenset(
    (
        *("wikidata_qid", "spotify_id", "apple_music_id"),
        *("track_artist_id", "track_artist_link_confidence", "track_position"),
    )
)
_DATA_CLASS, _TOO_LONG = "22", "22001"


@contextmanager
def translated(refused: type[Refused] = StoreRefusedError) -> Iterator[None]:
    """Translate what psycopg raises into a fault.

    That is `StoreUnavailableError` if the database cannot be used at all, `StoreRefusedError` if it
    refuses the statement whatever the rows, otherwise `refused`.
    """
    try:
        yield
    except (psycopg.Error, PoolTimeout, TimeoutError) as error:
        if _is_about_the_service(error):
            raise _unavailable(error) from error
        kind = StoreRefusedError if _is_about_the_statement(error) else refused
        raise kind(reason_of(error)) from error


def _unavailable(error: Exception) -> StoreUnavailableError:
    """Return the fault of a database that cannot be used, or refuses our login."""
    reason = reason_of(error)
    if _is_refused_login(error):
        return StoreRefusedError(f"{reason}; {_LOGIN}")
    # Errors from the server have a code, except those before the session begins.
    return StoreUnavailableError(reason if _code_of(error) else f"{reason}; {CONNECT}")


def _is_refused_login(error: Exception) -> bool:
    if not isinstance(error, psycopg.OperationalError):
        return False
    if error.sqlstate is None:
        return _SAID_AT_LOGIN.search(str(error)) is not None
    return isinstance(error, errors.TooManyConnections)


def _is_about_the_service(error: Exception) -> bool:
    code = _code_of(error)
    if code is None:
        # Not from the server: a connection was lost, or none was available in time.
        return not isinstance(error, psycopg.ProgrammingError | psycopg.DataError)
    # A trigger of the backend may refuse a row with any code.
    return (
        code[:2] in _SERVICE_CLASSES
        and not isinstance(error, errors.QueryCanceled)
        and not _is_raised_by_a_rule(error)
    )


def _is_about_the_statement(error: Exception) -> bool:
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return False
    if error.diag.context is not None:
        # Inside a function, perhaps a trigger of the backend, which sees the row.
        return False
    if isinstance(error, errors.NotNullViolation):
        return error.diag.column_name not in _OPTIONAL
    return error.sqlstate[:2] in _STATEMENT_CLASSES or error.sqlstate == _NOT_READY


def _code_of(error: BaseException | None) -> str | None:
    return error.sqlstate if isinstance(error, psycopg.Error) else None


def _is_raised_by_a_rule(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and error.diag.source_function == "exec_stmt_raise"


def spoils_others(error: BaseException | None) -> bool:
    """Return whether other sessions will fail the same way until they are replaced."""
    code = _code_of(error)
    return code is not None and code[:2] in _SESSION_CLASSES


def _quotes_values(code: str | None) -> bool:
    """Return whether the primary message of a SQLSTATE may quote the contents of a row.

    Data exceptions do, except for a text that is too long; all others name only tables, columns,
    functions and rights.
    """
    return code is not None and code[:2] == _DATA_CLASS and code != _TOO_LONG


def reason_of(error: Exception) -> str:
    """Return what went wrong without the contents of any row."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    code = _code_of(error)
    if _is_raised_by_a_rule(error):
        return f"a rule of the database's own ({code})"
    if _quotes_values(code):
        return f"{type(error).__name__} ({code})"
    # The primary message only: the detail of a constraint violation quotes the row, and so may
    # the message of a trigger of the backend.
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return primary or next(iter(str(error).splitlines()), type(error).__name__)
