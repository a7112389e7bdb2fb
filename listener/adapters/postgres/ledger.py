"""What concerns every row of the ledger."""

from __future__ import annotations

from listener.adapters.postgres.connection import Pool, only_row, session
from listener.adapters.postgres.history import history_table
from listener.adapters.postgres.statements import query


class PostgresLedger:
    """Has rows that failed asked again."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._note_release = query("note_release", backend)
        self._backend = backend

    async def note_release(self, release: str) -> int:
        """Note which release of LML is asked; returns how many rows are asked again for it."""
        async with session(self._pool) as connection:
            cursor = await connection.execute(self._note_release, {"release": release})
            (raised,) = await only_row(cursor)
        return int(raised)

    async def raise_sequences(self) -> list[str]:
        """Bring sequences up to the rows drawn from them; return those that were behind."""
        async with session(self._pool) as connection:
            history = await history_table(connection, self._backend)
            raised: list[str] = []
            for name in history.raising:
                cursor = await connection.execute(query(name, self._backend), {"raising": True})
                raised += [sequence for sequence, _ in await cursor.fetchall()]
        return raised
