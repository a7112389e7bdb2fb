"""How the streams went, as far as it was written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

from listener.adapters.postgres.statements import query


@dataclass(frozen=True, slots=True)
class Step:
    """How a stream went from `at` on for one step: the worst of it, and the sums. Times: seconds.

    `coverage` is as in `Sample`, at the end of the step, None where it was not counted.
    """

    stream: str
    at: datetime
    backlog: int
    oldest: float | None
    settled: int
    typical: float | None
    worst: float | None
    silent: float
    coverage: Sequence[int] | None


def read_history(
    connection: psycopg.Connection[Any], backend: str, span: timedelta, step: timedelta
) -> tuple[Step, ...]:
    """Return the last `span` in steps, by stream and time; a step without samples is left out."""
    with connection.cursor(row_factory=class_row(Step)) as cursor:
        parameters = {"span": span, "step": step}
        return tuple(cursor.execute(query("read_samples", backend), parameters).fetchall())
