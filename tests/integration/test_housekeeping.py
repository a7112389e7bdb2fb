"""What nobody needs any more is cleared out, and nothing else."""

from __future__ import annotations

from collections import Counter

import psycopg
import pytest
import structlog
from psycopg import sql

from listener.adapters.postgres import housekeeping
from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.housekeeping import PostgresHousekeeping
from listener.domain.tally import Duty, Tally
from listener.domain.tracks import TrackCount
from tests.catalogue import add_release, delete_release, table
from tests.conftest import BACKEND, Connection, as_role
from tests.integration.conftest import Answers


@pytest.mark.parametrize("window", [2, 3, 100])
async def test_ledger_forgets_deleted_releases_only(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, db: Connection, answer: Answers, window: int
) -> None:
    monkeypatch.setattr(housekeeping, "_WINDOW", window)
    rows = [add_release(db) for _ in range(8)]
    never_asked = add_release(db)
    await answer(*rows)
    gone = {rows[0], rows[2], rows[3], rows[7]}
    for row in (*gone, never_asked):
        delete_release(db, row)
    before = ledger(db)
    assert await PostgresHousekeeping(pool, BACKEND, Counter()).clear() == len(gone)
    assert ledger(db) == {row: order for row, order in before.items() if row not in gone}
    assert await PostgresHousekeeping(pool, BACKEND, Counter()).clear() == 0


async def test_whole_window_of_deleted_releases_does_not_end_the_walk(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, db: Connection, answer: Answers
) -> None:
    monkeypatch.setattr(housekeeping, "_WINDOW", 2)
    rows = [add_release(db) for _ in range(6)]
    await answer(*rows)
    for row in rows[1:]:
        delete_release(db, row)
    assert await PostgresHousekeeping(pool, BACKEND, Counter()).clear() == 5
    assert list(ledger(db)) == rows[:1]


async def test_failed_duty_is_logged_and_counted_and_stops_no_other(
    dsn: str, db: Connection, role: str, answer: Answers
) -> None:
    row = add_release(db)
    await answer(row)
    delete_release(db, row)
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at)"
        " VALUES ('sweep', 'old', 'x', now() - interval '91 d')"
    )
    db.execute(
        "INSERT INTO listener.warmth (identity_id, status, asked_at, failures)"
        " VALUES (1, 'warmed', now() - interval '91 d', 0)"
    )
    db.execute(f"REVOKE DELETE ON listener.ledger, listener.run FROM {role}".encode())
    failures: Counter[Duty] = Counter()
    database = Database(as_role(dsn, role), BACKEND, "listener test")
    with structlog.testing.capture_logs() as logs:
        async with open_pool(database, size=1) as pool:
            assert await PostgresHousekeeping(pool, BACKEND, failures).clear() == 0
    assert failures == {Duty.LEDGER: 1, Duty.RUNS: 1}
    warned = [log["duty"] for log in logs if log["event"] == "housekeeping failed"]
    assert warned == ["ledger", "runs"]
    assert db.execute("SELECT FROM listener.warmth").fetchall() == []


async def test_neglected_outbox_is_coalesced_to_one_change_per_row(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, db: Connection
) -> None:
    monkeypatch.setattr(housekeeping, "_MANY_CHANGES", 5)
    monkeypatch.setattr(housekeeping, "_CHANGES", 7)
    rows = [add_release(db) for _ in range(10)]
    for title in ("Hex", "Dots"):
        db.execute("UPDATE wxyc_schema.library SET album_title = %s", (title,))
    db.execute(
        "INSERT INTO listener.change (stream, row_id) VALUES ('rotation', 1), ('rotation', 1)"
    )
    before = db.execute("SELECT max(seq) FROM listener.change WHERE stream = 'library'").fetchone()
    assert await PostgresHousekeeping(pool, BACKEND, Counter()).coalesce() == 20
    left = db.execute(
        "SELECT stream, row_id, seq FROM listener.change ORDER BY stream, seq"
    ).fetchall()
    assert [row for stream, row, _ in left if stream == "library"] == rows
    assert [seq for stream, _, seq in left if stream == "library"][-1:] == list(before or ())
    # Few enough to be left alone.
    assert len(left) == len(rows) + 2


async def test_change_whose_later_one_is_not_committed_is_left(
    monkeypatch: pytest.MonkeyPatch, dsn: str, pool: Pool, db: Connection
) -> None:
    monkeypatch.setattr(housekeeping, "_MANY_CHANGES", 0)
    row = add_release(db)
    housekeeper = PostgresHousekeeping(pool, BACKEND, Counter())
    with psycopg.connect(dsn) as writer:
        writer.execute("UPDATE wxyc_schema.library SET album_title = 'Hex' WHERE id = %s", (row,))
        assert await housekeeper.coalesce() == 0
        writer.rollback()
    assert db.execute("SELECT row_id FROM listener.change").fetchall() == [(row,)]


