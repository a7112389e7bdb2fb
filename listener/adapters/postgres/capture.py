"""Whether the triggers that capture changes are at work, and verdicts can refer to their rows."""

from __future__ import annotations

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.installation import broken_tables
from listener.adapters.postgres.statements import query
from listener.domain.change import Stream


class PostgresCapture:
    """Looks at the triggers on the backend's tables."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._backend = backend
        self._list = query("list_triggers", backend)
        self._list_misdirected = query("list_misdirected", backend)

    async def look(self) -> frozenset[Stream]:
        """Return the streams of which a trigger is gone or disabled."""
        async with session(self._pool) as connection:
            cursor = await connection.execute(self._list, {"backend": self._backend})
            triggers = await cursor.fetchall()
        return frozenset(map(Stream, broken_tables(triggers)))

    async def misdirected(self) -> dict[str, str]:
        """Return foreign keys that refer to a table that was replaced, with what repairs each."""
        async with session(self._pool) as connection:
            cursor = await connection.execute(self._list_misdirected, {"backend": self._backend})
            return dict(await cursor.fetchall())
