"""The backend's rotation rows."""

from __future__ import annotations

from collections.abc import Sequence

from listener.adapters.postgres.arrays import Int4s
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.statements import query


class PostgresRotation:
    """Reads what is being played from the backend's `rotation`."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._read = query("read_rotation_identities", backend)

    async def identities(self, row_ids: Sequence[int]) -> dict[int, int]:
        """Return LML's identity id of each of these rows that is active and has one."""
        async with session(self._pool) as connection:
            cursor = await connection.execute(self._read, {"row_ids": Int4s(row_ids)})
            return dict(await cursor.fetchall())
