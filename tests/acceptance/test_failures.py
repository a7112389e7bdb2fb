"""Rows that cannot be answered delay none that can."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from listener.simulator import Simulator
from tests.acceptance.breaking import ARTIST
from tests.acceptance.conftest import Commands, Daemon, Start, asked, eventually
from tests.acceptance.test_daemon import (
    add_releases,
    all_answered,
    end_sessions,
    settled,
    unanswered,
)
from tests.acceptance.test_site import ANY_PORT, Site
from tests.catalogue import add_release, count, outbox_size, rename, table
from tests.conftest import BACKEND, Connection

pytestmark = pytest.mark.timeout(120)

# What a poll would find anyway shows nothing about wake-ups and feeds.
SLOW_POLL = {"POLL_INTERVAL": "1h"}


def failing(db: Connection) -> dict[int, tuple[int, str, bool]]:
    """Return failures in a row, reason and whether it is parked, of every row that fails."""
    rows: list[Any] = db.execute(
        "SELECT library_id, failures, failure, parked FROM listener.ledger WHERE failures > 0"
    ).fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def has_identity(db: Connection, row: int) -> bool:
    found = db.execute(
        sql.SQL("SELECT FROM {} WHERE library_id = %s").format(table("library_identity")), (row,)
    )
    return found.fetchone() is not None


def is_answered_meanwhile(db: Connection, artist: str = "Newcomer") -> None:
    """See a new release answered beside whatever fails."""
    row = add_release(db, artist)
    eventually(lambda: has_identity(db, row))


def outages(daemon: Daemon) -> int:
    return daemon.logged("LML unavailable, keeping changes in the outbox")


@contextmanager
def locked(dsn: str, statement: str) -> Iterator[None]:
    """Hold what a statement locks, in a transaction of the backend's."""
    with psycopg.connect(dsn) as connection:
        connection.execute(sql.SQL(statement).format(backend=sql.Identifier(BACKEND)))
        yield


def refuse_writes(db: Connection, condition: str, sqlstate: str) -> None:
    """Let a trigger of the backend's raise for some of the identities that are written."""
    db.execute(
        sql.SQL(
            "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF {condition} THEN RAISE EXCEPTION 'row %% is secret', NEW.library_id"
            " USING ERRCODE = {sqlstate}; END IF; RETURN NEW; END $$;"
            " CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {identity}"
            " FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()".replace("%%", "%")
        ).format(
            schema=sql.Identifier(BACKEND),
            identity=table("library_identity"),
            condition=sql.SQL(condition),
            sqlstate=sql.Literal(sqlstate),
        )
    )


@pytest.mark.parametrize(
    ("fault", "letters"), [("repeated_source", None), ("unknown_kind", "Z"), ("nan", None)]
)
def test_forty_useless_verdicts_delay_no_other_row(
    db: Connection, start: Start, simulator: Simulator, fault: str, letters: str | None
) -> None:
    simulator.faults.add(fault, artist="Bad", rows=None)
    bad = [add_release(db, "Good once", f"Album {n}", letters) for n in range(40)]
    daemon = start(**SLOW_POLL).following()
    eventually(lambda: all_answered(db))
    simulator.calls.reset()
    db.execute(
        sql.SQL("UPDATE {} SET artist_name = 'Bad' WHERE id = ANY (%s)").format(table("library")),
        (bad,),
    )
    eventually(lambda: settled(db) and failing(db).keys() == set(bad))
    for _ in range(3):
        is_answered_meanwhile(db)
    eventually(lambda: all(times > 1 for times, _, _ in failing(db).values()), 30)
    assert {reason for _, reason, _ in failing(db).values()} == {"lml_invalid"}
    assert not any(parked for _, _, parked in failing(db).values())
    assert max(Counter(asked(simulator))[row] for row in bad) <= 5
    assert not outages(daemon)

    simulator.faults.clear()
    eventually(lambda: all_answered(db), 40)


@pytest.mark.parametrize("fault", ["truncated_json", "invalid_utf8", "no_results", "gzip_bomb"])
def test_unreadable_replies_are_an_outage(
    db: Connection, start: Start, simulator: Simulator, fault: str
) -> None:
    simulator.faults.add(fault, endpoint="bulk")
    add_releases(db, 1_000)
    for n in range(200):
        add_release(db, "Various Artists", f"Sampler {n}")
    daemon = start(**SLOW_POLL).following()
    eventually(lambda: outages(daemon) >= 2, 60)
    assert daemon.logged("LML answers again") == 0
    # The page of each kind, with its first and last row, and a trial.
    assert simulator.calls.counts["bulk"] <= 12
    simulator.faults.clear()
    eventually(lambda: all_answered(db), 60)
    assert not any(parked for _, _, parked in failing(db).values())


