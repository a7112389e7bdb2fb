"""Former identities of a row of the library: lists them, and puts one back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from psycopg import errors

from listener.adapters.postgres.history import look_at_history
from listener.adapters.postgres.sessions import Connection, only_row, read, yield_locks
from listener.adapters.postgres.statements import query
from listener.domain.faults import InstallationError, StoreUnavailableError


@dataclass(frozen=True, slots=True)
class FormerIdentity:
    """An identity that stood until `superseded_at`, with all its columns.

    `superseded_reason`: verdict_changed, question_changed, withdrawn, restored (a person put a
    former one back), or whatever others write.
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
    """What became of putting an identity back; `MEANWHILE`: something else changed, try again."""

    DONE = "done"
    STOOD_ALREADY = "stood already"
    MEANWHILE = "meanwhile"


async def read_former(
    connection: Connection, backend: str, library_id: int
) -> tuple[FormerIdentity, ...] | None:
    """Return the former identities of a row, the latest first; None if none can be read at all."""
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
        message = f"there is no history to work with: {obstacle}; `listener doctor` says more"
        raise InstallationError(message)


async def restore(
    connection: Connection, backend: str, library_id: int, history_id: int
) -> Restored:
    """Put a former identity back as a person's work; what stands there goes to the history.

    The connection must be outside of a transaction. Raises `StoreUnavailableError` if another
    transaction keeps the identity locked.
    """
    parameters = {
        "library_id": library_id,
        "history_id": history_id,
        "notes": f"restored from history {history_id}",
    }
    try:
        async with connection.transaction():
            await connection.execute(*yield_locks(local=True))
            cursor = await connection.execute(query("restore_identity", backend), parameters)
            restored, same = await only_row(cursor)
    except errors.LockNotAvailable as error:
        message = "another transaction keeps the identity locked; nothing was changed, try again"
        raise StoreUnavailableError(message) from error
    if restored:
        return Restored.DONE
    return Restored.STOOD_ALREADY if same else Restored.MEANWHILE
