"""Runs are entered in a book, and two over the same rows wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from structlog.testing import capture_logs

from listener.adapters.postgres import runs as book
from listener.adapters.postgres.connection import Database, Pool
from listener.adapters.postgres.runs import PostgresRuns, read_pace
from listener.domain.due import RunKind, Scope
from listener.domain.faults import RunGoesOnError, StoreUnavailableError
from listener.domain.refreshing import Refreshed, RefreshStatus, RotationTally
from listener.domain.tally import Skip, Tally
from tests.catalogue import add_release, table
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import until

WHOLE = Scope()
SHARE, OTHER_SHARE = Scope(partition=0, partitions=2), Scope(partition=1, partitions=2)
SWEEP, REFRESH, AUDIT = RunKind.SWEEP, RunKind.REFRESH, RunKind.AUDIT


@pytest.fixture
def runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> PostgresRuns:
    """Enter runs; locks that are taken are tried again at once."""
    monkeypatch.setattr(book, "_TRY_EVERY", timedelta(milliseconds=5))
    return PostgresRuns(database)


@asynccontextmanager
async def entered(
    runs: PostgresRuns,
    kind: RunKind = AUDIT,
    scope: Scope = WHOLE,
    tally: Tally | None = None,
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    async with runs.enter(kind, scope, "test", tally or Tally()) as note:
        yield note


async def is_kept_out(runs: PostgresRuns, kind: RunKind, scope: Scope) -> bool:
    async def enter() -> None:
        async with entered(runs, kind, scope):
            pass

    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            entering = tasks.create_task(enter())
            await until(lambda: entering.done() or logs)
            kept_out = not entering.done()
            entering.cancel()
    return kept_out


def book_of(db: Connection) -> list[dict[str, Any]]:
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("SELECT * FROM listener.run ORDER BY run_id").fetchall()


async def test_run_is_recorded_while_it_runs(db: Connection, runs: PostgresRuns) -> None:
    tally = Tally()
    async with runs.enter(SWEEP, WHOLE, "schedule", tally) as note:
        (run,) = book_of(db)
        assert (run["kind"], run["cause"], run["holder"]) == ("sweep", "schedule", "listener test")
        assert run["ended_at"] is run["outcome"] is run["reason"] is None
        assert run["tally"] == {}

        tally.resolved = 2
        tally.skip(Skip.GONE, 3)
        await note()
        (noted,) = book_of(db)
        assert noted["tally"] == tally.report()
        assert (noted["tally"]["scanned"], noted["tally"]["rows_resolved"]) == (5, 2)
        assert noted["seen_at"] > run["seen_at"]
        assert noted["started_at"] == run["started_at"]
        assert noted["ended_at"] is noted["outcome"] is None


async def test_run_that_ends_is_done(db: Connection, runs: PostgresRuns) -> None:
    tally = Tally()
    async with entered(runs, tally=tally):
        tally.unresolved = 7
    (run,) = book_of(db)
    assert (run["outcome"], run["reason"], run["tally"]) == ("done", None, tally.report())
    assert run["ended_at"] > run["started_at"]


_FAULT = ValueError("five batches in a row")


@pytest.mark.parametrize("fault", [_FAULT, ExceptionGroup("two", [_FAULT, KeyError("x")])])
async def test_run_that_raises_has_failed_with_its_reason(
    db: Connection, runs: PostgresRuns, fault: Exception
) -> None:
    tally = Tally()

    async def break_off() -> None:
        async with entered(runs, tally=tally):
            tally.unresolved = 7
            raise fault

    with pytest.raises(type(fault)):
        await break_off()
    (run,) = book_of(db)
    assert (run["outcome"], run["reason"]) == ("failed", "five batches in a row")
    assert run["tally"] == tally.report()
    assert run["ended_at"] is not None


async def test_run_that_is_cancelled_was_stopped(db: Connection, runs: PostgresRuns) -> None:
    tally, inside = Tally(), asyncio.Event()

    async def go_on() -> None:
        async with entered(runs, tally=tally):
            tally.unresolved = 7
            inside.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(go_on())
        await inside.wait()
        running.cancel()
    assert running.cancelled()
    (run,) = book_of(db)
    assert (run["outcome"], run["reason"], run["tally"]) == ("stopped", None, tally.report())
    assert run["ended_at"] is not None


async def test_run_cancelled_while_it_saves_its_tally_was_stopped(
    db: Connection, runs: PostgresRuns
) -> None:
    inside = asyncio.Event()

    async def go_on() -> None:
        async with entered(runs) as note:
            inside.set()
            while True:
                await note()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(go_on())
        await inside.wait()
        await until(lambda: book_of(db)[0]["tally"])
        running.cancel()
    assert [run["outcome"] for run in book_of(db)] == ["stopped"]


@pytest.mark.parametrize("kind", [SWEEP, REFRESH, AUDIT, RunKind.RECHECK])
async def test_whole_run_excludes_others_with_the_same_search(
    runs: PostgresRuns, kind: RunKind
) -> None:
    async with entered(runs, kind):
        kept_out = {other for other in RunKind if await is_kept_out(runs, other, WHOLE)}
    assert (
        kept_out
        == {
            SWEEP: set(RunKind) - {RunKind.ROTATION, RunKind.RECHECK},
            RunKind.RECHECK: {RunKind.RECHECK},
            REFRESH: {REFRESH, SWEEP},
            AUDIT: {AUDIT, RunKind.BACKFILL, SWEEP},
        }[kind]
    )
    # The server lets go of the locks once it has seen that the session ended.
    while await is_kept_out(runs, kind, WHOLE):
        await asyncio.sleep(0.005)


async def test_walk_does_not_wait_for_another_and_reports_it(runs: PostgresRuns) -> None:
    kind, tally = RunKind.ROTATION, RotationTally(calls=3)
    async with runs.enter(kind, WHOLE, "test", tally, wait=False):
        with pytest.raises(RunGoesOnError):
            async with runs.enter(kind, WHOLE, "test", tally, wait=False):
                pass
        async with entered(runs, SWEEP):
            pass
    async with runs.enter(kind, WHOLE, "test", tally, wait=False):
        pass


async def test_walk_is_recorded_with_its_counts_under_their_names(
    db: Connection, runs: PostgresRuns, pool: Pool
) -> None:
    tally = RotationTally(calls=1, latency=timedelta(seconds=2))
    for identity in (1, 2, 3):
        tally.count(Refreshed(identity, RefreshStatus.WARMED))
    async with runs.enter(RunKind.ROTATION, WHOLE, "test", tally):
        pass
    (run,) = book_of(db)
    assert (run["kind"], run["outcome"]) == ("rotation", "done")
    assert run["tally"]["identities_scanned"] == 3
    # The time of a refresh says nothing about that of a bulk call.
    assert await read_pace(pool, BACKEND) is None


@pytest.mark.parametrize("kind", [SWEEP, AUDIT])
async def test_runs_over_different_shares_go_side_by_side(
    runs: PostgresRuns, kind: RunKind
) -> None:
    async with entered(runs, kind, SHARE):
        assert await is_kept_out(runs, kind, SHARE)
        assert not await is_kept_out(runs, kind, OTHER_SHARE)
        assert await is_kept_out(runs, kind, WHOLE)
    async with entered(runs, kind, WHOLE):
        assert await is_kept_out(runs, kind, SHARE)


async def test_shares_of_other_searches_do_not_wait(runs: PostgresRuns) -> None:
    async with entered(runs, REFRESH, SHARE):
        assert not await is_kept_out(runs, AUDIT, SHARE)
        assert not await is_kept_out(runs, AUDIT, WHOLE)


async def test_waiting_run_starts_when_the_other_has_ended(
    db: Connection, runs: PostgresRuns
) -> None:
    async def enter() -> None:
        async with entered(runs):
            pass

    async with asyncio.TaskGroup() as tasks:
        with capture_logs() as logs:
            async with entered(runs):
                tasks.create_task(enter())
                await until(lambda: logs)
                assert len(book_of(db)) == 1
    first, second = book_of(db)
    assert first["outcome"] == second["outcome"] == "done"
    assert second["started_at"] > first["ended_at"]
    assert len(logs) == 1


async def test_run_whose_session_is_ended_notices_and_excludes_no_other(
    db: Connection, runs: PostgresRuns
) -> None:
    async with entered(runs) as note:
        assert await is_kept_out(runs, AUDIT, WHOLE)
        end_run_sessions(db)
        assert not await is_kept_out(runs, AUDIT, WHOLE)
        with pytest.raises(StoreUnavailableError):
            await note()
    cut, other = book_of(db)
    assert cut["ended_at"] is cut["outcome"] is None
    assert other["outcome"] == "done"


async def test_end_of_a_run_whose_session_is_gone_is_not_an_error(
    db: Connection, runs: PostgresRuns
) -> None:
    with capture_logs() as logs:
        async with entered(runs):
            end_run_sessions(db)
    assert [(event["log_level"], event["outcome"]) for event in logs] == [("warning", "done")]
    assert book_of(db)[0]["outcome"] is None


async def test_run_takes_no_locks_on_the_backends_tables(
    dsn: str, db: Connection, runs: PostgresRuns
) -> None:
    row = add_release(db)
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(table("library"))
    with psycopg.connect(dsn) as backend:
        backend.execute(lock)
        async with entered(runs, SWEEP) as note:
            await note()
            backend.execute(
                sql.SQL("UPDATE {} SET artist_name = 'Nico' WHERE id = %s").format(
                    table("library")
                ),
                (row,),
            )
            backend.commit()
            backend.execute(lock)
    assert [run["outcome"] for run in book_of(db)] == ["done"]


async def test_run_cannot_be_entered_while_the_database_is_away(database: Database) -> None:
    nowhere = Database("postgresql:///nothing?host=/nowhere", BACKEND, "listener test")
    with pytest.raises(StoreUnavailableError):
        await PostgresRuns(nowhere).enter(AUDIT, WHOLE, "test", Tally()).__aenter__()


async def test_pace_is_that_of_the_latest_runs_that_asked_anything(
    pool: Pool, db: Connection, runs: PostgresRuns
) -> None:
    assert await read_pace(pool, BACKEND) is None
    for calls, milliseconds in ((1, 90_000), *[(2, 100)] * 9, (2, 1100), (0, 0)):
        latency = timedelta(milliseconds=milliseconds)
        async with entered(runs, tally=Tally(lml_calls=calls, lml_latency=latency)):
            pass
    assert await read_pace(pool, BACKEND) == timedelta(milliseconds=100)


def end_run_sessions(db: Connection) -> None:
    """End the sessions that hold locks of runs, and wait until they are gone."""
    db.execute(
        "SELECT pg_terminate_backend(l.pid, 5000) FROM pg_locks AS l"
        " WHERE l.locktype = 'advisory' AND l.classid = 1280528978 AND l.objid IN (3, 4)"
        " AND l.database = (SELECT d.oid FROM pg_database AS d"
        " WHERE d.datname = current_database())"
    )
