"""Clears out what nobody needs any more."""

from __future__ import annotations

from datetime import timedelta

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.refreshes import RECENT
from listener.adapters.postgres.statements import query

_WINDOW = 2500
_KEEP_RUNS = timedelta(days=90)
_KEEP_WARMTH = timedelta(days=90)


class PostgresHousekeeping:
    """Removes what is old or of deleted releases in short statements."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._clear_ledger = query("clear_ledger", backend)
        self._clear_runs = query("clear_runs", backend)
        self._clear_refreshes = query("clear_refreshes", backend)
        self._clear_warmth = query("clear_warmth", backend)

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
        return cleared
