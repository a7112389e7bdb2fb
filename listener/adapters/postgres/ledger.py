"""What concerns every row of the ledger."""

from __future__ import annotations

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.installation import raise_sequences
from listener.adapters.postgres.sessions import only_row
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
            return await raise_sequences(connection, self._backend)
