"""Detects a pooler that hands a session's backend to other clients."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from listener.adapters.postgres.sessions import Connection, only_row
from listener.domain.faults import InstallationError, first_of

# A pooler that has no other backend to hand out makes us wait for the one that is kept.
_BACKEND_WITHIN = timedelta(seconds=1)
# Once the pooler may give the other session another backend that is free, and ours back to us.
_LOOKS = 5


async def refuse_pooler(connection: Connection) -> None:
    """Raise `InstallationError` if what we set or lock in a session would reach other clients.

    To be called before anything is: it leaves nothing there itself.
    """
    # A pooler answers for the server at first, with a number of its own.
    if await _backend(connection) == connection.info.backend_pid:
        return
    if not await keeps_backend(connection):
        message = (
            "a pooler in between hands our backend to other clients after each transaction, with "
            "what we set and lock in it; point DATABASE_URL at PostgreSQL itself, or at a pooler "
            "in session mode"
        )
        raise InstallationError(message)


async def keeps_backend(connection: Connection) -> bool:
    """Return whether a session stays with one backend while another session is at work."""
    async with await Connection.connect(
        connection.info.dsn,
        password=connection.info.password,
        autocommit=True,
        prepare_threshold=None,
    ) as other:
        for _ in range(_LOOKS):
            if not await _kept_from(other, connection):
                return False
    return True


async def _kept_from(other: Connection, connection: Connection) -> bool:
    first = await _backend(connection)
    try:
        # The transaction keeps the backend that a pooler would have handed to us again.
        async with asyncio.TaskGroup() as tasks, other.transaction():
            if await _backend(other) == first:
                return False
            again = tasks.create_task(_backend(connection))
            in_time, _ = await asyncio.wait((again,), timeout=_BACKEND_WITHIN.total_seconds())
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return bool(in_time) and again.result() == first


async def _backend(connection: Connection) -> int:
    (pid,) = await only_row(await connection.execute("SELECT pg_backend_pid()"))
    return int(pid)
