"""What is being played: reading it, filling in identities, raising what is due."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from listener.adapters.postgres.connection import Database, Pool, open_session
from listener.adapters.postgres.rotation import PostgresRotation
from listener.adapters.postgres.sessions import query, times_of
from listener.domain.faults import StoreRefusedError
from listener.domain.refreshing import (
    Played,
    RefreshStatus,
    RotationCoverage,
    RotationFailure,
    Standing,
)
from listener.domain.retrying import Retry
from tests.catalogue import add_identity, add_release, entries, outbox_size, rename, table, waiting
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import ASK_AGAIN, Answers

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def rotation(pool: Pool) -> PostgresRotation:
    """Read and fill rotation rows."""
    return PostgresRotation(pool, BACKEND, ASK_AGAIN)


def play(
    db: Connection,
    identity: int | None = None,
    release: int | None = None,
    album: int | None = None,
    killed: int | None = None,
) -> int:
    """Put a release into rotation, to end in the given number of days; return the row's id."""
    row = db.execute(
        sql.SQL(
            "INSERT INTO {}"
            " (rotation_bin, lml_identity_id, discogs_release_id, album_id, kill_date)"
            " VALUES ('H', %s, %s, %s, CURRENT_DATE + %s::int) RETURNING id"
        ).format(table("rotation")),
        (identity, release, album, killed),
    ).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def settle_all(db: Connection) -> None:
    db.execute("DELETE FROM listener.change")


def remember(db: Connection, identity: int, status: str = "warmed", ago: str = "1 h") -> None:
    db.execute(
        "INSERT INTO listener.warmth (identity_id, status, asked_at, failures)"
        " VALUES (%s, %s, now() - %s::interval, (%s = 'error')::int)",
        (identity, status, ago, status),
    )


def identity_of(db: Connection, row_id: int) -> object:
    found = db.execute(
        sql.SQL("SELECT lml_identity_id FROM {} WHERE id = %s").format(table("rotation")), (row_id,)
    ).fetchone()
    assert found is not None
    return found[0]


async def test_rows_are_read_while_they_are_played(
    db: Connection, rotation: PostgresRotation
) -> None:
    album = add_release(db)
    for_good, until_tomorrow = play(db, 7, 70, album), play(db, 8, killed=1)
    until_today, until_yesterday = play(db, 9, killed=0), play(db, 9, killed=-1)
    bare = play(db, release=90)
    remember(db, 8)
    rows = [for_good, until_tomorrow, until_today, until_yesterday, bare, 999_999]
    assert await rotation.read(rows) == [
        Played(for_good, 7, 70, album, known=False, artist="Stereolab", title="Dots and Loops"),
        Played(until_tomorrow, 8, None, None, known=True),
        Played(bare, None, 90, None, known=False),
    ]


@pytest.mark.parametrize(
    ("status", "ago", "known"),
    [
        ("warmed", "1 h", True),
        ("not_found", "6 d", True),
        ("error", "1 h", False),
        ("warmed", "8 d", False),
    ],
)
async def test_identity_is_known_if_lml_recently_gave_a_useful_answer(
    db: Connection, rotation: PostgresRotation, status: str, ago: str, known: bool
) -> None:
    row = play(db, 7)
    remember(db, 7, status, ago)
    (played,) = await rotation.read([row])
    assert played.known is known
    assert await rotation.identities(datetime.now(UTC)) == {7: Standing(known)}


async def test_minted_identity_is_written_only_where_missing_and_not_captured(
    db: Connection, rotation: PostgresRotation
) -> None:
    first, second = play(db, release=5), play(db, release=5)
    settle_all(db)
    rows = await rotation.read([first, second])
    assert await rotation.fill({5: 77}, rows) == {first: True, second: True}
    assert identity_of(db, first) == identity_of(db, second) == 77
    assert outbox_size(db) == 0


@pytest.mark.parametrize(
    ("column", "value", "left"), [("lml_identity_id", 3, 3), ("discogs_release_id", 6, None)]
)
async def test_row_that_changed_meanwhile_is_left_unchanged(
    db: Connection, rotation: PostgresRotation, column: str, value: int, left: int | None
) -> None:
    row, other = play(db, release=5), play(db, release=5)
    rows = await rotation.read([row, other])
    db.execute(
        sql.SQL("UPDATE {} SET {} = %s WHERE id = %s").format(
            table("rotation"), sql.Identifier(column)
        ),
        (value, row),
    )
    assert await rotation.fill({5: 77}, rows) == {row: False, other: True}
    assert identity_of(db, row) == left


