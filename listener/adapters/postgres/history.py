"""The backend's history of identities: whether it can be kept, what it holds, and restoring it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import structlog
from psycopg import errors

from listener.adapters.postgres.sessions import Connection, query, read, yield_locks
from listener.domain.database import HistoryTable
from listener.domain.faults import InstallationError, StoreUnavailableError

_log = structlog.stdlib.get_logger()


async def look_at_history(connection: Connection, backend: str) -> HistoryTable:
    """Examine whether former identities can be kept."""
    statement = query("look_at_history", backend)
    return (await read(connection, HistoryTable, statement, {"backend": backend}))[0]


class History:
    """Whether to keep former identities: checked before the first write, and after a failure."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._table: HistoryTable | None = None
        self._suspected = True

    def suspect(self) -> None:
        """Have it checked again: a statement was refused, perhaps because the history changed."""
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


@dataclass(frozen=True, slots=True)
class FormerIdentity:
    """An identity that was current until `superseded_at`, with all its columns.

    `superseded_reason`: verdict_changed, question_changed, withdrawn, restored (a person restored a
    former one), or whatever other programs write.
    """

    history_id: int
    superseded_at: datetime
    superseded_reason: str
    method: str
    confidence: float
    last_verified_at: datetime
    wikidata_qid: str | None
    spotify_id: str | None
    apple_music_id: str | None
    discogs_master_id: int | None
    discogs_release_id: int | None
    musicbrainz_release_group_mbid: str | None
    musicbrainz_release_mbid: str | None
    musicbrainz_recording_mbid: str | None
    agreement_sources: str | None
    notes: str | None


class Restored(Enum):
    """The result of restoring an identity; `MEANWHILE`: something else changed, try again."""

    DONE = "done"
    STOOD_ALREADY = "stood already"
    MEANWHILE = "meanwhile"


async def read_former(
    connection: Connection, backend: str, library_id: int
) -> tuple[FormerIdentity, ...] | None:
    """Return the former identities of a row, the latest first; None if they cannot be read."""
    table = await look_at_history(connection, backend)
    if not table.readable or table.missing:
        return None
    statement = query("read_former_identities", backend)
    return tuple(await read(connection, FormerIdentity, statement, {"library_id": library_id}))


async def require_history(connection: Connection, backend: str) -> None:
    """Raise `InstallationError` unless former identities can be read and written."""
    table = await look_at_history(connection, backend)
    obstacle = table.obstacle
    if obstacle is None and not table.readable:
        obstacle = "missing right on library_identity_history: SELECT on the table"
    if obstacle is not None:
        message = f"former identities are not available: {obstacle}; run `listener doctor`"
        raise InstallationError(message)


async def restore(
    connection: Connection, backend: str, library_id: int, history_id: int
) -> Restored:
    """Restore a former identity as a person's work; the current one moves to the history.

    The connection must be outside of a transaction. Raises `StoreUnavailableError` if another
    transaction keeps the identity locked.
    """
    parameters: dict[str, object] = {
        "library_id": library_id,
        "history_id": history_id,
        "notes": f"restored from history {history_id}",
    }
    try:
        async with connection.transaction():
            await connection.execute(*yield_locks(local=True))
            cursor = await connection.execute(query("lock_identity", backend), parameters)
            locked = await cursor.fetchone()
            if locked == (True,):
                return Restored.STOOD_ALREADY
            parameters["stood"] = locked is not None
            cursor = await connection.execute(query("restore_identity", backend), parameters)
            return Restored.DONE if await cursor.fetchone() else Restored.MEANWHILE
    except errors.LockNotAvailable as error:
        message = "another transaction keeps the identity locked; nothing was changed, try again"
        raise StoreUnavailableError(message) from error
