"""Deletes what is no longer needed, and keeps sequences and statistics usable."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import structlog
from psycopg import errors

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.installation import raise_sequences
from listener.adapters.postgres.rotation import RECENT
from listener.adapters.postgres.sessions import only_row, query
from listener.domain.change import Stream
from listener.domain.faults import StoreUnavailableError
from listener.domain.tally import Duty, Tally
from listener.domain.tracks import TrackCount

_log = structlog.stdlib.get_logger()

_WINDOW = 2500
# More changes than this wait only while LML does not answer, or after an import. Then superseded
# ones are worth removing, this many at a time.
_MANY_CHANGES = 10_000
_CHANGES = 5_000
_KEEP_RUNS = timedelta(days=90)
_KEEP_WARMTH = timedelta(days=90)
# A run that writes this many rows of track artists is worth new statistics.
_MUCH = 1000


class PostgresHousekeeping:
    """Deletes what is old or belongs to deleted releases, in short statements.

    A failure is logged as a warning and counted in `failures`; it stops nothing else, and the next
    round tries again. After a run that wrote a lot, this has PostgreSQL collect new statistics.
    """

    def __init__(self, pool: Pool, backend: str, failures: Counter[Duty]) -> None:
        self._pool = pool
        self._backend = backend
        self._failures = failures
        self._may_analyze = query("may_analyze_tracks", backend)
        self._analyze = query("analyze_tracks", backend)
        self._coalesce = query("coalesce_changes", backend)
        self._clear_ledger = query("clear_ledger", backend)
        self._old: Sequence[tuple[Duty, bytes, dict[str, timedelta]]] = (
            (Duty.RUNS, query("clear_runs", backend), {"keep": _KEEP_RUNS}),
            (Duty.REFRESHES, query("clear_refreshes", backend), {"recent": RECENT}),
            (Duty.WARMTH, query("clear_warmth", backend), {"keep": _KEEP_WARMTH}),
            (Duty.ROTATION_FAILURES, query("clear_rotation_failures", backend), {}),
        )

    async def raise_sequences(self) -> list[str]:
        """Bring sequences up to the rows drawn from them; return those that were behind.

        Raises `StoreUnavailableError`: without it nothing can be written.
        """
        async with session(self._pool) as connection:
            return await raise_sequences(connection, self._backend)

    async def coalesce(self) -> int:
        """Leave one change per row in an outbox that is not emptied; return how many it removed."""
        went = 0
        with self._tolerated(Duty.OUTBOX):
            for stream in Stream:
                parameters = {"stream": stream, "more_than": _MANY_CHANGES, "limit": _CHANGES}
                removed = _CHANGES
                while removed == _CHANGES:
                    async with session(self._pool) as connection:
                        cursor = await connection.execute(self._coalesce, parameters, prepare=False)
                        removed = cursor.rowcount
                    went += removed
        return went

    async def clear(self) -> int:
        """Return how many ledger rows were removed."""
        cleared = 0
        with self._tolerated(Duty.LEDGER):
            async for count in self._cleared_windows():
                cleared += count
        for duty, statement, parameters in self._old:
            with self._tolerated(duty):
                async with session(self._pool) as connection:
                    await connection.execute(statement, parameters)
        return cleared

    async def _cleared_windows(self) -> AsyncIterator[int]:
        after: int | None = 0
        while after is not None:
            parameters = {"after": after, "window": _WINDOW}
            async with session(self._pool) as connection:
                cursor = await connection.execute(self._clear_ledger, parameters, prepare=False)
                after, count = await only_row(cursor)
            yield count

    @contextmanager
    def _tolerated(self, duty: Duty) -> Iterator[None]:
        try:
            yield
        except StoreUnavailableError as fault:
            self._failures[duty] += 1
            _log.warning("housekeeping failed", duty=str(duty), reason=str(fault))

    async def analyze_tracks(self, tally: Tally) -> bool:
        """Collect new statistics on the track artists, if a run wrote many and we may.

        Returns whether that was done.
        """
        if tally.tracks[TrackCount.ROWS_WRITTEN] < _MUCH:
            return False
        async with session(self._pool) as connection:
            cursor = await connection.execute(self._may_analyze, {"backend": self._backend})
            if await cursor.fetchone() != (True,):
                return False
            try:
                await connection.execute(self._analyze)
            except (errors.LockNotAvailable, errors.QueryCanceled) as error:
                # Autovacuum is probably doing it already; nothing depends on us.
                _log.info("no statistics of track artists taken", reason=type(error).__name__)
                return False
        return True
