"""The outbox in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.rows import class_row

from listener.adapters.postgres.arrays import Int8s
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.statements import query
from listener.domain.change import Change, Look, Snapshot, Stream


class PostgresOutbox:
    """Reads and settles `listener.change`; the schema needs no backend name."""

    def __init__(self, pool: Pool, backend: str) -> None:
        self._pool = pool
        self._xmin = query("read_xmin", backend)
        self._mark = query("mark_transactions", backend)
        self._look = query("look_at_changes", backend)
        self._settle = query("settle_changes", backend)

    async def look(
        self, stream: Stream, *, after: int, held: Sequence[int], limit: int, mark: bool = False
    ) -> Look:
        """Return up to `limit` changes after seq `after` without those in `held`, oldest first.

        The snapshot of the result has a mark if one is asked for; each costs a transaction id.
        """
        parameters = {"stream": stream, "after": after, "held": Int8s(held), "limit": limit}
        async with session(self._pool) as connection, connection.pipeline():
            # Two statements, so that the snapshot is taken before the look.
            snapshot = connection.cursor(row_factory=class_row(Snapshot))
            await snapshot.execute(self._mark if mark else self._xmin)
            changes = connection.cursor(row_factory=class_row(Change))
            await changes.execute(self._look, parameters)
            taken, found = await snapshot.fetchone(), await changes.fetchall()
        if taken is None:
            message = "the statement for the snapshot returned no row"
            raise AssertionError(message)
        return Look(tuple(found), taken, complete=len(found) < limit)

    async def settle(self, stream: Stream, entries: Sequence[tuple[int, int]]) -> None:
        """Remove entries, given as (seq, row id)."""
        async with session(self._pool) as connection:
            seqs = Int8s([seq for seq, _ in entries])
            await connection.execute(self._settle, {"stream": stream, "seqs": seqs})
