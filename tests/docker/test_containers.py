"""The image at work in containers, next to PostgreSQL and the simulator."""

from __future__ import annotations

import json
import time

import psycopg
import pytest

from tests.acceptance.conftest import eventually
from tests.catalogue import add_release, rename
from tests.conftest import Connection
from tests.docker.conftest import Running, Stage

# Building, starting and stopping containers takes longer than the tests of the processes in them.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(180, func_only=True)]

# The daemon's own SHUTDOWN_TIMEOUT; nothing is being asked, so it needs none of it.
MOST_STOP_SECONDS = 5
MOST_START_SECONDS = 3
TRIES = 3


def identities(db: Connection, row: int) -> int:
    """Return how many identity rows a release has."""
    found = db.execute(
        "SELECT count(*) FROM wxyc_schema.library_identity WHERE library_id = %s", (row,)
    ).fetchone()
    assert found is not None
    return int(str(found[0]))


def answered(db: Connection, row: int) -> bool:
    """Return whether the release has its identity and nothing waits."""
    waiting = db.execute("SELECT count(*) FROM listener.change").fetchone()
    return identities(db, row) == 1 and waiting == (0,)


def test_container_follows_changes_and_ends_in_time(stage: Stage) -> None:
    daemon = stage.start()
    daemon.wait_for("following", stream="library")
    daemon.wait_until("healthy")
    with psycopg.connect(stage.dsn, autocommit=True) as db:
        row = add_release(db)
        eventually(lambda: answered(db, row))
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < MOST_STOP_SECONDS
    assert daemon.container.attrs["State"]["OOMKilled"] is False


def test_one_replica_works_and_the_other_takes_over(stage: Stage) -> None:
    first = stage.start()
    first.wait_for("following", stream="library")
    second = stage.start()
    second.wait_for("standing by", stream="library")
    for replica in (first, second):
        replica.wait_until("healthy")
    with psycopg.connect(stage.dsn, autocommit=True) as db:
        row = add_release(db)
        eventually(lambda: answered(db, row))
        first.container.kill()
        rename(db, row, "Nobody follows, and then the other one does")
        second.wait_for("following", stream="library")
        eventually(lambda: answered(db, row))
    assert second.stop() == 0


def test_container_without_its_database_turns_unhealthy_and_recovers(stage: Stage) -> None:
    daemon = stage.start()
    daemon.wait_until("healthy")
    stage.postgres.stop()
    daemon.wait_until("unhealthy")
    stage.postgres.start()
    daemon.wait_until("healthy")
    assert daemon.stop() == 0


def test_container_is_ready_soon(stage: Stage) -> None:
    assert min(_seconds_to_ready(stage) for _ in range(TRIES)) <= MOST_START_SECONDS


def test_commands_run_as_the_daemon_does(stage: Stage) -> None:
    with psycopg.connect(stage.dsn, autocommit=True) as db:
        row = add_release(db)
        # What waits in the outbox is not looked for.
        db.execute("TRUNCATE listener.change")
        code, printed = stage.run("sweep", "--dry-run", "--json")
        assert code == 0, printed
        assert json.loads(printed.splitlines()[-1])["would_resolve"] == 1, printed
        assert identities(db, row) == 0
        code, printed = stage.run("sweep")
        assert code == 0, printed
        assert identities(db, row) == 1, printed
    code, printed = stage.run("migrate", "--check")
    assert (code, printed) == (0, "nothing missing\n")


def _seconds_to_ready(stage: Stage) -> float:
    began = time.monotonic()
    daemon = stage.start()
    try:
        eventually(lambda: _is_ready(daemon), MOST_START_SECONDS * TRIES)
        return time.monotonic() - began
    finally:
        daemon.container.remove(force=True)


def _is_ready(daemon: Running) -> bool:
    code, _ = daemon.container.exec_run(["python", "-m", "listener.ready"])
    return bool(code == 0)
