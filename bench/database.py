"""What benches do in the database: forget and tidy, wait for facts, read what the server kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from bench.process import BACKEND

Connection = psycopg.Connection[tuple[object, ...]]

LIBRARY = sql.Identifier(BACKEND, "library")
IDENTITY = sql.Identifier(BACKEND, "library_identity")
SOURCE = sql.Identifier(BACKEND, "library_identity_source")

SETTLED: LiteralString = "NOT EXISTS (SELECT FROM listener.change)"


def read_number(
    db: Connection, statement: LiteralString | sql.Composed, parameters: Sequence[object] = ()
) -> float:
    """Return the only value that a statement yields."""
    row = db.execute(statement, parameters).fetchone()
    assert row is not None
    return float(str(row[0]))


def forget(db: Connection) -> None:
    """Forget all answers and changes."""
    db.execute(
        sql.SQL("TRUNCATE listener.change, listener.ledger, {}, {}").format(SOURCE, IDENTITY)
    )


def tidy(db: Connection) -> None:
    """Leave the server nothing to do in the background."""
    db.execute("VACUUM ANALYZE")
    db.execute("CHECKPOINT")


def wait_until(
    db: Connection, fact: LiteralString, parameters: Sequence[object] = (), *, seconds: float = 900
) -> float:
    """Wait until a condition in SQL holds; return how many seconds that took."""
    ticks, began = threading.Event(), time.monotonic()
    query = sql.SQL("SELECT {}").format(sql.SQL(fact))
    while db.execute(query, parameters).fetchone() != (True,):
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"it did not come true in {seconds:.0f} s: {fact}")
        ticks.wait(0.01)
    return time.monotonic() - began


def searches(db: Connection) -> int:
    """Return how many searches for due rows have ended; a daemon begins with one."""
    return int(read_number(db, "SELECT count(ended_at) FROM listener.run"))


def wait_until_searched(db: Connection, before: int) -> None:
    """Wait until a search ended since there were `before`."""
    wait_until(db, "(SELECT count(ended_at) FROM listener.run) > %s", (before,))


def identified(db: Connection, after: int) -> list[float]:
    """Return the milliseconds from commit to identity of each release with an id above `after`.

    Kept by the server at each commit: nothing has to watch, and slow down what it watches.
    """
    rows = db.execute(
        sql.SQL(
            "SELECT extract(epoch FROM pg_xact_commit_timestamp(i.xmin)"
            " - pg_xact_commit_timestamp(l.xmin))::float8 * 1000 FROM {} AS l"
            " JOIN {} AS i ON i.library_id = l.id WHERE l.id > %s ORDER BY l.id"
        ).format(LIBRARY, IDENTITY),
        (after,),
    ).fetchall()
    return [float(str(row[0])) for row in rows]