def test_unreadable_reply_about_one_row_delays_no_other(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.faults.add("truncated_json", artist="Poison")
    add_releases(db, 400)
    row = add_release(db, "Poison")
    add_releases(db, 400)
    daemon = start(**SLOW_POLL).following()
    eventually(lambda: unanswered(db) == [row] and settled(db), 60)
    is_answered_meanwhile(db)
    assert failing(db).keys() == {row}
    assert not outages(daemon)


def test_rows_locked_by_a_transaction_delay_no_other_row(
    db: Connection, dsn: str, owner_dsn: str, start: Start, simulator: Simulator
) -> None:
    add_releases(db, 6_000)
    statement = "SELECT FROM {backend}.library FOR UPDATE"
    with locked(owner_dsn, statement):
        start(**SLOW_POLL).following()
        eventually(lambda: len(failing(db)) == 6_000, 30)
        assert outbox_size(db) == 0
        is_answered_meanwhile(db)
        # Another attempt after the first delay, and none beside it.
        assert max(Counter(asked(simulator)).values()) <= 3
    eventually(lambda: all_answered(db), 60)


def test_row_that_alternates_between_two_names_takes_one_place(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.faults.add("status", status=422, body="detail", artist="Poison")
    row = add_release(db, "Poison A")
    start(BATCH_SIZE="50", VA_BATCH_SIZE="50", **SLOW_POLL).following()
    for flip in range(600):
        rename(db, row, f"Poison {'AB'[flip % 2]}")
        if flip % 200 == 100:
            is_answered_meanwhile(db)
    is_answered_meanwhile(db)
    eventually(lambda: settled(db))
    assert failing(db).keys() == {row}
    assert Counter(asked(simulator))[row] <= 40


@pytest.mark.parametrize("sqlstate", ["WX001", "55000", "42501", "53400"])
def test_row_that_the_backend_refuses_fails_alone(
    db: Connection, start: Start, simulator: Simulator, sqlstate: str
) -> None:
    add_releases(db, 200)
    refuse_writes(db, "NEW.library_id = 7", sqlstate)
    daemon = start(**SLOW_POLL)
    eventually(lambda: count(db, "library_identity") == 199)
    eventually(lambda: settled(db) and failing(db).keys() == {7})
    assert failing(db)[7][1] == "writer_error"
    assert max(Counter(asked(simulator))[row] for row in range(1, 201) if row != 7) == 1
    detail = db.execute("SELECT failure_detail FROM listener.ledger WHERE failures > 0").fetchone()
    assert detail == (f"a rule of the database's own ({sqlstate})",)
    assert not any("secret" in line for line in daemon.lines)


def test_unforeseen_error_fails_its_row_alone(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    add_releases(db, 100)
    row = add_release(db, ARTIST)
    daemon = start("tests.acceptance.breaking", **SLOW_POLL)
    eventually(lambda: count(db, "library_identity") == 100)
    eventually(lambda: settled(db) and failing(db).keys() == {row})
    assert Counter(asked(simulator))[row] <= 6
    assert daemon.logged("unexpected error, isolating its rows")
    is_answered_meanwhile(db)


def test_sweep_reports_leftover_changes_that_all_fail(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(db, 200, ARTIST)
    ran = listener.run("sweep", "--json", module="tests.acceptance.breaking")
    assert ran.code in {1, 2}
    assert ran.report["scanned"] >= 200
    assert ran.report["rows_skipped"]["lml_error"] >= 200
    assert outbox_size(db) == 0
    assert len(failing(db)) == 200


def test_migration_under_a_running_daemon_costs_seconds(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    add_releases(db, 20)
    daemon = start(**SLOW_POLL)
    eventually(lambda: all_answered(db))
    # A migration makes anew what is generated from the columns, or defined on them.
    db.execute(
        sql.SQL(
            "DROP TRIGGER touch_library_watermark ON {0}; ALTER TABLE {0} DROP search_doc"
        ).format(table("library"))
    )
    for name, width in (("artist_name", 256), ("album_title", 300), ("artist_name", 400)):
        db.execute(
            sql.SQL("ALTER TABLE {} ALTER {} TYPE varchar({})").format(
                table("library"), sql.Identifier(name), sql.Literal(width)
            )
        )
        is_answered_meanwhile(db, f"After {width}")
        add_releases(db, 50)
        eventually(lambda: all_answered(db))
    assert not failing(db)
    assert daemon.process.poll() is None


def test_dropped_column_turns_readiness_red_until_it_is_back(
    db: Connection, start: Start, listener: Commands
) -> None:
    first, second = start(**SLOW_POLL), start(**SLOW_POLL)
    eventually(lambda: first.logged("following") + second.logged("following") == 2)
    swap = sql.SQL("ALTER TABLE {} RENAME {} TO {}")
    names = [sql.Identifier("legacy_release_id"), sql.Identifier("former_id")]
    db.execute(swap.format(table("library"), *names))
    row = add_release(db, "Not to be read")

    def streams() -> dict[str, dict[str, object]]:
        report = json.loads(listener.run("status", "--json").stdout)
        return {each["stream"]: each for each in report["streams"]}

    eventually(lambda: "legacy_release_id" in str(streams()["library"]["fault"]), 30)
    # A daemon that gives the lane up lets the other one try.
    eventually(lambda: first.logged("following") + second.logged("following") >= 3, 30)
    assert outbox_size(db) == 1
    db.execute(swap.format(table("library"), *reversed(names)))
    eventually(lambda: has_identity(db, row), 30)
    eventually(lambda: streams()["library"]["fault"] is None, 30)


@pytest.mark.parametrize("name", ["library_identity", "library_identity_history"])
def test_table_that_is_locked_for_a_while_leaves_no_trace(
    db: Connection, owner_dsn: str, start: Start, name: str
) -> None:
    add_releases(db, 30)
    daemon = start(**SLOW_POLL)
    eventually(lambda: all_answered(db))
    with locked(owner_dsn, f"LOCK TABLE {{backend}}.{name} IN SHARE MODE"):
        db.execute(sql.SQL("UPDATE {} SET artist_name = 'Other'").format(table("library")))
        eventually(lambda: bool(failing(db)))
    eventually(lambda: all_answered(db), 40)
    daemon_errors = [event for event in daemon.events if event["level"] == "error"]
    assert not daemon_errors
    is_answered_meanwhile(db)


@pytest.mark.parametrize(
    "fault",
    [
        {"name": "status", "status": 500, "body": "text"},
        {"name": "status", "status": 422},
        {"name": "status", "status": 413},
        {"name": "truncated_json"},
        {"name": "empty_results"},
        {"name": "nan", "rows": None},
        {"name": "confidence_high", "rows": None},
    ],
    ids=lambda fault: f"{fault['name']} {fault.get('status', '')}".strip(),
)
def test_entirely_wrong_lml_is_blamed_on_no_row(
    db: Connection, start: Start, simulator: Simulator, fault: dict[str, object]
) -> None:
    rows = [add_release(db, f"Artist {n}") for n in range(5)]
    start(MAX_ATTEMPTS="1", LML_ATTEMPTS="1", **SLOW_POLL)
    eventually(lambda: all_answered(db))
    simulator.faults.add(**fault)  # type: ignore[arg-type]
    for row in rows:
        rename(db, row, f"Edited {row}")
    eventually(lambda: failing(db).keys() == set(rows), 40)
    # What cannot be read is an outage: then one row is tried at a time.
    eventually(lambda: sum(failures for failures, _, _ in failing(db).values()) >= 7, 40)
    assert not any(parked for _, _, parked in failing(db).values())
    simulator.faults.clear()
    eventually(lambda: all_answered(db), 40)


# What is done to the backend's schema, how it is undone, and what the database says in between.
BREAKAGES = {
    "key": (
        "ALTER TABLE {identity} DROP CONSTRAINT library_identity_pkey CASCADE",
        "ALTER TABLE {identity} ADD PRIMARY KEY (library_id)",
        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    ),
    "column": (
        """ALTER TABLE {identity} ADD wanted int NOT NULL DEFAULT 1;
        ALTER TABLE {identity} ALTER wanted DROP DEFAULT""",
        "ALTER TABLE {identity} DROP wanted",
        'null value in column "wanted" of relation "library_identity" violates not-null constraint',
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_schema_that_accepts_no_verdict_turns_readiness_red_and_is_blamed_on_no_row(
    db: Connection, start: Start, listener: Commands, name: str
) -> None:
    damage, repair, why = BREAKAGES[name]
    rows = [add_release(db, f"Artist {n}") for n in range(5)]
    daemon = start(MAX_ATTEMPTS="1", HTTP_BIND=ANY_PORT, **SLOW_POLL)
    eventually(lambda: all_answered(db))
    site = Site(daemon).ready()
    db.execute(sql.SQL(damage).format(identity=table("library_identity")))
    for row in rows:
        rename(db, row, f"Edited {row}")
    eventually(lambda: bool(site.why), 30)
    eventually(lambda: _fault(listener) == why, 30)
    daemon.wait_for("database refuses, keeping changes in the outbox", reason=why)
    (lane,) = [
        line
        for line in listener.run("doctor").stdout.splitlines()
        if line.startswith("library lane")
    ]
    assert why in lane
    assert not failing(db)
    assert outbox_size(db) == len(rows)
    db.execute(sql.SQL(repair).format(identity=table("library_identity")))
    eventually(lambda: all_answered(db), 40)
    eventually(lambda: not site.why, 30)
    eventually(lambda: _fault(listener) is None, 30)


def _fault(listener: Commands) -> object:
    report = json.loads(listener.run("status", "--json").stdout)
    return next(each["fault"] for each in report["streams"] if each["stream"] == "library")


def test_failed_rows_are_asked_again_when_lml_has_another_release(
    db: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    simulator.faults.add("confidence_high", rows=None)
    rows = [add_release(db, f"Artist {n}") for n in range(5)]
    assert listener.run("sweep").code == 1
    assert failing(db).keys() == set(rows)
    db.execute("UPDATE listener.ledger SET parked = true, next_ask_at = now() + interval '7 days'")
    simulator.faults.clear()
    assert listener.run("sweep", "--json").report["scanned"] == 0
    simulator.health = replace(simulator.health, version="2.15.0")
    assert listener.run("sweep", "--json").report["rows_resolved"] == 5
    assert not failing(db)


def test_failed_mint_is_retried_soon(db: Connection, start: Start, simulator: Simulator) -> None:
    start(**SLOW_POLL).following()
    fault = {"name": "status", "status": 500, "body": "text", "endpoint": "mint"}
    simulator.faults.add(**fault)  # type: ignore[arg-type]
    db.execute(
        sql.SQL("INSERT INTO {} (rotation_bin, discogs_release_id) VALUES ('H', 77)").format(
            table("rotation")
        )
    )
    found = "SELECT failures FROM listener.rotation_failure"
    eventually(lambda: db.execute(found).fetchone() is not None)
    assert outbox_size(db) == 0
    simulator.faults.clear()
    minted = sql.SQL("SELECT lml_identity_id IS NOT NULL FROM {}").format(table("rotation"))
    eventually(lambda: db.execute(minted).fetchone() == (True,), 30)
    eventually(lambda: db.execute(found).fetchone() is None, 30)


def test_edits_of_few_rows_are_coalesced(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    add_releases(db, 500)
    for number in range(16):
        db.execute(
            sql.SQL("UPDATE {} SET album_title = %s").format(table("library")),
            (f"Title {number}",),
        )
    assert outbox_size(db) == 500 * 17
    start(**SLOW_POLL)
    eventually(lambda: all_answered(db), 30)
    assert max(Counter(asked(simulator)).values()) <= 2


def test_cut_daemon_takes_its_lane_back_at_once(db: Connection, start: Start) -> None:
    daemon = start(**SLOW_POLL).following()
    end_sessions(db)
    is_answered_meanwhile(db)
    assert not daemon.logged("standing by")


def test_row_that_kills_lml_is_isolated_while_others_are_answered(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.faults.add("status", status=502, body="html", artist="Deadly")
    add_releases(db, 300)
    row = add_release(db, "Deadly")
    add_releases(db, 199)
    start(LML_ATTEMPTS="1", **SLOW_POLL)
    eventually(lambda: unanswered(db) == [row] and settled(db), 60)
    is_answered_meanwhile(db)
    assert simulator.calls.counts["bulk"] <= 60
    ticks = threading.Event()
    before = Counter(asked(simulator))[row]
    ticks.wait(3)
    assert Counter(asked(simulator))[row] - before <= 1
