"""The book of refresh calls: one budget for all processes, whatever becomes of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.rotation import PostgresRefreshes
from listener.domain.budget import Grant, RefreshCause, RefreshLimits, Wait
from listener.domain.faults import StoreUnavailableError
from listener.domain.refreshing import Refreshed, RefreshStatus
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import until

LIMITS = RefreshLimits(calls=30, in_flight=2, call_timeout=timedelta(minutes=6))
WALK, CHANGE = RefreshCause.WALK, RefreshCause.CHANGE
WARMED = Refreshed(1, RefreshStatus.WARMED, 1, 3, 4)


@pytest.fixture
def book(pool: Pool, database: Database) -> PostgresRefreshes:
    """Enter calls as this process."""
    return PostgresRefreshes(pool, database, LIMITS)


async def granted(
    book: PostgresRefreshes, cause: RefreshCause = CHANGE, *, known: bool = False, wanted: int = 50
) -> Grant:
    taken = await book.take(cause, known=known, wanted=wanted)
    assert isinstance(taken, Grant), taken
    return taken


async def waits(
    book: PostgresRefreshes, cause: RefreshCause = CHANGE, *, known: bool = False
) -> timedelta:
    taken = await book.take(cause, known=known, wanted=1)
    assert isinstance(taken, Wait), taken
    return taken.at_most


async def done(book: PostgresRefreshes, grant: Grant, cost: int, answered: int = 0) -> None:
    await book.end(grant, cost=cost, answered=answered, refreshed={})


def ago(db: Connection, column: str, time: str) -> None:
    """Let time pass for every call in the book."""
    db.execute(
        f"UPDATE listener.refresh SET {column} = {column} - %s::interval"  # noqa: S608 - ours
        " WHERE ended_at < 'infinity' OR %s = 'started_at'",
        (time, column),
    )


def expected(db: Connection) -> object:
    """Return what the call in flight is expected to cost."""
    return db.execute("SELECT cost FROM listener.refresh WHERE ended_at = 'infinity'").fetchone()[0]  # type: ignore[index]


def pass_time(db: Connection, time: str) -> None:
    ago(db, "started_at", time)
    ago(db, "ended_at", time)


async def test_call_in_flight_counts_with_what_it_is_expected_to_cost(
    book: PostgresRefreshes, db: Connection
) -> None:
    grant = await granted(book)
    assert grant.identities == 4
    assert timedelta() < await waits(book) <= LIMITS.look_again
    row = db.execute(
        "SELECT errand, known, holder, identities, cost, ended_at = 'infinity'"
        " FROM listener.refresh"
    ).fetchone()
    assert row == ("change", False, "listener test", 4, 16, True)


async def test_smaller_batch_reserves_less(book: PostgresRefreshes, db: Connection) -> None:
    assert (await granted(book, wanted=1)).identities == 1
    assert (await granted(book)).identities == 3
    assert db.execute("SELECT cost FROM listener.refresh ORDER BY 1").fetchall() == [(4,), (12,)]


async def test_ended_call_counts_with_what_it_cost_until_a_window_after_its_end(
    pool: Pool, database: Database, db: Connection
) -> None:
    # So long that the time which the test itself takes decides nothing.
    limits = replace(LIMITS, window=timedelta(minutes=10))
    book = PostgresRefreshes(pool, database, limits)
    began = time.monotonic()
    await done(book, await granted(book), cost=28)
    assert await waits(book)
    ago(db, "started_at", "700 s")
    ago(db, "ended_at", "585 s")
    left = await waits(book)
    passed = timedelta(seconds=time.monotonic() - began)
    assert timedelta(seconds=15) - passed <= left <= timedelta(seconds=15)
    ago(db, "ended_at", "16 s")
    assert (await granted(book)).identities == 4


async def test_call_that_cost_nothing_frees_the_window_at_once(book: PostgresRefreshes) -> None:
    await done(book, await granted(book), cost=0)
    assert (await granted(book)).identities == 4


async def test_cost_is_learned_for_those_known_and_for_others_separately(
    book: PostgresRefreshes, db: Connection
) -> None:
    assert (await granted(book, WALK, known=True)).identities == 50
    pass_time(db, "1 h")
    db.execute("DELETE FROM listener.refresh")
    await done(book, await granted(book, WALK, known=True), cost=200, answered=50)
    pass_time(db, "2 min")
    assert (await granted(book, WALK, known=True)).identities == 3
    pass_time(db, "1 h")
    db.execute("DELETE FROM listener.refresh WHERE ended_at = 'infinity'")
    for _ in range(2):
        await done(book, await granted(book, known=False), cost=0, answered=50)
    assert (await granted(book, WALK, known=False)).identities == 3
    assert expected(db) == 1
    db.execute("DELETE FROM listener.refresh WHERE ended_at = 'infinity'")
    pass_time(db, "8 d")
    assert (await granted(book, WALK, known=False)).identities == 3
    assert expected(db) == 12


async def test_failed_call_teaches_nothing(book: PostgresRefreshes, db: Connection) -> None:
    for _ in range(10):
        await done(book, await granted(book, WALK), cost=0, answered=0)
    assert (await granted(book, WALK)).identities == 3
    assert expected(db) == 12


async def test_at_most_four_identities_that_may_be_cold_are_in_flight_in_all_calls(
    pool: Pool, database: Database, db: Connection
) -> None:
    book = PostgresRefreshes(pool, database, replace(LIMITS, in_flight=4))
    walk = await granted(book, WALK)
    change = await granted(book, CHANGE)
    assert (walk.identities, change.identities) == (3, 1)
    assert await waits(book, CHANGE)
    await done(book, walk, cost=0)
    assert (await granted(book, CHANGE)).identities == 3


async def test_known_identities_that_turn_out_cold_count_as_cold(
    pool: Pool, database: Database, db: Connection
) -> None:
    book = PostgresRefreshes(pool, database, replace(LIMITS, in_flight=4))
    await done(book, await granted(book, WALK, known=True), cost=200, answered=50)
    pass_time(db, "2 min")
    assert (await granted(book, WALK, known=True)).identities == 3
    assert (await granted(book, CHANGE)).identities == 1
    assert await waits(book, CHANGE)


async def test_latest_answer_counts(book: PostgresRefreshes, db: Connection) -> None:
    for cost in (200, 0, 0):
        grant = await granted(book, CHANGE, known=True)
        await done(book, grant, cost=cost, answered=50)
        pass_time(db, "2 min")
    assert (await granted(book, WALK, known=True)).identities == 50


async def test_calls_a_minute_are_bounded_however_little_they_cost(
    pool: Pool, database: Database, db: Connection
) -> None:
    book = PostgresRefreshes(pool, database, replace(LIMITS, calls=3))
    for _ in range(3):
        await done(book, await granted(book, known=True), cost=0, answered=50)
    assert await waits(book, known=True)
    pass_time(db, "61 s")
    assert await granted(book, known=True)


async def test_calls_a_minute_are_those_that_began_in_it(
    pool: Pool, database: Database, db: Connection
) -> None:
    book = PostgresRefreshes(pool, database, replace(LIMITS, calls=3))
    for _ in range(3):
        await done(book, await granted(book, known=True), cost=0, answered=50)
    ago(db, "started_at", "61 s")
    assert await granted(book, known=True)


async def test_calls_in_flight_are_bounded(book: PostgresRefreshes) -> None:
    first = await granted(book, known=True, wanted=1)
    await granted(book, known=True, wanted=1)
    assert await waits(book, known=True)
    await done(book, first, cost=0)
    assert await granted(book, known=True)


async def test_budget_holds_across_processes_and_over_restarts(
    book: PostgresRefreshes, dsn: str
) -> None:
    await done(book, await granted(book), cost=28)
    other = Database(dsn, BACKEND, "listener another")
    async with open_pool(other, size=1) as pool:
        assert await waits(PostgresRefreshes(pool, other, LIMITS))


async def test_concurrent_processes_never_exceed_the_budget(dsn: str, db: Connection) -> None:
    # A process that has ended has nothing in flight.
    all_have_taken = asyncio.Barrier(4)

    async def taking(name: str) -> int:
        database = Database(dsn, BACKEND, name)
        limits = replace(LIMITS, in_flight=100)
        async with open_pool(database, size=1) as pool:
            book = PostgresRefreshes(pool, database, limits)
            taken = [await book.take(CHANGE, known=False, wanted=1) for _ in range(6)]
            await all_have_taken.wait()
        return sum(isinstance(each, Grant) for each in taken)

    taken = await asyncio.gather(*(taking(f"listener {number}") for number in range(4)))
    assert sum(taken) == 4
    assert db.execute("SELECT sum(cost) FROM listener.refresh").fetchone() == (16,)


async def test_killed_process_holds_no_call_but_its_cost_counts_for_two_windows(
    book: PostgresRefreshes, dsn: str, db: Connection
) -> None:
    killed = Database(dsn, BACKEND, "listener killed")
    async with open_pool(killed, size=1) as pool:
        other = PostgresRefreshes(pool, killed, LIMITS)
        await granted(other, wanted=3)
        await granted(other, wanted=3)
        assert await waits(book)
    gone = "SELECT FROM pg_stat_activity WHERE application_name = 'listener killed'"
    await until(lambda: not db.execute(gone).rowcount)
    # Nothing of its is in flight, but LML may be at it still.
    assert (await granted(book)).identities == 3
    ago(db, "started_at", "110 s")
    assert timedelta() < await waits(book, WALK)
    ago(db, "started_at", "11 s")
    db.execute("DELETE FROM listener.refresh WHERE holder = 'listener test'")
    assert (await granted(book)).identities == 4


async def test_frozen_process_holds_its_call_until_its_time_is_up(
    book: PostgresRefreshes, db: Connection
) -> None:
    await granted(book)
    db.execute("UPDATE listener.refresh SET cost = 28")
    ago(db, "started_at", "5 min")
    assert await waits(book)
    ago(db, "started_at", "1 min")
    assert await waits(book)
    ago(db, "started_at", "1 min 1 s")
    assert (await granted(book)).identities == 4


async def test_calls_past_their_timeout_no_longer_count_as_in_flight(
    book: PostgresRefreshes, db: Connection
) -> None:
    for _ in range(LIMITS.in_flight):
        await granted(book, known=True, wanted=1)
    ago(db, "started_at", "5 min")
    assert await waits(book, known=True)
    ago(db, "started_at", "1 min")
    assert await granted(book, known=True)


async def test_lock_that_is_held_is_not_waited_for_long(book: PostgresRefreshes, dsn: str) -> None:
    with psycopg.connect(dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(1280528978, 8)")
        assert await waits(book) == LIMITS.look_again
    assert await granted(book)


async def test_answers_are_remembered_with_failures_in_a_row(
    book: PostgresRefreshes, db: Connection
) -> None:
    async def say(*said: Refreshed) -> dict[object, object]:
        grant = await granted(book, known=True)
        refreshed = {each.identity_id: each for each in said}
        await book.end(grant, cost=0, answered=1, refreshed=refreshed)
        statement = "SELECT identity_id, failures FROM listener.warmth WHERE identity_id = ANY (%s)"
        return {row[0]: row[1] for row in db.execute(statement, [list(refreshed)])}

    error = Refreshed(2, RefreshStatus.ERROR)
    assert await say(WARMED, error) == {1: 0, 2: 1}
    assert await say(error, Refreshed(3, RefreshStatus.NOT_FOUND)) == {2: 2, 3: 0}
    assert await say(Refreshed(2, RefreshStatus.NOT_IMPLEMENTED)) == {2: 0}
    found = db.execute("SELECT identity_id, status, failures FROM listener.warmth ORDER BY 1")
    assert found.fetchall() == [(1, "warmed", 0), (2, "not_implemented", 0), (3, "not_found", 0)]


async def test_lost_database_is_reported(book: PostgresRefreshes, db: Connection) -> None:
    db.execute("DROP TABLE listener.refresh")
    with pytest.raises(StoreUnavailableError):
        await granted(book)


async def test_calls_dated_in_the_future_do_not_count(
    book: PostgresRefreshes, db: Connection
) -> None:
    await done(book, await granted(book), cost=28)
    assert await waits(book)
    pass_time(db, "-5 h")
    assert (await granted(book)).identities == 4
