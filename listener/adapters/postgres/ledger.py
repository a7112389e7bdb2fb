"""What concerns every row of the ledger."""

from __future__ import annotations

from listener.adapters.postgres.connection import Pool, only_row, session
from listener.adapters.postgres.statements import query


class PostgresLedger:
    """Has rows that failed asked again."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._note_release = query("note_release", backend)

    async def note_release(self, release: str) -> int:
        """Note which release of LML is asked; returns how many rows are asked again for it."""
        async with session(self._pool) as connection:
            cursor = await connection.execute(self._note_release, {"release": release})
            (raised,) = await only_row(cursor)
        return int(raised)
