"""A daemon that sleeps is woken by every change, without any poll."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from listener.adapters.postgres.connection import Database, open_session
from listener.adapters.postgres.outbox import LaneTimes, PostgresLanes, PostgresOutbox
from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import LaneLostError, StoreUnavailableError
from listener.domain.pulse import WakeMode
from listener.domain.room import RoomLimits
from listener.engine.circuit import Circuit
from listener.engine.consumer import Consumer
from listener.engine.tenure import ConsumerLimits
from tests.catalogue import add_release, outbox_size, rename, table
from tests.conftest import Connection
from tests.integration.conftest import until
from tests.integration.proxy import proxy_before

NEVER = timedelta(days=1)
ROUNDS = 120
WRITERS = 4


@asynccontextmanager
async def following(
    database: Database,
    outbox: PostgresOutbox,
    poll: timedelta = NEVER,
    times: LaneTimes | None = None,
) -> AsyncIterator[None]:
    """Run a consumer that settles whatever it claims."""

    async def settle(batch: Batch) -> BatchOutcome:
        rows = frozenset(batch.changes)
        await outbox.settle(Stream.LIBRARY, batch.entries(rows))
        return BatchOutcome(settled=rows)

    room = RoomLimits(capacity=1000, batch_size=100, linger=timedelta(), cool_down=timedelta())
    consumer = Consumer(
        Stream.LIBRARY,
        outbox,
        settle,
        ConsumerLimits(room, 2, poll),
        circuit=Circuit(Stream.LIBRARY),
    )
    stop = asyncio.Event()
    async with (
        PostgresLanes(database, times or LaneTimes()).hold(Stream.LIBRARY) as lane,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(consumer.follow(lane, stop))
        yield
        stop.set()


async def until_settled(db: Connection) -> None:
    """Wait until the outbox is empty; fail if it is not in time."""
    await until(lambda: outbox_size(db) == 0, 5)


@pytest.mark.timeout(120)
async def test_no_change_is_missed_between_waking_and_sleeping(
    dsn: str, db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    rows = [add_release(db, f"Artist {number}") for number in range(WRITERS)]
    chance = random.Random(7)

    async def write(row: int, moments: list[float]) -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as backend:
            for moment in moments:
                await backend.execute(
                    sql.SQL("UPDATE {} SET album_title = %s WHERE id = %s").format(
                        table("library")
                    ),
                    (f"{moment}", row),
                )
                # Between the trigger's look at the lock and the commit: the race is in here.
                await asyncio.sleep(moment)
                await backend.commit()

    async with following(database, outbox):
        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as writers:
                for row in rows:
                    moments = [chance.choice((0, 0.001, 0.004, 0.012)) for _ in range(3)]
                    writers.create_task(write(row, moments))
            await until_settled(db)


async def test_change_of_a_transaction_that_outlives_the_awake_time_is_seen(
    dsn: str, db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    slow, busy = add_release(db, "Slow"), add_release(db, "Busy")
    async with following(database, outbox):
        await until_settled(db)
        async with await psycopg.AsyncConnection.connect(dsn) as backend:
            await _be_awake(db, busy)
            # Spared the wake-up, because the daemon is awake; commits when it would long sleep.
            await _edit(backend, slow)
            await until_settled(db)
            await _be_asleep(db)
            await backend.commit()
        await until_settled(db)


async def test_later_changes_of_a_transaction_are_seen_although_they_wake_no_daemon(
    dsn: str, db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    slow, busy = add_release(db, "Slow"), add_release(db, "Busy")
    async with following(database, outbox):
        for awake in (True, False):
            await until_settled(db)
            async with await psycopg.AsyncConnection.connect(dsn) as backend:
                if awake:
                    await _be_awake(db, busy)
                await _edit(backend, slow)
                await until_settled(db)
                await _be_asleep(db)
                await _edit(backend, slow)
                await _edit(backend, busy)
                await backend.commit()
            await until_settled(db)


async def test_change_that_skipped_its_wakeup_under_a_former_holder_is_seen(
    dsn: str, db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    slow, busy = add_release(db, "Slow"), add_release(db, "Busy")
    # No beat of the second one comes upon the change by chance.
    times = LaneTimes(beat=NEVER)
    async with await psycopg.AsyncConnection.connect(dsn) as backend:
        async with following(database, outbox):
            await until_settled(db)
            await _be_awake(db, busy)
            await _edit(backend, slow)
        async with following(database, outbox, times=times):
            await until_settled(db)
            # Longer than it looks around after its start.
            await asyncio.sleep(1)
            await backend.commit()
            await until_settled(db)


async def test_awake_daemon_spares_writers_the_wakeup(
    db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    row = add_release(db)
    async with following(database, outbox):
        await until_settled(db)
        assert _lock_is_free(db)
        await _be_awake(db, row)
        await _be_asleep(db)


async def test_cut_session_is_replaced_and_what_came_meanwhile_is_seen(
    db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    row = add_release(db)
    async with following(database, outbox):
        await until_settled(db)
        for number in range(3):
            db.execute(
                "SELECT pg_terminate_backend(holder_pid) FROM listener.lane"
                " WHERE stream = 'library'"
            )
            rename(db, row, f"After cut {number}")
            await until_settled(db)


async def test_echo_missed_by_a_cut_session_proves_nothing_about_the_next(
    db: Connection, database: Database
) -> None:
    async with PostgresLanes(database, LaneTimes()).hold(Stream.LIBRARY) as lane:
        # Listens and sends itself an echo, which it would hear while it waits on.
        assert await lane.wait(timedelta())
        db.execute(
            "SELECT pg_terminate_backend(holder_pid, 5000) FROM listener.lane"
            " WHERE stream = 'library'"
        )
        await lane.rouse()
        rungs = [lane.wake_mode]
        assert await lane.wait(timedelta(seconds=5))
        assert [*rungs, lane.wake_mode] == [WakeMode.DOWN, WakeMode.NOTIFY]


async def test_half_open_session_is_noticed_and_replaced(
    db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    row = add_release(db)
    times = LaneTimes(beat=timedelta(milliseconds=300))
    async with (
        proxy_before(database.dsn) as (dsn, proxy),
        following(replace(database, dsn=dsn), outbox, times=times),
    ):
        await until_settled(db)
        proxy.freeze()
        rename(db, row, "Nobody hears that we are called")
        await until_settled(db)
        rename(db, row, "The new session does")
        await until_settled(db)


async def test_holder_that_lost_its_lane_stops(db: Connection, database: Database) -> None:
    # A beat is also how long the server may take to answer.
    times = LaneTimes(beat=timedelta(milliseconds=500))
    async with PostgresLanes(database, times).hold(Stream.LIBRARY) as lane:
        await lane.wait(timedelta())
        db.execute("UPDATE listener.lane SET holder = 'another'")
        with pytest.raises(LaneLostError):
            await lane.wait(timedelta(seconds=10))


async def test_stream_without_a_lane_says_what_to_do(db: Connection, database: Database) -> None:
    db.execute("DELETE FROM listener.lane WHERE stream = 'library'")
    with pytest.raises(StoreUnavailableError, match="run `listener migrate`"):
        async with PostgresLanes(database, LaneTimes()).hold(Stream.LIBRARY):
            pass


async def test_silent_holder_is_replaced_and_its_sessions_ended(
    db: Connection, database: Database
) -> None:
    silent = await open_session(
        Database(dsn=database.dsn, backend=database.backend, holder="listener silent")
    )
    db.execute(
        "UPDATE listener.lane SET holder = 'listener silent', holder_pid = %s,"
        " holder_started = (SELECT backend_start FROM pg_stat_activity WHERE pid = %s)",
        (silent.info.backend_pid, silent.info.backend_pid),
    )
    times = LaneTimes(patience=timedelta(milliseconds=200), look=timedelta(milliseconds=20))
    async with PostgresLanes(database, times).hold(Stream.LIBRARY):
        with pytest.raises(psycopg.OperationalError):
            await silent.execute("SELECT 1")


async def test_session_of_ours_that_the_server_still_holds_is_ended(
    db: Connection, database: Database
) -> None:
    # It was cut off, and the server has yet to hear of it.
    left = await open_session(database)
    await left.execute("SELECT pg_advisory_lock(1280528978, 1)")
    db.execute(
        "UPDATE listener.lane SET holder = %s, holder_pid = %s WHERE stream = 'library'",
        (database.holder, left.info.backend_pid),
    )
    times = LaneTimes(patience=timedelta(milliseconds=200), look=timedelta(milliseconds=20))
    async with PostgresLanes(database, times).hold(Stream.LIBRARY):
        with pytest.raises(psycopg.OperationalError):
            await left.execute("SELECT 1")
        assert _lock_is_free(db)
    await left.close()


async def test_daemon_takes_its_own_lane_back_at_once_although_its_former_session_lives(
    db: Connection, database: Database
) -> None:
    # As it is after the connection was cut: to the server all is well.
    times = LaneTimes(patience=NEVER, look=NEVER)
    lanes = PostgresLanes(database, times)
    async with asyncio.timeout(10), AsyncExitStack() as former:
        await former.enter_async_context(lanes.hold(Stream.LIBRARY))
        pid = _holder(db)
        async with lanes.hold(Stream.LIBRARY, wait=False) as lane:
            assert _holder(db) != pid
            same = "SELECT FROM pg_stat_activity WHERE pid = %s"
            await until(lambda: not db.execute(same, (pid,)).rowcount)
            await lane.wait(timedelta(0))
            assert lane.wake_mode is not WakeMode.DOWN
            # Another one is still kept out.
            other = replace(database, holder="listener other")
            with pytest.raises(LaneLostError):
                async with PostgresLanes(other, times).hold(Stream.LIBRARY, wait=False):
                    pass


async def test_daemon_keeps_looking_while_another_session_makes_writers_skip_wakeups(
    db: Connection, database: Database, outbox: PostgresOutbox
) -> None:
    row = add_release(db)
    # A former session of ours that the server has yet to end.
    left = await open_session(database)
    await left.execute("SELECT pg_advisory_lock(1280528978, 1)")
    async with following(database, outbox):
        for number in range(5):
            rename(db, row, f"Spared {number}")
            await until_settled(db)
        await left.close()
        await _be_asleep(db)
        for number in range(5):
            rename(db, row, f"Woken {number}")
            await until_settled(db)
            await _be_asleep(db)


async def test_doze_returns_marks_until_no_other_session_makes_writers_skip_wakeups(
    db: Connection, database: Database
) -> None:
    left = await open_session(database)
    await left.execute("SELECT pg_advisory_lock(1280528978, 1)")
    async with PostgresLanes(database, LaneTimes()).hold(Stream.LIBRARY) as lane:
        marks = [await lane.doze() for _ in range(3)]
        drawn = [mark for mark in marks if mark is not None]
        assert len(drawn) == 3
        assert drawn == sorted(set(drawn))
        await left.close()
        await until(lambda: _lock_is_free(db))
        # The last one covers who was spared until just now.
        last = await lane.doze()
        assert last is not None
        assert last > drawn[-1]
        assert await lane.doze() is None
        await lane.rouse()
        assert not _lock_is_free(db)
        assert await lane.doze() is not None
        assert await lane.doze() is None


async def test_reused_process_id_is_not_mistaken_for_the_holder(
    db: Connection, database: Database
) -> None:
    lanes = PostgresLanes(database, LaneTimes())
    enter = (
        "UPDATE listener.lane SET holder = 'listener died', holder_pid = pg_backend_pid(),"
        " holder_started = (SELECT backend_start - %s::interval FROM pg_stat_activity"
        " WHERE pid = pg_backend_pid())"
    )
    db.execute(enter, ("0 s",))
    with pytest.raises(LaneLostError):
        async with lanes.hold(Stream.LIBRARY, wait=False):
            pass
    db.execute(enter, ("1 s",))
    async with lanes.hold(Stream.LIBRARY, wait=False):
        pass


async def test_holder_that_beat_since_the_look_at_its_lane_is_not_replaced(
    db: Connection, database: Database
) -> None:
    replaced: list[bool] = []

    class Hurried(PostgresLanes):
        """Lets the holder beat between the look at its lane and the first try to replace it."""

        async def _replace(
            self,
            connection: psycopg.AsyncConnection[Any],
            stream: Stream,
            former: str | None,
            pid: int | None,
            beat: int,
        ) -> bool:
            if not replaced:
                db.execute("UPDATE listener.lane SET beat = beat + 1")
            replaced.append(await super()._replace(connection, stream, former, pid, beat))
            return replaced[-1]

    db.execute("UPDATE listener.lane SET holder = 'listener slow', holder_pid = 0")
    async with Hurried(database, LaneTimes()).hold(Stream.LIBRARY):
        assert replaced == [False, True]


async def test_living_holder_is_not_replaced(db: Connection, database: Database) -> None:
    times = LaneTimes(
        beat=timedelta(milliseconds=200),
        patience=timedelta(milliseconds=500),
        look=timedelta(milliseconds=20),
    )
    other = Database(dsn=database.dsn, backend=database.backend, holder="listener other")
    looks = 0

    class Slower(PostgresLanes):
        """Looks once a beat, however late that comes: late is not silent."""

        async def _read(
            self, connection: psycopg.AsyncConnection[Any], stream: Stream
        ) -> tuple[str | None, int | None, int, bool]:
            nonlocal looks
            look = last = await super()._read(connection, stream)
            while looks and look[:3] == last[:3] and look[0] == database.holder:
                await asyncio.sleep(0.01)
                look = await super()._read(connection, stream)
            looks += 1
            return look

    async def take_over() -> None:
        async with Slower(other, times).hold(Stream.LIBRARY):
            pass

    async with PostgresLanes(database, times).hold(Stream.LIBRARY) as lane:
        taking = asyncio.ensure_future(take_over())  # noqa: TID251 - cancelled below
        began = asyncio.get_running_loop().time()
        # Longer than it is patient with one that is silent.
        while looks < 4 or asyncio.get_running_loop().time() - began < 1.5:
            await lane.wait(timedelta(milliseconds=50))
        assert db.execute(
            "SELECT holder FROM listener.lane WHERE stream = 'library'"
        ).fetchone() == (database.holder,)
    async with asyncio.timeout(10):
        await taking


def _holder(db: Connection) -> object:
    held = "SELECT holder_pid FROM listener.lane WHERE stream = 'library'"
    return db.execute(held).fetchall()[0][0]


def _lock_is_free(db: Connection) -> bool:
    row = db.execute(
        "SELECT NOT EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
        " WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted"
        " AND d.datname = current_database() AND l.objid = 1 AND l.objsubid = 2)"
    ).fetchone()
    return row == (True,)


async def _be_awake(db: Connection, row: int) -> None:
    async with asyncio.timeout(5):
        number = 0
        while _lock_is_free(db):
            number += 1
            rename(db, row, f"Busy {number}")
            await asyncio.sleep(0.001)


async def _edit(backend: psycopg.AsyncConnection[Any], row: int) -> None:
    await backend.execute(
        sql.SQL("UPDATE {} SET album_title = album_title || '!' WHERE id = %s").format(
            table("library")
        ),
        (row,),
    )


async def _be_asleep(db: Connection) -> None:
    await until(lambda: _lock_is_free(db), 5)
