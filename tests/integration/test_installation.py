"""Installing, checking and removing, on a database that the backend already lives in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import listener
from listener import DISTRIBUTION, shipped
from listener.adapters.postgres.installation import (
    install,
    installing,
    lagging_sequences,
    missing_parts,
    newer_version,
    require_installed,
    uninstall,
)
from listener.adapters.postgres.sessions import Connection as Session
from listener.demo.postgres import create_backend
from listener.domain.faults import InstallationError
from tests.conftest import BACKEND, Connection, as_role, fresh_database
from tests.database import migrate

ODD = 'Odd "schema" 1'

# Everything in the database that is not PostgreSQL's own, with what could have been altered in it.
_INVENTORY = """
SELECT n.nspname, c.relname, c.relkind::text, c.relhastriggers::text, c.reloptions::text
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL
SELECT n.nspname, p.proname, 'function', p.prosrc, NULL
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL
SELECT t.tgrelid::regclass::text, t.tgname, 'trigger', pg_get_triggerdef(t.oid), NULL
FROM pg_trigger AS t WHERE NOT t.tgisinternal
ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def empty(server: str, worker_id: str) -> Iterator[str]:
    """DSN of a database without anything in it."""
    with fresh_database(server, f"listener_empty_{worker_id}") as dsn:
        yield dsn


@pytest.fixture
def bare(empty: str) -> str:
    """DSN of a database with the backend's tables only."""
    create_backend(empty, BACKEND, with_triggers=True)
    return empty


