"""How the streams went, as far as it was written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from listener.adapters.postgres.sessions import Connection, read
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


async def read_history(
    connection: Connection, backend: str, span: timedelta, step: timedelta
) -> tuple[Step, ...]:
    """Return the last `span` in steps, by stream and time; a step without samples is left out."""
    parameters = {"span": span, "step": step}
    return tuple(await read(connection, Step, query("read_samples", backend), parameters))