async def test_locked_row_is_not_waited_for_and_a_deleted_one_not_missed(
    dsn: str, db: Connection, rotation: PostgresRotation
) -> None:
    locked, deleted, free = (play(db, release=release) for release in (5, 6, 7))
    rows = await rotation.read([locked, deleted, free])
    db.execute(sql.SQL("DELETE FROM {} WHERE id = %s").format(table("rotation")), (deleted,))
    with psycopg.connect(dsn) as writer:
        writer.execute(
            sql.SQL("SELECT FROM {} WHERE id = %s FOR UPDATE").format(table("rotation")), (locked,)
        )
        assert await rotation.fill({5: 75, 6: 76, 7: 77}, rows) == {free: True}
    assert identity_of(db, locked) is None


async def test_nothing_is_written_while_a_trigger_of_the_backend_would_wait(
    dsn: str, db: Connection, rotation: PostgresRotation
) -> None:
    row = play(db, release=5)
    rows = await rotation.read([row])
    with psycopg.connect(dsn) as importer:
        importer.execute(
            sql.SQL("UPDATE {} SET last_modified_at = now()").format(table("library_watermark"))
        )
        assert await rotation.fill({5: 75}, rows) == {}
    assert await rotation.fill({5: 75}, rows) == {row: True}


async def test_each_identity_is_found_once_the_known_ones_first(
    db: Connection, rotation: PostgresRotation
) -> None:
    for identity in (9, 7, 9, None, 8):
        play(db, identity)
    play(db, 5, killed=0)
    play(db, 6, killed=1)
    remember(db, 8)
    found = await rotation.identities(datetime.now(UTC))
    assert {i: each.known for i, each in found.items()} == {8: True, 6: False, 7: False, 9: False}
    assert list(found) == [8, 6, 7, 9]


async def test_useful_answer_since_then_is_found_with_each_identity(
    db: Connection, rotation: PostgresRotation
) -> None:
    for identity in range(1, 7):
        play(db, identity)
    remember(db, 1, ago="10 min")
    remember(db, 2, "not_found", ago="10 min")
    remember(db, 3, "error", ago="10 min")
    remember(db, 4, ago="2 h")
    # The clock was set back since.
    remember(db, 6, ago="-5 h")
    since = await rotation.now() - timedelta(hours=1)
    assert await rotation.identities(since) == {
        1: Standing(known=True, answered=RefreshStatus.WARMED),
        2: Standing(known=True, answered=RefreshStatus.NOT_FOUND),
        4: Standing(known=True),
        6: Standing(known=True),
        3: Standing(known=False),
        5: Standing(known=False),
    }


async def test_coverage_counts_active_rows_by_whether_they_can_be_warmed(
    db: Connection, rotation: PostgresRotation
) -> None:
    assert await rotation.coverage() == RotationCoverage(0, 0, 0, 0, 1.0, 0, 0)
    play(db, 7, 70)
    play(db, 7, 71)
    play(db, 8)
    play(db, release=72)
    play(db)
    play(db, 9, 90, killed=0)
    remember(db, 7)
    remember(db, 8, ago="25 h")
    remember(db, 9)
    (coldest,) = db.execute("SELECT min(renewed_at) FROM listener.warmth").fetchall()[0]
    covered = RotationCoverage(5, 3, 3, 2, 2 / 3, 2, 2, coldest=coldest)  # type: ignore[arg-type]
    assert await rotation.coverage() == covered


async def test_release_that_was_never_asked_about_is_raised_once(
    db: Connection, rotation: PostgresRotation
) -> None:
    album, nameless = add_release(db), add_release(db, None)
    settle_all(db)
    assert await rotation.raise_releases([album, nameless, 999_999]) == 1
    assert await rotation.raise_releases([album]) == 0
    assert waiting(db, "library") == [album]


async def test_release_that_is_answered_is_not_raised_until_it_is_due(
    db: Connection, rotation: PostgresRotation, answer: Answers
) -> None:
    album = add_release(db)
    await answer(album)
    settle_all(db)
    assert await rotation.raise_releases([album]) == 0
    rename(db, album, "Another")
    settle_all(db)
    assert await rotation.raise_releases([album]) == 1
    await answer(album)
    settle_all(db)
    assert await rotation.raise_releases([album]) == 0
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    assert await rotation.raise_releases([album]) == 1
    settle_all(db)
    # What failed has a time and a feed of its own, unless the row has changed since.
    db.execute("UPDATE listener.ledger SET failures = 1")
    assert await rotation.raise_releases([album]) == 0
    rename(db, album, "Yet another")
    settle_all(db)
    assert await rotation.raise_releases([album]) == 1


