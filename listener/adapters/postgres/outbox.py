"""The outbox, and its lanes: one daemon follows each stream, the others stand by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from listener.adapters.postgres.arrays import Int8s
from listener.adapters.postgres.connection import Database, Pool, open_session, session
from listener.adapters.postgres.errors import translated
from listener.adapters.postgres.sessions import Connection, query
from listener.adapters.postgres.wakeups import Wakeups
from listener.domain.change import Change, Look, Snapshot, Stream
from listener.domain.faults import LaneLostError, StoreUnavailableError
from listener.domain.pulse import LaneReport

_log = structlog.stdlib.get_logger()


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


@dataclass(frozen=True, slots=True)
class LaneTimes:
    """How often a holder shows that it is alive, and when others take over.

    `beat` is the interval, and how long the holder waits for an answer. A lane whose holder has not
    beaten for `patience` is taken over; no clocks of two machines are compared.
    """

    beat: timedelta = timedelta(seconds=3)
    patience: timedelta = timedelta(seconds=12)
    look: timedelta = timedelta(seconds=1)


class PostgresLanes:
    """Lanes as rows of `listener.lane`, each held by a session that listens on its channel.

    `report` returns how we are doing with a stream, which the lane records for others to see.
    """

    def __init__(
        self,
        database: Database,
        times: LaneTimes,
        report: Callable[[Stream], LaneReport] = lambda _stream: LaneReport(),
    ) -> None:
        self._report = report
        self._database = database
        self._times = times

    @asynccontextmanager
    async def hold(self, stream: Stream, *, wait: bool = True) -> AsyncIterator[Wakeups]:
        """Raise `LaneLostError`, without `wait`, if another daemon has the lane."""
        with translated():
            connection = await open_session(self._database)
        try:
            with translated():
                await self._take(connection, stream, wait=wait)
        except BaseException:
            await connection.close()
            raise
        _log.info("following", stream=str(stream), holder=self._database.holder)
        wakeups = Wakeups(
            self._database, stream, self._times.beat, connection, lambda: self._report(stream)
        )
        try:
            yield wakeups
        finally:
            await wakeups.release()

    async def _take(self, connection: Connection, stream: Stream, *, wait: bool) -> None:
        loop = asyncio.get_running_loop()
        seen: tuple[str | None, int] | None = None
        unchanged_since = loop.time()
        while True:
            holder, pid, beat, gone = await self._read(connection, stream)
            if (holder, beat) != seen:
                if seen is None and holder not in {None, self._database.holder} and not gone:
                    _log.info("standing by", stream=str(stream), holder=holder)
                seen, unchanged_since = (holder, beat), loop.time()
            silent = loop.time() - unchanged_since >= self._times.patience.total_seconds()
            # Our own former session, of whose end the server may not know yet.
            ours = holder == self._database.holder
            if holder is None or gone or silent or ours:
                if await self._replace(connection, stream, holder, pid, beat):
                    return
            elif not wait:
                raise LaneLostError(f"{holder} follows {stream}")
            else:
                await asyncio.sleep(self._times.look.total_seconds())

    async def _read(
        self, connection: Connection, stream: Stream
    ) -> tuple[str | None, int | None, int, bool]:
        cursor = await connection.execute(
            query("read_lane", self._database.backend), {"stream": stream}
        )
        row = await cursor.fetchone()
        if row is None:
            message = f"listener.lane has no row for {stream}; run `listener migrate`"
            raise StoreUnavailableError(message)
        return row[0], row[1], row[2], row[3]

    async def _replace(
        self,
        connection: Connection,
        stream: Stream,
        former: str | None,
        pid: int | None,
        beat: int,
    ) -> bool:
        backend, holder = self._database.backend, self._database.holder
        cursor = await connection.execute(
            query("take_lane", backend),
            {"stream": stream, "holder": holder, "former": former, "beat": beat},
        )
        if await cursor.fetchone() is None:
            return False
        if former is None:
            return True
        ours = former == holder
        if not ours:
            _log.warning("took over from a silent daemon", stream=str(stream), former=former)
        # Of our own sessions, only the one that had the lane: if the server has not noticed that
        # it was cut, it keeps writers from waking us.
        await connection.execute(
            query("end_sessions", backend), {"holder": former, "only_pid": pid if ours else None}
        )
        return True
