"""The outbox in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from listener.adapters.postgres.arrays import Int8s
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.statements import query
from listener.domain.change import Change, Look, Snapshot, Stream


class PostgresOutbox:
    """Reads and settles `listener.change`."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._look = query("look_at_changes", backend)
        self._settle = query("settle_changes", backend)

    async def look(
        self, stream: Stream, *, after: int, held: Sequence[int], limit: int, mark: bool = False
    ) -> Look:
        parameters = {
            "stream": stream,
            "after": after,
            "held": Int8s(held),
            "limit": limit,
            "mark": mark,
        }
        async with session(self._pool) as connection:
            rows = await (await connection.execute(self._look, parameters)).fetchall()
        xmin, drawn = rows[0][:2]
        changes = tuple(Change(*row[2:]) for row in rows if row[2] is not None)
        return Look(changes, Snapshot(xmin, drawn), complete=len(changes) < limit)

    async def settle(self, stream: Stream, entries: Sequence[tuple[int, int]]) -> None:
        async with session(self._pool) as connection:
            seqs = Int8s([seq for seq, _ in entries])
            await connection.execute(self._settle, {"stream": stream, "seqs": seqs})
