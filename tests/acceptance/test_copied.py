"""Copies of the database: one that leaves sequences behind, one of the backend's schema alone."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from listener.demo.stage import program
from tests.acceptance.conftest import Commands, Start, eventually
from tests.catalogue import add_release, count, outbox_size, rename
from tests.conftest import BACKEND, Connection, as_role, fresh_database

pytestmark = pytest.mark.timeout(90)

BEHIND = "SELECT setval('listener.ask_order', 1), setval('listener.run_run_id_seq', 1)"


def verdict_order(db: Connection) -> object:
    (row,) = db.execute("SELECT max(ask_order) FROM listener.ledger").fetchall()
    return row[0]


@pytest.fixture
def answered(db: Connection, listener: Commands) -> int:
    """Add a release and have it answered by questions of a high order."""
    db.execute("SELECT setval('listener.ask_order', 4711), setval('listener.run_run_id_seq', 4711)")
    row = add_release(db)
    assert listener.run("sweep").code == 0
    return row


def test_daemon_that_starts_on_a_copy_continues(
    dsn: str, db: Connection, role: str, start: Start, answered: int
) -> None:
    before = verdict_order(db)
    db.execute(BEHIND)
    daemon = start(DATABASE_URL=as_role(dsn, role)).following()
    daemon.wait_for("sequences lagged behind their rows, as after a copy")
    rename(db, answered, "Broadcast")
    eventually(lambda: outbox_size(db) == 0 and verdict_order(db) != before)
    assert daemon.stop() == 0


def test_daemon_whose_server_is_replaced_by_a_copy_continues_after_a_sweep(
    db: Connection, start: Start, answered: int
) -> None:
    daemon = start(SWEEP_INTERVAL="1s").following()
    db.execute(BEHIND)
    daemon.wait_for("sequences lagged behind their rows, as after a copy")
    before = verdict_order(db)
    rename(db, answered, "Broadcast")
    eventually(lambda: outbox_size(db) == 0 and verdict_order(db) != before)


def test_copied_history_accepts_former_identities(
    dsn: str, db: Connection, role: str, start: Start, answered: int
) -> None:
    history = sql.Identifier(BACKEND, "library_identity_history")
    db.execute(
        sql.SQL(
            "INSERT INTO {} (history_id, library_id, last_verified_at, method, confidence,"
            " superseded_reason) SELECT n, %s, now(), 'exact_match', 1, 'test'"
            " FROM generate_series(1, 9) AS n"
        ).format(history),
        (answered,),
    )
    name = f"{BACKEND}.library_identity_history_history_id_seq"
    daemon = start(DATABASE_URL=as_role(dsn, role)).following()
    daemon.wait_for("sequences lagged behind their rows, as after a copy", raised=[name])
    rename(db, answered, "Broadcast")
    eventually(lambda: count(db, "library_identity_history") == 10)


def test_command_advances_sequences_too(db: Connection, listener: Commands, answered: int) -> None:
    db.execute(BEHIND)
    rename(db, answered, "Broadcast")
    ran = listener.run("sweep", "--json")
    assert (ran.code, ran.report["rows_resolved"]) == (0, 1), ran.stderr
    assert count(db, "library_identity") == 1


def test_role_that_may_not_advance_sequences_is_told_what_to_do(
    dsn: str, db: Connection, role: str, listener: Commands, answered: int
) -> None:
    db.execute(f"REVOKE UPDATE ON SEQUENCE listener.ask_order FROM {role}".encode())
    db.execute(BEHIND)
    ran = listener.run("sweep", DATABASE_URL=as_role(dsn, role))
    assert ran.code == 2
    assert "ask_order" in ran.stderr
    assert "listener roles" in ran.stderr


@pytest.fixture
def copy(server: str, worker_id: str) -> Iterator[str]:
    """DSN of a database without anything in it."""
    with fresh_database(server, f"listener_copy_{worker_id}") as dsn:
        yield dsn


def test_backends_schema_alone_is_restored_without_our_triggers(
    owner_dsn: str, copy: str, listener: Commands, answered: int, tmp_path: Path
) -> None:
    dump = tmp_path / "schema.dump"
    pg_dump, pg_restore = program("pg_dump"), program("pg_restore")
    _done(pg_dump, "--format=custom", f"--schema={BACKEND}", f"--file={dump}", owner_dsn)
    assert 'schema "listener" does not exist' in _complaints(pg_restore, f"--dbname={copy}", dump)
    with psycopg.connect(copy, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(BACKEND)))

    listed = _done(pg_restore, "--list", dump).splitlines()
    without = tmp_path / "without-triggers.list"
    kept = [line for line in listed if not re.search(" TRIGGER .* listener_", line)]
    without.write_text("\n".join(kept))
    assert len(kept) == len(listed) - 5
    assert "listener" not in _complaints(
        pg_restore, f"--use-list={without}", f"--dbname={copy}", dump
    )

    assert listener.run("migrate", DATABASE_URL=copy).code == 0
    checked = listener.run("migrate", "--check", DATABASE_URL=copy)
    assert (checked.code, checked.stdout) == (0, "nothing missing\n")
    with psycopg.connect(copy, autocommit=True) as connection:
        rename(connection, answered, "Broadcast")
        assert outbox_size(connection) == 1


def _done(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _complaints(*words: str | Path) -> str:
    # A newer program complains of settings that an older server does not know, too.
    said = subprocess.run(words, check=False, capture_output=True, text=True).stderr
    return "\n".join(line for line in said.splitlines() if "ERROR:" in line)
