"""A logical copy of the database leaves sequences behind: the daemon brings its own up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Commands, Daemon, eventually
from tests.catalogue import add_release, count, outbox_size, rename
from tests.conftest import Connection, as_role

pytestmark = pytest.mark.timeout(90)

Start = Callable[..., Daemon]
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


def test_daemon_that_starts_on_a_copy_goes_on(
    dsn: str, db: Connection, role: str, start: Start, answered: int
) -> None:
    before = verdict_order(db)
    db.execute(BEHIND)
    daemon = start(DATABASE_URL=as_role(dsn, role)).following()
    daemon.wait_for("sequences were behind their rows, as a copy leaves them")
    rename(db, answered, "Broadcast")
    eventually(lambda: outbox_size(db) == 0 and verdict_order(db) != before)
    assert daemon.stop() == 0


def test_daemon_whose_server_is_replaced_by_a_copy_goes_on_after_a_sweep(
    db: Connection, start: Start, answered: int
) -> None:
    daemon = start(SWEEP_INTERVAL="1s").following()
    db.execute(BEHIND)
    daemon.wait_for("sequences were behind their rows, as a copy leaves them")
    before = verdict_order(db)
    rename(db, answered, "Broadcast")
    eventually(lambda: outbox_size(db) == 0 and verdict_order(db) != before)


def test_command_brings_them_up_as_well(db: Connection, listener: Commands, answered: int) -> None:
    db.execute(BEHIND)
    rename(db, answered, "Broadcast")
    ran = listener.run("sweep", "--json")
    assert (ran.code, ran.report["rows_resolved"]) == (0, 1), ran.stderr
    assert count(db, "library_identity") == 1


def test_role_that_may_not_bring_them_up_says_what_to_do(
    dsn: str, db: Connection, role: str, listener: Commands, answered: int
) -> None:
    db.execute(f"REVOKE UPDATE ON SEQUENCE listener.ask_order FROM {role}".encode())
    db.execute(BEHIND)
    ran = listener.run("sweep", DATABASE_URL=as_role(dsn, role))
    assert ran.code == 2
    assert "ask_order" in ran.stderr
    assert "listener roles" in ran.stderr