def inventory(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(_INVENTORY).fetchall()


def command(dsn: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "listener", *arguments],
        env={"DATABASE_URL": dsn, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_second_installation_does_nothing(bare: str) -> None:
    async with installing(bare) as connection:
        assert await install(connection, BACKEND)
        assert await install(connection, BACKEND) == []
        assert await missing_parts(connection, BACKEND) == []


def test_two_installations_at_once_do_the_work_once(bare: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: migrate(bare, BACKEND), range(4)))
    assert sum(bool(done) for done in results) == 1


async def test_uninstall_leaves_no_trace(bare: str) -> None:
    before = inventory(bare)
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        assert await uninstall(connection, BACKEND)
        assert await uninstall(connection, BACKEND) == []
    assert inventory(bare) == before


async def test_installation_alters_no_table_of_the_backend(bare: str) -> None:
    before = set(inventory(bare))
    async with installing(bare) as connection:
        await install(connection, BACKEND)
    ours = {row for row in inventory(bare) if row[0] == "listener" or "listener" in str(row[1])}
    assert before <= set(inventory(bare)) - ours


async def test_backend_schema_may_have_any_name(empty: str) -> None:
    create_backend(empty, ODD, with_triggers=False)
    async with installing(empty) as connection:
        await install(connection, ODD)
        assert await missing_parts(connection, ODD) == []
        await connection.execute(
            sql.SQL("INSERT INTO {} (artist_name) VALUES ('Nico')").format(
                sql.Identifier(ODD, "artists")
            )
        )
        await connection.execute(
            sql.SQL(
                "INSERT INTO {} (artist_id, artist_name, album_title)"
                " VALUES (1, 'Nico', 'Desertshore')"
            ).format(sql.Identifier(ODD, "library"))
        )
        cursor = await connection.execute("SELECT count(*) FROM listener.change")
        assert await cursor.fetchone() == (1,)
        await uninstall(connection, ODD)


async def test_missing_or_disabled_trigger_is_noticed_and_repaired(bare: str) -> None:
    table = sql.Identifier(BACKEND, "rotation")
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        for damage in ("DROP TRIGGER {} ON {}", "ALTER TABLE {1} DISABLE TRIGGER {0}"):
            trigger = sql.Identifier("listener_capture_update")
            await connection.execute(sql.SQL(damage).format(trigger, table))
            assert [part.label for part in await missing_parts(connection, BACKEND)] == [
                "triggers/rotation"
            ]
            assert await install(connection, BACKEND) == ["installed triggers/rotation"]
            assert await missing_parts(connection, BACKEND) == []


async def test_triggers_that_may_not_record_count_as_missing(bare: str) -> None:
    owner = "ALTER FUNCTION listener.capture_library_insert() OWNER TO {}"
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await connection.execute("CREATE ROLE listener_no_recorder")
        await connection.execute(owner.format("listener_no_recorder").encode())
        missing = await missing_parts(connection, BACKEND)
        assert [part.label for part in missing] == ["triggers/library"]
        await connection.execute(owner.format("CURRENT_USER").encode())
        assert await missing_parts(connection, BACKEND) == []
        await connection.execute("DROP ROLE listener_no_recorder")


async def test_lost_lanes_are_created_again(bare: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await connection.execute("DELETE FROM listener.lane WHERE stream = 'rotation'")
        assert await install(connection, BACKEND) == ["filled listener.lane"]
        assert await install(connection, BACKEND) == []


async def test_sequences_left_behind_by_a_copy_are_advanced(bare: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await connection.execute(
            "INSERT INTO listener.ledger (library_id, question, ask_order, next_ask_at)"
            " VALUES (7, '', 4711, now())"
        )
        for _ in range(3):
            await connection.execute(
                "INSERT INTO listener.change (stream, row_id) VALUES ('library', 7)"
            )
        await connection.execute("ALTER SEQUENCE listener.change_seq_seq RESTART")
        behind = ["listener.ask_order", "listener.change_seq_seq"]
        assert await lagging_sequences(connection, BACKEND) == behind
        assert await install(connection, BACKEND) == [
            "raised listener.ask_order to match its rows",
            "raised listener.change_seq_seq to match its rows",
        ]
        cursor = await connection.execute("SELECT nextval('listener.ask_order')")
        assert await cursor.fetchone() == (4712,)
        await connection.execute(
            "INSERT INTO listener.change (stream, row_id) VALUES ('library', 7)"
        )
        assert await install(connection, BACKEND) == []


async def test_every_sequence_that_we_draw_from_is_compared_with_its_rows(bare: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await connection.execute(
            sql.SQL(
                "INSERT INTO listener.ledger (library_id, question, ask_order, next_ask_at)"
                " VALUES (7, '', 4711, now());"
                "INSERT INTO listener.change (stream, row_id) VALUES ('library', 7);"
                "INSERT INTO listener.run (kind, cause, holder) VALUES ('sweep', 'test', 'test');"
                "INSERT INTO listener.refresh"
                " (errand, known, holder, identities, cost, started_at)"
                " VALUES ('walk', true, 'test', 1, 0, now());"
                "INSERT INTO listener.sample (stream, seconds, backlog, claimed, settled, silent,"
                " woken) VALUES ('library', 10, 0, 0, 0, 0, true);"
                "INSERT INTO {} (history_id, library_id, last_verified_at, method, confidence,"
                " superseded_reason) VALUES (9, 7, now(), 'exact_match', 1, 'test')"
            ).format(sql.Identifier(BACKEND, "library_identity_history"))
        )
        cursor = await connection.execute(
            "SELECT sequencename FROM pg_sequences WHERE schemaname = 'listener'"
        )
        ours = [f"listener.{name}" for (name,) in await cursor.fetchall()]
        for name in ours:
            await connection.execute(sql.SQL("ALTER SEQUENCE {} RESTART").format(sql.SQL(name)))
        drawn = {*ours, f"{BACKEND}.library_identity_history_history_id_seq"}
        assert set(await lagging_sequences(connection, BACKEND)) == drawn
        assert set(await install(connection, BACKEND)) == {
            f"raised {name} to match its rows" for name in drawn
        }
        assert await lagging_sequences(connection, BACKEND) == []


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE {}",
        "ALTER TABLE {} RENAME history_id TO id",
        "ALTER TABLE {0} DROP history_id; ALTER TABLE {0} ADD history_id uuid",
        "ALTER TABLE {} ALTER history_id DROP DEFAULT",
    ],
)
async def test_history_without_a_sequence_is_accepted(bare: str, change: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        table = sql.Identifier(BACKEND, "library_identity_history")
        await connection.execute(sql.SQL(change).format(table))
        assert await lagging_sequences(connection, BACKEND) == []


async def test_check_names_sequences_that_are_behind(bare: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await connection.execute(
            "INSERT INTO listener.ledger (library_id, question, ask_order, next_ask_at)"
            " VALUES (7, '', 4711, now())"
        )
    checked = command(bare, "migrate", "--check")
    assert (checked.returncode, checked.stdout) == (1, "listener.ask_order is behind its rows\n")


async def test_changed_triggers_are_replaced(bare: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await connection.execute(
            "UPDATE listener.installed SET digest = 'old' WHERE name = 'triggers/library'"
        )
        assert await install(connection, BACKEND) == ["installed triggers/library"]


def test_schema_without_the_backend_is_refused(empty: str) -> None:
    with pytest.raises(InstallationError, match="WXYC_SCHEMA"):
        migrate(empty, BACKEND)
    assert inventory(empty) == []


def test_installation_does_not_queue_behind_a_locked_table(bare: str) -> None:
    with psycopg.connect(bare) as backend, ThreadPoolExecutor(1) as pool:
        backend.execute(
            sql.SQL("INSERT INTO {} (artist_name) VALUES ('Nico')").format(
                sql.Identifier(BACKEND, "artists")
            )
        )
        backend.execute(
            sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(
                sql.Identifier(BACKEND, "library")
            )
        )
        running = pool.submit(migrate, bare, BACKEND)
        # Writers get through while the installation waits for its turn.
        for _ in range(20):
            with psycopg.connect(bare) as writer:
                writer.execute("SET lock_timeout = '2s'")
                writer.execute(
                    sql.SQL("UPDATE {} SET plays = plays + 1").format(
                        sql.Identifier(BACKEND, "library")
                    )
                )
        assert not running.done()
        backend.commit()
        assert "installed triggers/library" in running.result(15)


@pytest.mark.timeout(60)
def test_commands_print_what_they_did(bare: str) -> None:
    missing = command(bare, "migrate", "--check")
    assert (missing.returncode, missing.stderr) == (1, "")
    assert "missing triggers/library" in missing.stdout
    done = command(bare, "migrate")
    assert done.returncode == 0
    assert "created schema listener" in done.stdout
    assert command(bare, "migrate").stdout == "nothing to do\n"
    assert command(bare, "migrate", "--check").stdout == "nothing missing\n"
    removed = command(bare, "uninstall", "--yes")
    assert removed.returncode == 0
    assert "dropped schema listener" in removed.stdout
    assert "removes" not in command(bare, "uninstall", "--yes").stderr


@pytest.mark.timeout(60)
def test_changes_are_announced_before_they_are_made(bare: str) -> None:
    named = conninfo_to_dict(bare)
    database = f"database  {named['dbname']}, as role {named['user']}"
    installed = command(bare, "migrate").stderr.splitlines()
    assert installed[0].startswith("host      ")
    assert installed[1:] == [database, f"schema    {BACKEND}"]
    with psycopg.connect(bare) as connection:
        connection.execute(
            "INSERT INTO listener.change (stream, row_id)"
            " SELECT 'library', generate_series(1, 1200)"
        )
    # Nobody answers.
    asked = command(bare, "uninstall")
    assert asked.returncode == 1
    lines = asked.stderr.splitlines()
    assert lines[:3] == installed
    assert "removes   listener.change, 1,200 rows" in lines
    assert "removes   listener.ledger, 0 rows" in lines
    assert f"removes   3 triggers on {BACKEND}.library" in lines
    assert "Remove them? Identities stay. [y/N]: " in asked.stderr
    assert len(inventory(bare)) > len(lines)


def test_wrong_settings_are_all_named_at_once() -> None:
    wrong = command("mysql://user:hidden-word@host/db", "run", BATCH_SIZE="5000", LINGER="soon")
    assert wrong.returncode == 2
    assert "hidden-word" not in wrong.stderr
    for name in (
        "DATABASE_URL",
        "LIBRARY_METADATA_URL",
        "BATCH_SIZE is '5000'",
        "LINGER is 'soon'",
    ):
        assert name in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_unreachable_database_is_reported_without_its_password() -> None:
    wrong = command("postgresql://user:hidden-word@127.0.0.1:1/db", "migrate")
    assert wrong.returncode == 2
    assert "127.0.0.1" in wrong.stderr
    assert "hidden-word" not in wrong.stderr
    assert "Traceback" not in wrong.stderr


async def test_older_database_is_distinguished_from_one_without_the_listener(bare: str) -> None:
    async with installing(bare) as connection:
        with pytest.raises(InstallationError, match=r"^not installed: .*listener migrate"):
            await require_installed(connection, BACKEND)
        await install(connection, BACKEND)
        assert await require_installed(connection, BACKEND) == []
        await connection.execute("DELETE FROM listener.installed WHERE name LIKE 'schema/0002%'")
        with pytest.raises(InstallationError, match=r"by an older version: schema/0002\w+ missing"):
            await require_installed(connection, BACKEND)


async def test_installation_needs_the_backends_tables(dsn: str) -> None:
    async with installing(dsn) as connection:
        with pytest.raises(InstallationError, match=r'no table "elsewhere"."library"; is WXYC_SCH'):
            await require_installed(connection, "elsewhere")


def test_check_for_a_schema_without_the_backend_names_the_setting(dsn: str, bare: str) -> None:
    for database in (dsn, bare):
        checked = command(database, "migrate", "--check", WXYC_SCHEMA_NAME="elsewhere")
        assert (checked.returncode, checked.stdout) == (2, "")
        assert 'there is no table "elsewhere"."library"; is WXYC_SCHEMA_NAME' in checked.stderr


async def test_backend_schema_without_usage_counts_as_present(
    db: Connection, dsn: str, role: str
) -> None:
    db.execute(
        sql.SQL("REVOKE USAGE ON SCHEMA {} FROM {}").format(
            sql.Identifier(BACKEND), sql.Identifier(role)
        )
    )
    async with installing(as_role(dsn, role)) as connection:
        assert await require_installed(connection, BACKEND) == []


async def test_version_that_installed_last_is_remembered(bare: str) -> None:
    async with installing(bare) as connection:
        assert await newer_version(connection) is None
        await install(connection, BACKEND)
        assert await newer_version(connection) is None
        await become(connection, "0.0.9")
        assert await newer_version(connection) is None
        await install(connection, BACKEND)
        cursor = await connection.execute(
            "SELECT digest FROM listener.installed WHERE name = 'version'"
        )
        assert await cursor.fetchone() == (version(DISTRIBUTION),)


@pytest.mark.parametrize("newer", ["99.0.0", f"{version(DISTRIBUTION)}.1"])
async def test_installation_of_a_newer_version_is_left_unchanged(bare: str, newer: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await become(connection, newer)
        await connection.execute(
            "UPDATE listener.installed SET digest = 'newer' WHERE name = 'triggers/library'"
        )
        assert await missing_parts(connection, BACKEND) == []
        assert await install(connection, BACKEND) == []
        cursor = await connection.execute(
            "SELECT digest FROM listener.installed WHERE name = 'triggers/library'"
        )
        assert await cursor.fetchone() == ("newer",)
    done = command(bare, "migrate")
    assert (done.returncode, done.stdout) == (0, "nothing to do\n")
    assert newer in done.stderr


def test_every_table_can_be_deleted_from_while_all_tables_are_published(db: Connection) -> None:
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    tables = db.execute(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = 'listener'::regnamespace AND relkind = 'r'"
    ).fetchall()
    assert len(tables) > 8
    for (name,) in tables:
        db.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("listener", str(name))))


async def test_older_program_never_repairs_triggers_of_a_newer_one(bare: str) -> None:
    async with installing(bare) as connection:
        await install(connection, BACKEND)
        await become(connection, "99.0.0")
        await connection.execute(
            sql.SQL("DROP TRIGGER listener_capture_insert ON {}").format(
                sql.Identifier(BACKEND, "library")
            )
        )
        with pytest.raises(
            InstallationError, match=r"triggers/library, installed by listener 99\.0\.0"
        ):
            await install(connection, BACKEND)


async def test_rows_parked_by_an_older_version_stay_parked_but_not_forever(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shipped("sql"), tmp_path / "sql")
    (tmp_path / "sql/schema/0008_failures.sql").unlink()
    async with installing(bare) as connection:
        with monkeypatch.context() as older:
            older.setattr(listener, "_PACKAGE", tmp_path)
            await install(connection, BACKEND)
        await connection.execute(
            "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
            " next_ask_at, failures, failure, failure_detail, failed_at) VALUES"
            " (1, '', 0, NULL, NULL, 'infinity', 8, 'lml_error', 'x', now() - interval '3 d'),"
            " (2, '', 0, NULL, NULL, now() + interval '15 min', 2, 'lml_error', 'x', now()),"
            " (3, '', 0, 'unresolved', now(), now() + interval '30 d', 0, NULL, NULL, NULL)"
        )
        with pytest.raises(InstallationError, match="schema/0008_failures missing"):
            await require_installed(connection, BACKEND)
        assert await install(connection, BACKEND) == ["installed schema/0008_failures"]
        cursor = await connection.execute(
            "SELECT library_id, failures, suspicion, parked, failing_since = failed_at,"
            " next_ask_at - now() FROM listener.ledger ORDER BY library_id"
        )
        rows = await cursor.fetchall()
    assert [row[:5] for row in rows] == [
        (1, 8, 0, True, True),
        (2, 2, 0, False, True),
        (3, 0, 0, False, None),
    ]
    week, minute = timedelta(days=7), timedelta(minutes=1)
    assert week - minute < rows[0][5] <= week
    assert rows[1][5] < timedelta(minutes=15)
    assert rows[2][5] > timedelta(days=29)


async def become(connection: Session, newer: str) -> None:
    """Let another version have installed last."""
    await connection.execute(
        "UPDATE listener.installed SET digest = %s WHERE name = 'version'", (newer,)
    )
