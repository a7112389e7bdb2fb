"""The ledger, apart from single rows."""

from __future__ import annotations

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.installation import raise_sequences
from listener.adapters.postgres.sessions import only_row
from listener.adapters.postgres.statements import query


class PostgresLedger:
    """Looks at `listener.ledger`, and keeps it usable."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._note_release = query("note_release", backend)
        self._is_empty = query("ledger_is_empty", backend)
        self._backend = backend

    async def is_empty(self) -> bool:
        """Return whether no row of the library was ever asked about."""
        async with session(self._pool) as connection:
            (empty,) = await only_row(await connection.execute(self._is_empty))
        return bool(empty)

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
