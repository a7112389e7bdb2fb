"""Records runs and their scheduled slots, and keeps two runs from doing the same work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
import structlog
from psycopg.types.json import Jsonb

from listener.adapters.postgres.connection import Database, Pool, open_session, session
from listener.adapters.postgres.errors import translated
from listener.adapters.postgres.locks import SEARCHED, lock_of_share
from listener.adapters.postgres.sessions import Connection, only_row, query
from listener.domain.due import RunKind, Scope
from listener.domain.faults import RunGoesOnError, first_of
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally

_log = structlog.stdlib.get_logger()

_TRY_EVERY = timedelta(seconds=0.5)


class PostgresRuns:
    """Records runs in `listener.run`, each with a separate session that holds its locks.

    The locks are advisory: they never wait for row locks, nor do row locks wait for them, and a
    cut connection frees them at once. A run over one share of the library excludes whole runs and
    runs over the same share.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def enter(
        self,
        kind: RunKind,
        scope: Scope,
        cause: str,
        tally: Tally | RotationTally,
        *,
        wait: bool = True,
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Hold the locks for the length of the block, and record at its end how the run ended."""
        with translated():
            connection = await open_session(self._database)
        run = _RecordedRun(connection, self._database, tally)
        try:
            with translated():
                await run.lock(kind, scope, wait=wait)
                await run.begin(kind, cause)
            try:
                with structlog.contextvars.bound_contextvars(run_id=run.run_id):
                    yield run.note
            except asyncio.CancelledError:
                await run.end("stopped", None)
                raise
            except Exception as error:
                await run.end("failed", str(first_of(error)))
                raise
            await run.end("done", None)
        finally:
            await connection.close()


class _RecordedRun:
    def __init__(
        self,
        connection: Connection,
        database: Database,
        tally: Tally | RotationTally,
    ) -> None:
        self._connection = connection
        self._database = database
        self._tally = tally
        self.run_id = 0

    async def lock(self, kind: RunKind, scope: Scope, *, wait: bool) -> None:
        for search in sorted(kind.searches):
            in_shares = scope.partitions > 1
            await self._acquire(SEARCHED[search], shared=in_shares, wait=wait)
            if in_shares:
                await self._acquire(lock_of_share(search, scope), shared=False, wait=wait)

    async def _acquire(self, lock: Mapping[str, int], *, shared: bool, wait: bool) -> None:
        statement = query("lock_search", self._database.backend)
        parameters = {**lock, "shared": shared}
        warned = False
        while True:
            cursor = await self._connection.execute(statement, parameters)
            if await cursor.fetchone() == (True,):
                return
            if not wait:
                raise RunGoesOnError("another run over the same rows is in progress")
            if not warned:
                _log.warning("waiting for another run over the same rows to end")
                warned = True
            await asyncio.sleep(_TRY_EVERY.total_seconds())

    async def begin(self, kind: RunKind, cause: str) -> None:
        parameters = {"kind": kind.value, "cause": cause, "holder": self._database.holder}
        cursor = await self._connection.execute(
            query("begin_run", self._database.backend), parameters
        )
        (self.run_id,) = await only_row(cursor)

    async def note(self) -> None:
        """Record how far the run is; raises `StoreUnavailableError` once its lock is lost."""
        with translated():
            await self._note(None, None)

    async def end(self, outcome: str, reason: str | None) -> None:
        """Record how the run ended, if the database can still be reached."""
        try:
            await asyncio.shield(self._note(outcome, reason))
        except (psycopg.Error, OSError):
            _log.warning("the end of a run could not be written down", outcome=outcome)

    async def _note(self, outcome: str | None, reason: str | None) -> None:
        parameters = {
            "run_id": self.run_id,
            "tally": Jsonb(_noted(self._tally)),
            "outcome": outcome,
            "reason": reason,
        }
        await self._connection.execute(query("note_run", self._database.backend), parameters)


def _noted(tally: Tally | RotationTally) -> dict[str, Any]:
    return tally.fields() if isinstance(tally, RotationTally) else tally.report()


async def read_pace(pool: Pool, backend: str) -> timedelta | None:
    """Return the average duration of a call in the latest runs, None if none made a call."""
    async with session(pool) as connection:
        (pace,) = await only_row(await connection.execute(query("read_pace", backend)))
    return None if pace is None else timedelta(milliseconds=float(pace))


class PostgresSlots:
    """Hands out the slots of `listener.slot`, by the database's clock."""

    def __init__(self, pool: Pool, backend: str, holder: str) -> None:
        self._pool = pool
        self._holder = holder
        self._take = query("take_slot", backend)
        self._finish = query("finish_slot", backend)

    async def take(
        self,
        job: str,
        every: timedelta,
        *,
        begins: timedelta = timedelta(),
        again: bool = False,
    ) -> datetime | None:
        parameters = {
            "job": job,
            "every": every,
            "begins": begins,
            "holder": self._holder,
            "again": again,
        }
        async with session(self._pool) as connection:
            row = await (await connection.execute(self._take, parameters)).fetchone()
        return row[0] if row else None

    async def finish(self, job: str, slot: datetime) -> None:
        parameters = {"job": job, "slot": slot, "holder": self._holder}
        async with session(self._pool) as connection:
            await connection.execute(self._finish, parameters)
