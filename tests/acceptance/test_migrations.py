"""The backend migrates under us: every command names what no longer works."""

from __future__ import annotations

import pytest
from psycopg import sql

from tests.acceptance.conftest import Commands, Start, eventually
from tests.acceptance.test_look import look
from tests.acceptance.test_site import ANY_PORT, Site
from tests.catalogue import add_release, count
from tests.conftest import BACKEND, Connection

pytestmark = pytest.mark.timeout(120)

# What a migration does, what the database says then, and a statement that it refuses.
MIGRATIONS = {
    "title": (
        "ALTER TABLE {backend}.library RENAME album_title TO title",
        "column l.album_title does not exist",
        "read_questions",
    ),
    "legacy id": (
        """DROP TRIGGER touch_library_watermark ON {backend}.library;
        ALTER TABLE {backend}.library ALTER legacy_release_id TYPE bigint""",
        "function listener.question_digest(character varying, character varying, bigint, boolean)",
        "read_questions",
    ),
    "library id": (
        "ALTER TABLE {backend}.library_identity ALTER library_id TYPE bigint",
        "function listener.still_holds(",
        "find_due_by_content",
    ),
    "identity": (
        "ALTER TABLE {backend}.rotation RENAME lml_identity_id TO identity_id",
        "column r.lml_identity_id does not exist",
        "fill_identities",
    ),
    "position": (
        "ALTER TABLE {backend}.compilation_track_artist RENAME track_position TO place",
        "column t.track_position does not exist",
        "write_tracks",
    ),
    "notes": (
        "ALTER TABLE {backend}.library_identity RENAME notes TO remarks",
        "column i.notes does not exist",
        "restore_identity",
    ),
}
COMMANDS = [
    ("sweep",),
    ("sweep", "--dry-run"),
    ("sweep", "--recheck"),
    ("sweep", "--stream", "rotation"),
    ("backfill", "--plan"),
    ("status",),
    ("why", "1"),
    ("history", "1"),
    ("parked",),
    ("requeue", "--all"),
]


def migrate(db: Connection, name: str) -> None:
    statements = sql.SQL(MIGRATIONS[name][0]).format(backend=sql.Identifier(BACKEND))
    db.execute(statements)


@pytest.mark.parametrize("name", MIGRATIONS)
def test_doctor_and_check_name_the_statement_and_why(
    db: Connection, listener: Commands, owner_dsn: str, name: str
) -> None:
    _, why, statement = MIGRATIONS[name]
    migrate(db, name)
    seen = listener.run("doctor")
    assert seen.code == 1
    (line,) = [line for line in seen.stdout.splitlines() if line.startswith("statements")]
    assert why in line
    assert statement in line
    checked = look(owner_dsn, "migrate", "--check")
    assert checked.returncode == 1
    assert any(why in line and statement in line for line in checked.stdout.splitlines())


@pytest.mark.parametrize("name", ["title", "legacy id", "notes"])
def test_no_command_reports_it_as_a_bug(db: Connection, listener: Commands, name: str) -> None:
    add_release(db)
    migrate(db, name)
    for command in COMMANDS:
        ran = listener.run(*command)
        assert ran.code in {0, 1, 2}, (command, ran.stderr)
        if ran.code == 2:
            assert "does not exist" in ran.stderr, command


def test_daemon_logs_what_the_database_says_and_continues_once_it_is_undone(
    db: Connection, start: Start
) -> None:
    daemon = start().following()
    migrate(db, "legacy id")
    add_release(db)
    why = MIGRATIONS["legacy id"][1]
    eventually(lambda: any(why in event.get("reason", "") for event in list(daemon.events)))
    library = sql.Identifier(BACKEND, "library")
    db.execute(sql.SQL("ALTER TABLE {} ALTER legacy_release_id TYPE int").format(library))
    eventually(lambda: count(db, "library_identity") == 1, 60)


def test_swapped_table_is_noticed_and_missed_changes_are_found(
    db: Connection, start: Start, listener: Commands, owner_dsn: str, role: str
) -> None:
    add_release(db)
    daemon = start(HTTP_BIND=ANY_PORT).following()
    site = Site(daemon)
    eventually(lambda: count(db, "library_identity") == 1)
    swap = """
        CREATE TABLE {0}.library_new (LIKE {0}.library INCLUDING ALL);
        INSERT INTO {0}.library_new (id, artist_id, artist_name, album_title, legacy_release_id)
        SELECT id, artist_id, artist_name, 'Another title', legacy_release_id FROM {0}.library;
        ALTER TABLE {0}.library RENAME TO library_old;
        ALTER TABLE {0}.library_new RENAME TO library
    """
    db.execute(sql.SQL(swap).format(sql.Identifier(BACKEND)))
    event = "changes are not captured, run `listener migrate`"
    daemon.wait_for(event, 40, stream="library")
    assert site.metric("capturing", stream="library") == 0
    assert site.metric("capturing", stream="rotation") == 1
    assert look(owner_dsn, "migrate").returncode == 0
    assert look(owner_dsn, "roles", "--role", role, "--apply").returncode == 0
    daemon.wait_for("checked every row", 60, capture_missed=1)
    assert site.metric("capturing", stream="library") == 1
    # What referred to the old table still does.
    keys = "foreign key refers to a replaced table"
    repairs = {event["repair"] for event in daemon.events if event["event"] == keys}
    assert daemon.logged(keys) == len(repairs) == 4
    failed = keys_of(listener)
    assert failed.startswith("foreign keys")
    assert "library_identity_library_id_fkey of library_identity refers to library_old" in failed
    for repair in repairs:
        assert repair in failed
        db.execute(repair.encode())
    assert "refer to the tables in use" in keys_of(listener)
    only_in_the_new_one = """
        INSERT INTO {0}.library (id, artist_id, artist_name, album_title, legacy_release_id)
        SELECT 4711, artist_id, artist_name, 'New title', 4711 FROM {0}.library
    """
    db.execute(sql.SQL(only_in_the_new_one).format(sql.Identifier(BACKEND)))
    eventually(lambda: count(db, "library_identity") == 2, 60)


def test_triggers_that_cannot_record_are_noticed_and_missed_changes_are_found(
    db: Connection, start: Start
) -> None:
    add_release(db)
    daemon = start(HTTP_BIND=ANY_PORT).following()
    daemon.wait_for("checked every row")
    eventually(lambda: count(db, "library_identity") == 1)
    db.execute("ALTER TABLE listener.change ALTER seq DROP IDENTITY")
    add_release(db)
    for stream in ("library", "rotation"):
        daemon.wait_for("changes are not captured, run `listener migrate`", 40, stream=stream)
    assert Site(daemon).metric("capturing", stream="library") == 0
    db.execute(
        "ALTER TABLE listener.change"
        " ALTER seq ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME listener.change_seq_seq)"
    )
    eventually(lambda: count(db, "library_identity") == 2, 60)
    # Changes are recorded again, and their numbers go on where they ended.
    add_release(db)
    eventually(lambda: count(db, "library_identity") == 3, 60)


def keys_of(listener: Commands) -> str:
    lines = listener.run("doctor").stdout.splitlines()
    return " ".join(line for line in lines if "foreign keys" in line or "ALTER TABLE" in line)