async def test_release_whose_identity_is_verified_elsewhere_is_not_raised(
    db: Connection, rotation: PostgresRotation
) -> None:
    fresh, old = add_release(db), add_release(db)
    add_identity(db, fresh)
    add_identity(db, old, verified_ago=timedelta(days=8))
    settle_all(db)
    await rotation.raise_releases([fresh, old])
    assert waiting(db, "library") == [old]


async def test_raised_change_wakes_a_sleeper_and_spares_one_that_is_awake(
    dsn: str, db: Connection, rotation: PostgresRotation
) -> None:
    album = add_release(db)
    row = play(db, release=5)
    settle_all(db)
    with psycopg.connect(dsn, autocommit=True) as sleeper:
        sleeper.execute("LISTEN listener_library; LISTEN listener_rotation")
        assert await rotation.raise_releases([album]) == 1
        assert await rotation.raise_unminted() == 1
        woken = {note.channel for note in sleeper.notifies(timeout=5, stop_after=2)}
        assert woken == {"listener_library", "listener_rotation"}
        settle_all(db)
        # What a daemon holds while it is awake.
        sleeper.execute("SELECT pg_advisory_lock(1280528978, 1), pg_advisory_lock(1280528978, 2)")
        assert await rotation.raise_releases([album]) == 1
        assert await rotation.raise_unminted() == 1
        assert not list(sleeper.notifies(timeout=0.2, stop_after=1))
    assert (waiting(db, "library"), waiting(db, "rotation")) == ([album], [row])


@pytest.mark.parametrize("stream", ["library", "rotation"])
async def test_raised_change_has_a_transaction_id_before_it_has_a_seq(
    db: Connection, rotation: PostgresRotation, stream: str
) -> None:
    album = add_release(db)
    row = play(db, release=5)
    settle_all(db)
    # By the time that a row is about to be inserted it has its seq.
    db.execute(
        "CREATE FUNCTION public.require_id() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " IF pg_current_xact_id_if_assigned() IS NULL THEN RAISE 'seq % came first', NEW.seq;"
        " END IF; RETURN NEW; END$$;"
        "CREATE TRIGGER requiring BEFORE INSERT ON listener.change FOR EACH ROW"
        " EXECUTE FUNCTION public.require_id()"
    )
    if stream == "library":
        assert await rotation.raise_releases([album]) == 1
    else:
        assert await rotation.raise_unminted() == 1
    assert waiting(db, stream) == [album if stream == "library" else row]


def failed(row: int, failures: int = 1, *, after: timedelta = timedelta(0)) -> RotationFailure:
    return RotationFailure(row, "LML answered 422", Retry(failures, after))


def failures(db: Connection) -> list[tuple[object, ...]]:
    return db.execute(
        "SELECT row_id, failures, failure_detail, next_ask_at - failed_at"
        " FROM listener.rotation_failure ORDER BY row_id"
    ).fetchall()


def let_pass(db: Connection, hours: int) -> None:
    """Let time go by for every row of the rotation that failed."""
    db.execute(
        "UPDATE listener.rotation_failure SET failing_since = failing_since - %(by)s,"
        " failed_at = failed_at - %(by)s, next_ask_at = next_ask_at - %(by)s",
        {"by": timedelta(hours=hours)},
    )


async def test_failed_row_is_recorded_and_its_changes_are_settled(
    db: Connection, rotation: PostgresRotation
) -> None:
    row, other = play(db, release=5), play(db, release=6)
    db.execute("INSERT INTO listener.change (stream, row_id) VALUES ('library', %s)", (row,))
    batch = [entry for entry in entries(db) if entry[1] == row]
    db.execute("INSERT INTO listener.change (stream, row_id) VALUES ('rotation', %s)", (row,))
    wait = timedelta(seconds=5)
    await rotation.fail([failed(row, after=wait)], batch)
    assert failures(db) == [(row, 1, "LML answered 422", wait)]
    # What came since, and what is not of this stream, stays.
    assert (waiting(db, "rotation"), waiting(db, "library")) == ([other, row], [row])


async def test_failures_of_a_row_are_counted_since_the_first(
    db: Connection, rotation: PostgresRotation
) -> None:
    row, well = play(db, release=5), play(db, release=6)
    await rotation.fail([failed(row)], [])
    let_pass(db, 5)
    await rotation.fail([failed(row, 2)], [])
    let_pass(db, 1)
    played, other = await rotation.read([row, well])
    assert other.failing is None
    assert played.failing is not None
    assert (played.failing.failures, played.failing.parked) == (2, False)
    minute = timedelta(minutes=1)
    assert timedelta(hours=6) <= played.failing.lasting < timedelta(hours=6) + minute
    assert timedelta(hours=1) <= played.failing.ago < timedelta(hours=1) + minute
    # A change begins afresh.
    await rotation.fail([failed(row, 1)], [])
    (played,) = await rotation.read([row])
    assert played.failing is not None
    assert (played.failing.failures, played.failing.lasting < minute) == (1, True)


