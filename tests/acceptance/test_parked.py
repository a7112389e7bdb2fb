"""A row that LML cannot answer is set aside, seen, and put back by a change or a person."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import sql

from listener.simulator import Simulator
from tests.acceptance.conftest import Commands, Daemon, Start, asked, eventually
from tests.acceptance.test_daemon import add_releases, all_answered, settled, unanswered
from tests.acceptance.test_look import look
from tests.catalogue import add_release, count, outbox_size, rename, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(90)

KEYS = ["library_id", "reason", "detail", "attempts", "last_failed_at"]


def poison(simulator: Simulator) -> None:
    """Let LML refuse whatever asks about this artist."""
    simulator.faults.add("status", status=422, body="detail", artist="Poison")


def parked(listener: Commands) -> list[dict[str, Any]]:
    ran = listener.run("parked", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert "secret" not in ran.stdout
    rows: list[dict[str, Any]] = json.loads(ran.stdout)
    return rows


def park(db: Connection, row: int, detail: str = "odd", reason: str = "lml_invalid") -> None:
    """Enter a row in the ledger as parked, and settle its change."""
    db.execute(
        sql.SQL(
            "INSERT INTO listener.ledger (library_id, question, ask_order, next_ask_at, failures,"
            " failure, failure_detail, failed_at, failing_since, parked)"
            " SELECT id, listener.question_digest(artist_name, album_title, legacy_release_id,"
            " false), 0, now() + interval '7 days', 8, %s, %s, now(), now(), true"
            " FROM {} WHERE id = %s"
        ).format(table("library")),
        (reason, detail, row),
    )
    db.execute("DELETE FROM listener.change WHERE row_id = %s", (row,))


def age(db: Connection, row: int) -> None:
    """Let a row have failed for half a day, and be due now."""
    db.execute(
        "UPDATE listener.ledger SET failing_since = now() - interval '12 hours',"
        " failed_at = now() - interval '1 hour', next_ask_at = now() WHERE library_id = %s",
        (row,),
    )


def until_parked(db: Connection, daemon: Daemon, row: int) -> None:
    """Have a row fail once, and again for hours while others are answered."""
    eventually(lambda: unanswered(db) == [row] and settled(db))
    other = add_release(db, "Answered meanwhile")
    eventually(lambda: settled(db) and other not in unanswered(db))
    age(db, row)
    daemon.wait_for("row parked", library_id=row, reason="lml_error")


def test_poison_row_is_parked_alone_and_asked_again_when_requeued(
    db: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    poison(simulator)
    add_releases(db, 20)
    row = add_release(db, "Poison")
    daemon = start(MAX_ATTEMPTS="2", POLL_INTERVAL="1h")
    until_parked(db, daemon, row)
    assert unanswered(db) == [row]
    assert count(db, "library_identity") == 21

    (entry,) = parked(listener)
    assert list(entry) == KEYS
    assert (entry["library_id"], entry["reason"]) == (row, "lml_error")
    assert entry["attempts"] >= 2
    assert "422" in entry["detail"]
    ago = datetime.now(tz=UTC) - datetime.fromisoformat(entry["last_failed_at"])
    assert timedelta() < ago < timedelta(minutes=1)

    simulator.faults.clear()
    ran = listener.run("requeue", str(row))
    assert (ran.code, ran.stdout, ran.stderr) == (0, "1 row requeued\n", "")
    # Long before it would look by itself.
    eventually(lambda: all_answered(db))
    assert parked(listener) == []
    assert daemon.stop() == 0


def test_row_that_interrupts_every_call_is_parked_by_a_sweep_that_answers_others(
    db: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    simulator.faults.add("status", status=502, body="html", artist="Poison")
    add_releases(db, 30)
    row = add_release(db, "Poison")
    daemon = start(LML_ATTEMPTS="1")
    eventually(lambda: settled(db) and unanswered(db) == [row], 60)
    assert parked(listener) == []
    assert daemon.stop() == 0

    age(db, row)
    # Asked as one that is not suspect, and after others.
    db.execute("UPDATE listener.ledger SET suspicion = 2 WHERE library_id = %s", (row,))
    add_releases(db, 3, "Newcomer")
    ran = listener.run("sweep", "--json", LML_ATTEMPTS="1", MAX_ATTEMPTS="2")
    assert ran.code == 1
    assert ran.report["rows_skipped"]["lml_error"] == 1
    assert [entry["library_id"] for entry in parked(listener)] == [row]
    assert unanswered(db) == [row]


def test_change_of_a_parked_row_unparks_it(
    db: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    poison(simulator)
    row = add_release(db, "Poison")
    daemon = start(MAX_ATTEMPTS="1", POLL_INTERVAL="1h")
    until_parked(db, daemon, row)
    rename(db, row, "Broadcast")
    eventually(lambda: all_answered(db))
    assert parked(listener) == []
    assert count(db, "library_identity") == 2


def test_sweep_leaves_parked_rows_alone(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    poison(simulator)
    add_releases(db, 5)
    row = add_release(db, "Poison")
    assert listener.run("sweep", MAX_ATTEMPTS="1").code == 1
    assert parked(listener) == []
    age(db, row)
    add_release(db, "Answered before the row is asked")
    assert listener.run("sweep", MAX_ATTEMPTS="1").code == 1
    assert [entry["library_id"] for entry in parked(listener)] == [row]
    simulator.faults.clear()
    simulator.calls.reset()
    again = listener.run("sweep", "--json")
    assert (again.code, again.report["scanned"]) == (0, 0)
    assert not asked(simulator)

    assert listener.run("requeue", "--all").code == 0
    assert listener.run("sweep", "--json").report["rows_resolved"] == 1
    assert all_answered(db)


def test_parked_rows_are_shown_one_a_line_in_a_pipe(db: Connection, dsn: str) -> None:
    nothing = look(dsn, "parked")
    assert (nothing.returncode, nothing.stdout) == (0, "no rows are parked\n")
    assert look(dsn, "parked", "--json").stdout == "[]\n"
    long, odd = add_release(db), add_release(db)
    park(db, long, "x" * 300, "lml_error")
    park(db, odd, "\x1b[2Jodd [bold]\r\n")
    done = look(dsn, "parked")
    assert (done.returncode, done.stderr) == (0, "")
    header, first, second, last = done.stdout.splitlines()
    assert header.split() == ["row", "reason", "failures", "parked", "since", "detail"]
    assert re.fullmatch(rf" *{long}  lml_error +8  2\d{{3}}-[-\d: ]+ UTC  x{{300}} *", first)
    assert second.rstrip().endswith("  \\x1b[2Jodd [bold]\\r\\n")
    assert last == "2 rows parked; to requeue: listener requeue ID... (or --all)"


def test_rows_not_parked_are_named_and_the_others_requeued(db: Connection, dsn: str) -> None:
    rows = [add_release(db) for _ in range(3)]
    for row in rows[:2]:
        park(db, row)
    db.execute("DELETE FROM listener.change")
    unknown = rows[2] + 1
    done = look(dsn, "requeue", *(str(row) for row in (unknown, *rows, rows[0])))
    assert (done.returncode, done.stdout) == (1, "2 rows requeued\n")
    assert done.stderr == f"row {rows[2]} is not parked\nrow {unknown} is not parked\n"
    assert outbox_size(db) == 2
    done = look(dsn, "requeue", "--all")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 rows requeued\n", "")


@pytest.mark.parametrize("arguments", [(), ("1", "--all"), ("0",), ("many",), ("4294967296",)])
def test_invalid_requeue_changes_nothing(
    db: Connection, dsn: str, arguments: tuple[str, ...]
) -> None:
    row = add_release(db)
    park(db, row)
    done = look(dsn, "requeue", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: " in done.stderr
    assert outbox_size(db) == 0


@pytest.mark.parametrize("arguments", [("parked",), ("requeue", "1")])
def test_missing_installation_is_reported_with_advice(
    db: Connection, dsn: str, arguments: tuple[str, ...]
) -> None:
    db.execute("DROP SCHEMA listener CASCADE")
    done = look(dsn, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "run `listener migrate`" in done.stderr


def test_why_respects_the_scope_setting(db: Connection, listener: Commands) -> None:
    row = add_release(db)
    db.execute("DELETE FROM listener.change")
    assert "out of scope" not in listener.run("why", str(row)).stdout
    shown = listener.run("why", str(row), INCLUDE_NULL_CANONICAL="false")
    assert "out of scope without a canonical_entity_id" in shown.stdout
