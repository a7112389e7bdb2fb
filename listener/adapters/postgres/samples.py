"""Readings of the streams now, and samples of their past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.sessions import Connection, query, read
from listener.adapters.postgres.status import coverage_of
from listener.domain.change import Stream
from listener.domain.pulse import COVERAGE, Reading, Sample, StreamReading

# Samples do not show what is due.
_EVERYTHING = {"include_null_canonical": True}


@dataclass(frozen=True, slots=True)
class Step:
    """A stream during one step from `at` on: worst values, and sums. Times are in seconds.

    `coverage` is as in `Sample`, at the end of the step, None if it was not counted.
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


async def read_streams(pool: Pool, backend: str, holder: str, window: timedelta) -> Reading:
    """Read the state of the streams; `holder` is our own name in the lanes.

    `window` is the length of the Discogs budget's window.
    """
    parameters = {"holder": holder, "window": window}
    async with session(pool) as connection:
        cursor = await connection.execute(query("read_backlog", backend), parameters)
        rows = await cursor.fetchall()
    waiting = tuple(StreamReading(Stream(stream), *rest) for stream, *rest, _, _ in rows)
    parked, spent = rows[0][-2:] if rows else (0, 0)
    return Reading(waiting, parked, timedelta(), discogs_calls=spent)


class PostgresSamples:
    """Keeps the samples in `listener.sample`."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._write = query("write_sample", backend)
        self._count = query("count_coverage", backend)
        self._fold = query("fold_samples", backend)

    async def write(self, sample: Sample) -> None:
        parameters = {
            "stream": sample.stream,
            "seconds": sample.lasted.total_seconds(),
            "backlog": sample.backlog,
            "oldest": _seconds(sample.oldest),
            "claimed": sample.claimed,
            "settled": sample.settled,
            "typical": _seconds(sample.typical),
            "worst": _seconds(sample.worst),
            "silent": sample.silent.total_seconds(),
            "woken": sample.woken,
            "coverage": None if sample.coverage is None else list(sample.coverage),
        }
        async with session(self._pool) as connection:
            await connection.execute(self._write, parameters)

    async def count_coverage(self) -> Sequence[int]:
        async with session(self._pool) as connection, connection.transaction():
            # This counts the whole library: no index helps.
            await connection.execute("SET LOCAL enable_seqscan = on")
            cursor = await connection.execute(self._count, _EVERYTHING, prepare=False)
            counted = await cursor.fetchall()
        known = coverage_of(counted)
        return tuple(getattr(known, name) for name in COVERAGE)

    async def fold(self, stream: Stream) -> None:
        async with session(self._pool) as connection:
            await connection.execute(self._fold, {"stream": stream})


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


async def read_steps(
    connection: Connection, backend: str, span: timedelta, step: timedelta
) -> tuple[Step, ...]:
    """Return the last `span` in steps, by stream and time; a step without samples is left out."""
    parameters = {"span": span, "step": step}
    return tuple(await read(connection, Step, query("read_samples", backend), parameters))
