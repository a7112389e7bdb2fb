"""Whether a pooler stands in between that hands a session's backend to other clients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import psycopg

# A pooler that has no other backend to hand out makes us wait for the one that is kept.
_BACKEND_WITHIN = timedelta(seconds=1)
# Once the pooler may give the other session another backend that is free, and ours back to us.
_LOOKS = 5


class PoolerError(psycopg.NotSupportedError):
    """A pooler hands our backend to other clients; the message says what to do."""


def refuse_pooler(connection: psycopg.Connection[Any]) -> None:
    """Raise `PoolerError` if what we set or lock in a session would reach other clients.

    To be called before anything is: it leaves nothing there itself.
    """
    # A pooler answers for the server at first, with a number of its own.
    if _backend(connection) != connection.info.backend_pid and not keeps_backend(connection):
        message = (
            "a pooler in between hands our backend to other clients after each transaction, with "
            "what we set and lock in it; point DATABASE_URL at PostgreSQL itself, or at a pooler "
            "in session mode"
        )
        raise PoolerError(message)


def keeps_backend(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a session stays with one backend while another session is at work."""
    with (
        psycopg.connect(
            connection.info.dsn,
            password=connection.info.password,
            autocommit=True,
            prepare_threshold=None,
        ) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        return all(_kept_from(other, connection, thread) for _ in range(_LOOKS))


def _kept_from(
    other: psycopg.Connection[Any], connection: psycopg.Connection[Any], thread: ThreadPoolExecutor
) -> bool:
    first = _backend(connection)
    # Keeps the backend that a pooler would have handed to us again.
    with other.transaction():
        if _backend(other) == first:
            return False
        again = thread.submit(_backend, connection)
        in_time = bool(wait((again,), timeout=_BACKEND_WITHIN.total_seconds()).done)
    return in_time and again.result() == first


def _backend(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0
