"""The session that holds a lane and is woken when its stream changes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg import errors, sql
from psycopg.abc import Params

from listener.adapters.postgres.connection import Database, open_session
from listener.adapters.postgres.errors import reason_of
from listener.adapters.postgres.locks import AWAKE
from listener.adapters.postgres.sessions import Connection, only_row, query
from listener.domain.change import Stream
from listener.domain.faults import LaneLostError, StoreUnavailableError
from listener.domain.pacing import Backoff
from listener.domain.pulse import LaneReport, WakeMode

_log = structlog.stdlib.get_logger()

_POLL_WITHOUT_WAKEUPS = timedelta(seconds=1)
_STILL_LOCKED = timedelta(milliseconds=20)
_TRY_ROUSING_EVERY = timedelta(milliseconds=250)
_RECONNECT = Backoff(first=timedelta(milliseconds=100), most=timedelta(seconds=5))

# If a beat is this late, it was not answered, and the session is as good as lost.
_LATE_BEAT = timedelta(seconds=2)


_BROKEN = (psycopg.OperationalError, psycopg.InterfaceError)


class Wakeups:
    """Sleeps until a writer wakes us, and shows writers when they need not.

    A wake-up carries no data and may be lost: after every reconnection, and while there is no
    session, `wait` returns early so that its caller looks for itself. `report` returns what each
    beat records in the lane.
    """

    def __init__(
        self,
        database: Database,
        stream: Stream,
        beat_every: timedelta,
        connection: Connection,
        report: Callable[[], LaneReport],
    ) -> None:
        self._report = report
        self._database = database
        self._stream = stream
        self._beat_every = beat_every.total_seconds()
        self._connection: Connection | None = connection
        self._session = connection.info.backend_pid
        self._log = _log.bind(stream=str(stream))
        self._listening = False
        self._arriving = self._echoed = True
        self._beat_at = float("-inf")
        self._holds_lock = False
        # Writers that have yet to commit may have skipped their wake-up because of the last holder.
        self._spared = True
        self._rouse_at = float("-inf")
        self._failures = 0
        self._reconnect_at = float("-inf")

    @property
    def wake_mode(self) -> WakeMode:
        """Whether wake-ups arrive, or at least the session on which they should arrive answers."""
        if not self._listening or self._now() > self._beat_at + _LATE_BEAT.total_seconds():
            return WakeMode.DOWN
        return WakeMode.NOTIFY if self._arriving else WakeMode.POLL

    async def rouse(self) -> None:
        if self._holds_lock or self._now() < self._rouse_at:
            return
        self._rouse_at = self._now() + _TRY_ROUSING_EVERY.total_seconds()
        connection = await self._ready()
        if connection is None:
            return
        self._spared = True
        try:
            # Waits for writers that are just waking us; a writer that comes meanwhile sees a waiter
            # and spares itself the wake-up, so this cannot be starved. It waits briefly: nobody
            # looks at the outbox meanwhile.
            await self._bounded(
                connection,
                "SELECT set_config('lock_timeout', '20ms', true),"
                " pg_advisory_lock(%(lock_class)s::int, %(lock_number)s::int)",
                AWAKE[self._stream],
            )
            self._holds_lock = True
        except errors.LockNotAvailable:
            self._log.debug("a long transaction keeps writers waking us")
        except _BROKEN as error:
            await self._drop(error)

    async def doze(self) -> int | None:
        if not self._spared:
            return None
        connection = await self._ready()
        if connection is None:
            return None
        try:
            # All of them, held or not: a lock that is granted just as its wait times out stays with
            # the session though the statement fails.
            await self._bounded(connection, "SELECT pg_advisory_unlock_all()")
            self._holds_lock = False
            # A statement of its own: the mark must be drawn after the release.
            cursor = await self._bounded(
                connection,
                query("mark_transactions", self._database.backend),
                AWAKE[self._stream],
            )
            free, mark = await only_row(cursor)
            # A former session that the server has yet to end keeps writers from waking us.
            self._spared = not free
            if not free:
                await asyncio.sleep(_STILL_LOCKED.total_seconds())
        except _BROKEN as error:
            await self._drop(error)
            return None
        return int(mark)

    async def wait(self, at_most: timedelta) -> bool:
        until = self._now() + at_most.total_seconds()
        while True:
            was_listening = self._listening
            connection = await self._ready()
            if self._listening and not was_listening:
                return True
            if not (self._listening and self._arriving):
                until = min(until, self._now() + _POLL_WITHOUT_WAKEUPS.total_seconds())
            slice_ = max(0.0, min(until, self._beat_at) - self._now())
            if connection is None:
                await asyncio.sleep(min(slice_ or _RECONNECT.first.total_seconds(), 0.1))
            elif await self._woken(connection, slice_):
                return True
            if self._now() >= until:
                return False

    async def release(self) -> None:
        """Hand the lane over and close the session."""
        if self._connection is None:
            return
        try:
            await self._bounded(
                self._connection,
                query("release_lane", self._database.backend),
                {
                    "stream": self._stream,
                    "holder": self._database.holder,
                    "fault": self._report().fault,
                },
            )
        except (*_BROKEN, StoreUnavailableError) as error:
            self._log.info("lane not handed over, it lapses by itself", reason=str(error))
        finally:
            await self._connection.close()

    async def _woken(self, connection: Connection, seconds: float) -> bool:
        woken = False
        try:
            # To the end: an abandoned generator swallows what arrives before it is collected.
            async for notify in connection.notifies(timeout=seconds, stop_after=1):
                if notify.channel == self._channel:
                    woken = True
                else:
                    self._echoed = self._arriving = True
        except _BROKEN as error:
            await self._drop(error)
        return woken

    async def _ready(self) -> Connection | None:
        """Return the session if it listens and has a recent beat, None while there is none."""
        if self._connection is not None and self._now() < self._beat_at:
            return self._connection
        if self._now() < self._reconnect_at:
            return None
        try:
            if self._connection is None:
                self._connection = await open_session(self._database)
                await self._end_former_session(self._connection)
            if not self._listening:
                await self._listen(self._connection)
            await self._beat(self._connection)
        except _BROKEN as error:
            await self._drop(error)
            self._failures += 1
            delay = _RECONNECT.delay(self._failures).total_seconds()
            self._reconnect_at = self._now() + delay
            return None
        self._failures = 0
        return self._connection

    async def _listen(self, connection: Connection) -> None:
        # A beat sends a NOTIFY, and may have to queue behind writers that do the same.
        await self._bounded(connection, "SET lock_timeout = '2s'")
        for channel in (self._channel, self._echo):
            statement = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
            await self._bounded(connection, statement)
        # An echo that the previous session did not receive proves nothing about this one.
        self._listening = self._echoed = True

    async def _beat(self, connection: Connection) -> None:
        report = self._report()
        cursor = await self._bounded(
            connection,
            query("beat_lane", self._database.backend),
            {
                "stream": self._stream,
                "holder": self._database.holder,
                "echo": self._echo,
                "woken": self._arriving,
                **asdict(report),
            },
        )
        if await cursor.fetchone() is None:
            message = f"another daemon follows {self._stream} now"
            raise LaneLostError(message)
        self._beat_at = self._now() + self._beat_every
        if self._arriving and not self._echoed:
            self._log.warning("wake-ups do not arrive, polling; is there a pooler in between?")
        self._arriving, self._echoed = self._echoed, False

    async def _end_former_session(self, connection: Connection) -> None:
        # A half-open session may survive on the server and keep writers from waking us.
        await self._bounded(
            connection,
            query("end_sessions", self._database.backend),
            {"holder": self._database.holder, "only_pid": self._session},
        )
        self._session = connection.info.backend_pid
        self._log.info("connected again")

    async def _drop(self, error: Exception) -> None:
        if self._listening:
            reason = reason_of(error)
            self._log.warning("lost the session that is woken, polling", reason=reason)
        self._listening = self._holds_lock = False
        self._beat_at = float("-inf")
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _bounded(
        self,
        connection: Connection,
        statement: LiteralString | bytes | sql.Composed,
        parameters: Params | None = None,
    ) -> psycopg.AsyncCursor[Any]:
        """Execute a statement; raises OperationalError if it takes longer than a beat.

        Raises `StoreUnavailableError` if the server is read-only: another session would be, too.
        """
        loop = asyncio.get_running_loop()
        # Not a timeout: psycopg would ask the silent server to cancel, for seconds more.
        deadline = loop.call_later(self._beat_every, _hang_up, connection)
        try:
            return await connection.execute(statement, parameters)
        except errors.ReadOnlySqlTransaction as error:
            raise StoreUnavailableError(reason_of(error)) from error
        finally:
            deadline.cancel()

    @property
    def _channel(self) -> str:
        return f"listener_{self._stream}"

    @property
    def _echo(self) -> str:
        return f"listener_echo_{self._session}"

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _hang_up(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