async def test_old_runs_are_forgotten(pool: Pool, db: Connection) -> None:
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at) VALUES"
        " ('sweep', 'old', 'x', now() - interval '91 d'),"
        " ('sweep', 'young', 'x', now() - interval '89 d')"
    )
    assert await PostgresHousekeeping(pool, BACKEND, Counter()).clear() == 0
    assert db.execute("SELECT cause FROM listener.run").fetchall() == [("young",)]


async def test_refresh_calls_and_identities_of_long_ago_are_forgotten(
    pool: Pool, db: Connection
) -> None:
    db.execute(
        "INSERT INTO listener.refresh"
        " (errand, known, holder, identities, cost, started_at, ended_at) VALUES"
        " ('walk', true, 'old', 1, 1, now() - interval '8 d', now() - interval '8 d'),"
        " ('walk', true, 'died', 1, 1, now() - interval '8 d', 'infinity'),"
        " ('walk', true, 'young', 1, 1, now() - interval '6 d', now() - interval '6 d'),"
        " ('walk', true, 'in flight', 1, 1, now(), 'infinity')"
    )
    db.execute(
        "INSERT INTO listener.warmth (identity_id, status, asked_at, failures) VALUES"
        " (91, 'warmed', now() - interval '91 d', 0), (89, 'warmed', now() - interval '89 d', 0)"
    )
    await PostgresHousekeeping(pool, BACKEND, Counter()).clear()
    calls = db.execute("SELECT holder FROM listener.refresh ORDER BY 1").fetchall()
    assert calls == [("in flight",), ("young",)]
    assert db.execute("SELECT identity_id FROM listener.warmth").fetchall() == [(89,)]


async def test_failures_of_deleted_rotation_rows_are_forgotten(pool: Pool, db: Connection) -> None:
    kept, deleted = (
        db.execute(
            sql.SQL("INSERT INTO {} (rotation_bin) VALUES ('H') RETURNING id").format(
                table("rotation")
            )
        ).fetchall()[0][0]
        for _ in range(2)
    )
    db.execute(
        "INSERT INTO listener.rotation_failure (row_id, failures, failure_detail, failed_at,"
        " next_ask_at) SELECT n, 1, 'why', now(), now() FROM unnest(%s::int[]) AS n",
        ([kept, deleted],),
    )
    db.execute(sql.SQL("DELETE FROM {} WHERE id = %s").format(table("rotation")), (deleted,))
    assert await PostgresHousekeeping(pool, BACKEND, Counter()).clear() == 0
    left = db.execute("SELECT row_id FROM listener.rotation_failure").fetchall()
    assert left == [(kept,)]


def tally_of(rows: int) -> Tally:
    return Tally(tracks=Counter({TrackCount.ROWS_WRITTEN: rows}))


def analyzed(db: Connection) -> bool:
    """Whether PostgreSQL ever counted the rows of the track artists."""
    query = sql.SQL("SELECT reltuples >= 0 FROM pg_class WHERE oid = {}::regclass")
    name = table("compilation_track_artist").as_string(db)
    return db.execute(query.format(name)).fetchone() == (True,)


async def test_run_that_wrote_a_lot_collects_new_statistics(pool: Pool, db: Connection) -> None:
    housekeeper = PostgresHousekeeping(pool, BACKEND, Counter())
    assert not await housekeeper.analyze_tracks(tally_of(999))
    assert not analyzed(db)
    assert await housekeeper.analyze_tracks(tally_of(1000))
    assert analyzed(db)


async def test_role_without_the_right_to_analyze_does_without_statistics(
    dsn: str, db: Connection, role: str
) -> None:
    database = Database(as_role(dsn, role), BACKEND, "listener test")
    async with open_pool(database, size=1) as pool:
        assert not await PostgresHousekeeping(pool, BACKEND, Counter()).analyze_tracks(
            tally_of(1000)
        )
    assert not analyzed(db)


async def test_concurrent_analyze_is_not_waited_for(dsn: str, pool: Pool, db: Connection) -> None:
    lock = sql.SQL("LOCK {} IN SHARE UPDATE EXCLUSIVE MODE")
    with psycopg.connect(dsn) as vacuum:
        vacuum.execute(lock.format(table("compilation_track_artist")))
        assert not await PostgresHousekeeping(pool, BACKEND, Counter()).analyze_tracks(
            tally_of(1000)
        )
    assert not analyzed(db)


def ledger(db: Connection) -> dict[object, object]:
    rows = db.execute("SELECT library_id, ask_order FROM listener.ledger ORDER BY 1").fetchall()
    return {row[0]: row[1] for row in rows}
