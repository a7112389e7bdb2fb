"""The backend's history of identities: whether former states can be kept there."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from listener.adapters.postgres.sessions import Connection, read
from listener.adapters.postgres.statements import query

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class HistoryTable:
    """What there is of `library_identity_history`, and what is in the way of writing to it.

    `numbered` says whether its rows have whole numbers. Of the columns that we write, some may be
    `missing` or `different` in type; `unknown` ones have to be filled and we do not know with what.
    `lacking` are rights.
    """

    present: bool
    readable: bool
    numbered: bool
    missing: list[str]
    different: list[str]
    unknown: list[str]
    lacking: list[str]

    @property
    def countable(self) -> bool:
        """Whether its sequence matters to us and can be held against its rows."""
        return self.readable and self.numbered and self.obstacle is None

    @property
    def raising(self) -> list[str]:
        """The statements that bring sequences up to their rows: ours, and its own if it counts."""
        return ["raise_sequences", *(["raise_history_sequence"] if self.countable else [])]

    @property
    def obstacle(self) -> str | None:
        """Why no former identities are kept there; None if they are."""
        if not self.present:
            return "table library_identity_history does not exist"
        for names, what in (
            (self.missing, "library_identity_history has no column"),
            (self.different, "library_identity_history has an unknown type for"),
            (self.unknown, "library_identity_history requires a value of unknown meaning for"),
            (self.lacking, "missing right on library_identity_history:"),
        ):
            if names:
                return f"{what} {', '.join(names)}"
        return None


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
            tell(self._table)


def tell(table: HistoryTable) -> None:
    """Log a warning if former identities are not kept."""
    if table.obstacle is not None:
        _log.warning(
            "former identities are not kept, but verdicts are written",
            reason=table.obstacle,
        )
