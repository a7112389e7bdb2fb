"""Behind a pooler nothing of ours outlives a transaction: what would is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.conftest import Commands
from tests.catalogue import add_release
from tests.conftest import Connection
from tests.poolers import PGBOUNCER, pgbouncer, pooler_thread

pytestmark = pytest.mark.timeout(90)

needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer")
POOLERS = ["stand-in", pytest.param("pgbouncer", marks=needs_pgbouncer)]
COMMANDS = [
    ("run",),
    ("sweep",),
    ("backfill",),
    ("backfill", "--plan"),
    ("status",),
    ("why", "1"),
    ("parked",),
    ("requeue", "--all"),
    ("history", "1"),
    ("migrate",),
    ("migrate", "--check"),
    ("roles", "--role", "nobody_yet"),
    ("uninstall", "--yes"),
]
# What others would notice, if a session of ours had been handed to them.
SETTINGS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "plan_cache_mode",
    "enable_seqscan",
    "jit",
    "timezone",
    "row_security",
)


@pytest.fixture
def in_between(request: pytest.FixtureRequest, dsn: str, tmp_path: Path) -> Iterator[str]:
    """Yield the address of the database behind a pooler in transaction mode."""
    which = (
        pooler_thread(dsn)
        if request.param == "stand-in"
        else pgbouncer(dsn, tmp_path, "transaction")
    )
    with which as pooled:
        yield pooled


@pytest.mark.parametrize("in_between", POOLERS, indirect=True)
def test_every_command_refuses_a_pooler_that_shares_sessions(
    db: Connection, in_between: str, listener: Commands
) -> None:
    add_release(db)
    with psycopg.connect(in_between, autocommit=True, prepare_threshold=None) as backend:
        before = [settings_of(backend) for _ in range(4)]
        for words in COMMANDS:
            ran = listener.run(*words, DATABASE_URL=in_between, HTTP_BIND="")
            assert (ran.code, words) == (2, words), ran.stderr
            assert "pooler in session mode" in ran.stderr
        assert [settings_of(backend) for _ in range(4)] == before
    # Other tests have databases of their own on this server.
    kept = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
    ours = f"{kept} WHERE l.locktype = 'advisory' AND d.datname = current_database()"
    assert db.execute(ours.encode()).fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM listener.change").fetchone() == (1,)
    assert db.execute("SELECT count(*) FROM listener.run").fetchone() == (0,)


@pytest.mark.parametrize("in_between", POOLERS, indirect=True)
def test_doctor_names_the_pooler_and_leaves_nothing(in_between: str, listener: Commands) -> None:
    with psycopg.connect(in_between, autocommit=True, prepare_threshold=None) as backend:
        before = [settings_of(backend) for _ in range(4)]
        ran = listener.run("doctor", DATABASE_URL=in_between)
        assert "a pooler shares our session" in ran.stdout
        assert [settings_of(backend) for _ in range(4)] == before


@needs_pgbouncer
def test_pooler_in_session_mode_works_like_a_direct_connection(
    db: Connection, dsn: str, tmp_path: Path, listener: Commands
) -> None:
    add_release(db)
    with pgbouncer(dsn, tmp_path, "session") as pooled:
        for words in (("migrate", "--check"), ("status",), ("why", "1")):
            ran = listener.run(*words, DATABASE_URL=pooled)
            assert ran.code == 0, ran.stderr


def settings_of(backend: Connection) -> list[object]:
    names = ", ".join(f"current_setting('{name}')" for name in SETTINGS)
    (row,) = backend.execute(
        f"SELECT {names}, current_setting('listener.own_write', true)".encode()
    )
    return list(row)