async def test_settled_row_has_no_recorded_failures(
    db: Connection, rotation: PostgresRotation
) -> None:
    row, retried, other = (play(db, release=release) for release in (5, 6, 7))
    await rotation.fail([failed(row), failed(retried), failed(other)], [])
    settled, kept = entries(db)[0], entries(db)[1:]
    # The second one came by its time, not by a change.
    await rotation.settle([settled], [row, retried])
    assert [found[0] for found in failures(db)] == [other]
    assert entries(db) == kept


async def test_failures_are_recorded_and_forgotten_only_with_their_changes(
    db: Connection, rotation: PostgresRotation
) -> None:
    row, other = play(db, release=5), play(db, release=6)
    await rotation.fail([failed(row)], [])
    recorded, changes = failures(db), entries(db)
    db.execute(
        "CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE 'kept'; END $$;"
        " CREATE TRIGGER kept BEFORE DELETE ON listener.change EXECUTE FUNCTION kept()"
    )
    with pytest.raises(StoreRefusedError):
        await rotation.fail([failed(row, 2), failed(other)], changes)
    with pytest.raises(StoreRefusedError):
        await rotation.settle(changes, [row])
    assert (failures(db), entries(db)) == (recorded, changes)


async def test_longest_due_failures_are_retried_first(
    db: Connection, rotation: PostgresRotation
) -> None:
    rows = [play(db, release=5) for _ in range(4)]
    hours = (-1, -3, 1, -2)
    await rotation.fail(
        [failed(row, after=timedelta(hours=after)) for row, after in zip(rows, hours, strict=True)],
        [],
    )
    assert await rotation.retries(10) == [rows[1], rows[3], rows[0]]
    assert await rotation.retries(2) == [rows[1], rows[3]]


async def test_rows_that_could_have_an_identity_are_raised_once(
    db: Connection, rotation: PostgresRotation
) -> None:
    bare = play(db, release=5)
    play(db, 7, 70)
    play(db)
    play(db, release=6, killed=0)
    settle_all(db)
    assert await rotation.raise_unminted() == 1
    assert await rotation.raise_unminted() == 0
    assert waiting(db, "rotation") == [bare]


PARAMETERS: dict[str, dict[str, Any]] = {
    "read_rotation": {"row_ids": [1], "recent": timedelta(days=7)},
    "settle_changes": {"stream": "rotation", "seqs": [1]},
    "forget_rotation_failures": {"row_ids": [1]},
    "record_rotation_failures": {
        "row_ids": [1],
        "failure_counts": [1],
        "ask_agains": [1.0],
        "details": ["x"],
    },
    "find_failed_rotation": {"limit": 10},
    "fill_identities": {"row_ids": [1], "release_ids": [1], "identity_ids": [1]},
    "raise_due_releases": {"library_ids": [1]} | times_of(ASK_AGAIN),
    "note_warmth": {"identity_ids": [1], "statuses": ["warmed"]},
}


@pytest.mark.parametrize("name", PARAMETERS)
async def test_statements_of_changes_reach_rows_by_key_whatever_the_size(
    database: Database, db: Connection, name: str
) -> None:
    connection = await open_session(database)
    try:
        statement = query(name, BACKEND).replace(b"%b", b"%s").replace(b")b", b")s")
        explained = await connection.execute(b"EXPLAIN " + statement, PARAMETERS[name])
        plan = "\n".join([line for (line,) in await explained.fetchall()])
    finally:
        await connection.close()
    for big in ("rotation", "library", "ledger", "change", "warmth", "library_identity"):
        assert f"Seq Scan on {big} " not in plan, plan
        assert f"Seq Scan on {big}\n" not in plan, plan


async def test_statements_stay_fast_on_a_large_rotation(
    db: Connection, rotation: PostgresRotation, unseen: Connection
) -> None:
    unseen.execute(
        sql.SQL(
            "INSERT INTO {} (rotation_bin, lml_identity_id, discogs_release_id, kill_date)"
            " SELECT 'H', n, n, CASE WHEN n > 400 THEN CURRENT_DATE - 1 END"
            " FROM generate_series(1, 40000) AS n"
        ).format(table("rotation"))
    )
    # Planned while the tables were empty, and never again.
    assert len(await rotation.read([*range(1, 51)])) == 50
    began = asyncio.get_running_loop().time()
    for start in range(1, 400, 50):
        assert len(await rotation.read([*range(start, start + 50)])) == 50
    assert len(await rotation.identities(LONG_AGO)) == 400
    assert asyncio.get_running_loop().time() - began < 2
