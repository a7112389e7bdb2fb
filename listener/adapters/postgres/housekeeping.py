"""Clears out what nobody needs any more."""

from __future__ import annotations

from datetime import timedelta

import structlog
from psycopg import errors

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.refreshes import RECENT
from listener.adapters.postgres.statements import query
from listener.domain.tally import Tally
from listener.domain.tracks import TrackCount

_log = structlog.stdlib.get_logger()

_WINDOW = 2500
_KEEP_RUNS = timedelta(days=90)
_KEEP_WARMTH = timedelta(days=90)
# So many rows of track artists written in one run are worth new statistics.
_MUCH = 1000


class PostgresHousekeeping:
    """Removes what is old or of deleted releases, in short statements.

    After a run that wrote much it has PostgreSQL look at what was written.
    """

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._backend = backend
        self._may_analyze = query("may_analyze_tracks", backend)
        self._analyze = query("analyze_tracks", backend)
        self._clear_ledger = query("clear_ledger", backend)
        self._clear_runs = query("clear_runs", backend)
        self._clear_refreshes = query("clear_refreshes", backend)
        self._clear_warmth = query("clear_warmth", backend)
        self._clear_rotation = query("clear_rotation_failures", backend)

    async def clear(self) -> int:
        """Return how many ledger rows were removed."""
        cleared, after = 0, 0
        while True:
            async with session(self._pool) as connection:
                parameters = {"after": after, "window": _WINDOW}
                row = await (
                    await connection.execute(self._clear_ledger, parameters, prepare=False)
                ).fetchone()
            if row is None or row[0] is None:
                break
            after, cleared = row[0], cleared + row[1]
        async with session(self._pool) as connection:
            await connection.execute(self._clear_runs, {"keep": _KEEP_RUNS})
            await connection.execute(self._clear_refreshes, {"recent": RECENT})
            await connection.execute(self._clear_warmth, {"keep": _KEEP_WARMTH})
            await connection.execute(self._clear_rotation)
        return cleared

    async def analyze_tracks(self, tally: Tally) -> bool:
        """Take new statistics of the track artists, if a run wrote many and we may.

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
                # Most likely autovacuum is at it; nothing depends on us.
                _log.info("no statistics of track artists taken", reason=type(error).__name__)
                return False
        return True
