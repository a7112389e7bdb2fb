"""The backend's history of identities: whether former states can be kept there."""

from __future__ import annotations

import structlog

from listener.adapters.postgres.sessions import Connection, read
from listener.adapters.postgres.statements import query
from listener.domain.database import HistoryTable

_log = structlog.stdlib.get_logger()


async def look_at_history(connection: Connection, backend: str) -> HistoryTable:
    """Look whether former identities can be kept."""
    statement = query("look_at_history", backend)
    return (await read(connection, HistoryTable, statement, {"backend": backend}))[0]


class History:
    """Whether to keep former identities: looked at before the first write, and after a failure."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._table: HistoryTable | None = None
        self._suspected = True

    def suspect(self) -> None:
        """Have it looked at again: a statement was refused for what may have changed there."""
        self._suspected = True

    async def kept(self, connection: Connection) -> bool:
        """Return whether former identities can be kept."""
        if self._suspected or self._table is None:
            await self._look(connection)
        return self._table is not None and self._table.obstacle is None

    async def _look(self, connection: Connection) -> None:
        before = self._table
        self._table = await look_at_history(connection, self._backend)
        self._suspected = False
        # `check_installation` logs it at the start.
        if before is not None and before.obstacle != self._table.obstacle:
            warn_of(self._table)


def warn_of(table: HistoryTable) -> None:
    """Log a warning if former identities are not kept."""
    if table.obstacle is not None:
        _log.warning(
            "former identities are not kept, but verdicts are written",
            reason=table.obstacle,
        )
