"""The capture triggers, seen by those who write to the backend's tables."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors, sql

from listener.adapters.postgres.installation import uninstall
from listener.demo.postgres import create_backend
from tests.catalogue import add_release, outbox_size, waiting
from tests.conftest import BACKEND, Connection
from tests.database import migrate, on

MANY = 30_000
LIBRARY_AWAKE = (1280528978, 1)
ROTATION_AWAKE = (1280528978, 2)


@pytest.fixture
def album(db: Connection) -> int:
    """Id of a library row whose insertion was already handled."""
    library_id = add_release(db, "Bark Psychosis", "Hex")
    db.execute("DELETE FROM listener.change")
    return library_id


def _fill(db: Connection, rows: int) -> None:
    db.execute("INSERT INTO wxyc_schema.artists (artist_name) VALUES ('Can')")
    db.execute(
        "INSERT INTO wxyc_schema.library (artist_id, artist_name, album_title)"
        " SELECT max(a.id), 'Can', 'Tago Mago ' || n"
        " FROM wxyc_schema.artists AS a, generate_series(1, %s) AS n GROUP BY n",
        (rows,),
    )


def _update(db: Connection, album: int, assignment: str) -> None:
    statement = "UPDATE wxyc_schema.library SET {} WHERE id = %s"
    db.execute(sql.SQL(statement).format(sql.SQL(assignment)), (album,))


@contextmanager
def _warnings_of(db: Connection) -> Iterator[list[str]]:
    said: list[str] = []

    def note(diagnostic: errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            said.append(diagnostic.message_primary or "")

    db.add_notice_handler(note)
    try:
        yield said
    finally:
        db.remove_notice_handler(note)


@contextmanager
def _listening(dsn: str, channel: str) -> Iterator[Callable[[], int]]:
    """Count the wake-ups on a channel; the callable knows of all that were committed before it."""
    heard: list[str] = []
    with psycopg.connect(dsn, autocommit=True) as ear:
        ear.add_notify_handler(lambda notify: heard.append(notify.channel))
        ear.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

        def count() -> int:
            # The answer to a statement brings along what was sent before it.
            ear.execute("SELECT 1")
            return len(heard)

        yield count


@contextmanager
def _in_the_background(dsn: str, statement: str) -> Iterator[Callable[[], list[str]]]:
    """Start a statement of another session that gets blocked; the callable waits for its end.

    It returns the warnings that the statement gave, or raises its error.
    """
    with psycopg.connect(dsn, autocommit=True) as watch, psycopg.connect(dsn) as other:
        other.autocommit = True
        with ThreadPoolExecutor(1) as pool, _warnings_of(other) as said:
            done = pool.submit(other.execute, statement.encode())
            while not done.done() and not _is_blocked(watch, other):
                pass

            def ended() -> list[str]:
                done.result()
                return said

            yield ended


def _is_blocked(watch: Connection, other: Connection) -> bool:
    row = watch.execute(
        "SELECT cardinality(pg_blocking_pids(%s)) > 0", (other.info.backend_pid,)
    ).fetchone()
    return row == (True,)


def _add_identity(db: Connection, album: int, notes: str | None = "consumer:lml-bulk") -> None:
    db.execute(
        "INSERT INTO wxyc_schema.library_identity"
        " (library_id, last_verified_at, method, confidence, notes)"
        " VALUES (%s, now(), 'exact', 0.9, %s)",
        (album, notes),
    )
    db.execute(
        "INSERT INTO wxyc_schema.library_identity_source"
        " (library_id, source, external_id, last_verified_at, method, confidence, notes)"
        " VALUES (%s, 'discogs', '17', now(), 'exact', 0.9, %s)",
        (album, notes),
    )


def test_insert_is_recorded_once(db: Connection) -> None:
    db.execute("INSERT INTO wxyc_schema.artists (artist_name) VALUES ('Low')")
    row = db.execute(
        "INSERT INTO wxyc_schema.library (artist_id, album_title)"
        " SELECT id, 'Hey What' FROM wxyc_schema.artists RETURNING id"
    ).fetchone()
    assert row is not None
    assert waiting(db) == [row[0]]


def test_bulk_insert_records_every_row(db: Connection) -> None:
    _fill(db, 1000)
    assert len(set(waiting(db))) == 1000


@pytest.mark.parametrize(
    "assignment",
    [
        "artist_name = 'Talk Talk'",
        "album_title = 'Codename: Dustsucker'",
        "code_volume_letters = 'ZZ'",
        "legacy_release_id = legacy_release_id + 1000",
        "artist_name = NULL",
    ],
)
def test_update_of_what_matters_is_recorded(db: Connection, album: int, assignment: str) -> None:
    _update(db, album, assignment)
    assert waiting(db) == [album]


@pytest.mark.parametrize(
    "assignment",
    [
        "plays = plays + 1",
        "last_modified = now() + interval '1 day'",
        "artwork_url = 'https://example.org/hex.jpg'",
        "artist_name = artist_name, album_title = album_title",
        "code_volume_letters = NULL",
    ],
)
def test_update_of_anything_else_is_not_recorded(
    db: Connection, album: int, assignment: str
) -> None:
    _update(db, album, assignment)
    assert waiting(db) == []


def test_null_that_is_filled_in_is_recorded(db: Connection, album: int) -> None:
    _update(db, album, "artist_name = NULL")
    db.execute("DELETE FROM listener.change")
    _update(db, album, "artist_name = 'Bark Psychosis'")
    assert waiting(db) == [album]


def test_change_made_by_a_trigger_of_the_backend_is_recorded(db: Connection, album: int) -> None:
    db.execute("""
        CREATE FUNCTION wxyc_schema.rename() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.artist_name := 'Boymerang'; RETURN NEW; END $$;
        CREATE TRIGGER rename BEFORE UPDATE ON wxyc_schema.library
        FOR EACH ROW EXECUTE FUNCTION wxyc_schema.rename()
    """)
    _update(db, album, "plays = 1")
    assert waiting(db) == [album]


def test_bulk_update_records_the_changed_rows_only(db: Connection) -> None:
    _fill(db, 1000)
    db.execute("DELETE FROM listener.change")
    db.execute(
        "UPDATE wxyc_schema.library"
        " SET artist_name = CASE WHEN id % 10 = 0 THEN 'Neu!' ELSE artist_name END"
    )
    assert len(waiting(db)) == 100


def test_upsert_is_recorded_as_what_it_became(db: Connection, album: int) -> None:
    db.execute(
        "INSERT INTO wxyc_schema.library (id, artist_id, album_title)"
        " SELECT %s, artist_id, 'Scum' FROM wxyc_schema.library WHERE id = %s"
        " ON CONFLICT (id) DO UPDATE SET album_title = excluded.album_title",
        (album, album),
    )
    assert waiting(db) == [album]


def test_rolled_back_transaction_leaves_nothing(db: Connection, album: int) -> None:
    with db.transaction(force_rollback=True):
        _update(db, album, "artist_name = 'Disco Inferno'")
        assert waiting(db) == [album]
    assert waiting(db) == []


def test_change_after_a_rollback_to_a_savepoint_is_recorded(db: Connection, album: int) -> None:
    with db.transaction():
        with db.transaction(force_rollback=True):
            _update(db, album, "artist_name = 'Disco Inferno'")
        _update(db, album, "artist_name = 'Insides'")
    assert waiting(db) == [album]


def test_own_write_is_not_recorded_and_the_next_one_of_another_is(
    db: Connection, album: int
) -> None:
    with db.transaction():
        db.execute("SELECT set_config('listener.own_write', 'on', true)")
        db.execute(
            "INSERT INTO wxyc_schema.rotation (album_id, rotation_bin) VALUES (%s, 'H')", (album,)
        )
        db.execute("UPDATE wxyc_schema.rotation SET lml_identity_id = 7")
    assert waiting(db, "rotation") == []
    db.execute("UPDATE wxyc_schema.rotation SET lml_identity_id = 8")
    assert len(waiting(db, "rotation")) == 1


# While sessions stay open, an administrator alters the tables


# PostgreSQL alters no column that a trigger names: a migration of the backend recreates this one.
_DROP_WATERMARK = "DROP TRIGGER IF EXISTS touch_library_watermark ON wxyc_schema.library"


def _alter(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as administrator:
        for statement in (_DROP_WATERMARK, *statements):
            administrator.execute(statement.encode())


@pytest.mark.parametrize(
    ("alteration", "assignment"),
    [
        ("ALTER COLUMN code_volume_letters TYPE text", "code_volume_letters = 'B'"),
        ("ALTER COLUMN legacy_release_id TYPE bigint", "legacy_release_id = 1234"),
        ("RENAME COLUMN legacy_release_id TO old_id", "old_id = 1234"),
        ("ALTER COLUMN id TYPE bigint", "artist_name = 'Seefeel'"),
    ],
)
def test_open_session_keeps_recording_after_a_column_was_altered(
    dsn: str, db: Connection, album: int, alteration: str, assignment: str
) -> None:
    for number in range(2):
        with db.transaction():
            _update(db, album, f"album_title = 'Hex {number}', legacy_release_id = {number}")
            _update(db, album, f"code_volume_letters = 'A{number}'")
            _fill(db, 2)
    db.execute("DELETE FROM listener.change")
    _alter(dsn, f"ALTER TABLE wxyc_schema.library {alteration}")

    with _warnings_of(db) as said:
        _update(db, album, assignment)
        _fill(db, 3)
        with db.transaction():
            _update(db, album, "album_title = 'Pendulum'")
            _update(db, album, "album_title = 'Man'")
            _fill(db, 2)

    assert said == []
    assert waiting(db).count(album) == 3
    assert outbox_size(db) == 8


def test_columns_altered_amid_a_transaction_do_not_stop_the_writer(
    db: Connection, album: int
) -> None:
    db.execute(_DROP_WATERMARK)
    with db.transaction():
        for number in range(3):
            _update(db, album, f"album_title = 'Hex {number}'")
    with _warnings_of(db) as said, db.transaction():
        _update(db, album, "album_title = 'Pendulum'")
        db.execute("ALTER TABLE wxyc_schema.library ALTER COLUMN id TYPE bigint")
        _update(db, album, "album_title = 'Man'")
    assert said == []
    assert waiting(db) == [album] * 5


@pytest.mark.parametrize(
    "alteration",
    ["ALTER COLUMN kill_date TYPE timestamptz", "ALTER COLUMN lml_identity_id TYPE bigint"],
)
def test_open_session_keeps_recording_the_rotation_after_a_column_was_altered(
    dsn: str, db: Connection, album: int, alteration: str
) -> None:
    insert = "INSERT INTO wxyc_schema.rotation (album_id, rotation_bin) VALUES (%s, 'H')"
    end = "UPDATE wxyc_schema.rotation SET kill_date = %s"
    db.execute(insert, (album,))
    db.execute(end, ("2031-05-01",))
    _alter(dsn, f"ALTER TABLE wxyc_schema.rotation {alteration}")
    with _warnings_of(db) as said:
        db.execute(end, ("2031-05-02",))
        db.execute(insert, (album,))
    assert said == []
    assert len(waiting(db, "rotation")) == 4


def test_open_session_clears_a_deleted_row_after_its_id_was_altered(
    dsn: str, db: Connection, album: int
) -> None:
    other = add_release(db, "Seefeel", "Quique")
    _add_identity(db, other)
    db.execute("DELETE FROM wxyc_schema.library WHERE id = %s", (other,))
    _add_identity(db, album)
    _alter(dsn, "ALTER TABLE wxyc_schema.library ALTER COLUMN id TYPE bigint")
    with _warnings_of(db) as said:
        db.execute("DELETE FROM wxyc_schema.library WHERE id = %s", (album,))
    assert said == []


def test_writes_continue_when_the_id_column_itself_is_gone(
    dsn: str, db: Connection, album: int
) -> None:
    _update(db, album, "artist_name = 'Disco Inferno'")
    _alter(dsn, "ALTER TABLE wxyc_schema.library RENAME COLUMN id TO number")
    with _warnings_of(db) as said, db.transaction():
        for name in ("Seefeel", "Insides"):
            db.execute("UPDATE wxyc_schema.library SET artist_name = %s", (name,))
        db.execute("INSERT INTO wxyc_schema.library (artist_id, album_title) VALUES (1, 'Hex')")
    assert [warning.split(":")[0] for warning in said] == [
        "listener could not record a change of library"
    ]
    assert waiting(db) == [album]


def test_updates_that_cannot_be_compared_take_one_subtransaction(dsn: str, db: Connection) -> None:
    _fill(db, 300)
    _update(db, 1, "code_volume_letters = 'F'")
    db.execute("DELETE FROM listener.change")
    _alter(dsn, "ALTER TABLE wxyc_schema.library ALTER COLUMN code_volume_letters TYPE text")
    db.execute("UPDATE wxyc_schema.library SET plays = plays + 1")
    row = db.execute("SELECT count(*), count(DISTINCT xmin::text) FROM listener.change").fetchone()
    assert row == (300, 2)


def test_updates_of_anything_else_take_no_transaction_ids(db: Connection) -> None:
    _fill(db, 300)
    # The server's own work draws ids as well, now and then: it can only add to a figure.
    assert min(_ids_drawn_by_counting_plays(db) for _ in range(10)) == 1


def _ids_drawn_by_counting_plays(db: Connection) -> int:
    """How many transaction ids the server gave away meanwhile, the one that looks included."""
    drawn = "SELECT (pg_current_xact_id()::text::bigint - %s)::int"
    with db.transaction():
        (before,) = db.execute(drawn, (0,)).fetchall()[0]
        db.execute("UPDATE wxyc_schema.library SET plays = plays + 1")
    (since,) = db.execute(drawn, (before,)).fetchall()[0]
    assert isinstance(since, int)
    return since


@pytest.mark.parametrize(
    ("assignment", "recorded"),
    [
        ("kill_date = CURRENT_DATE", True),
        ("kill_date = NULL", True),
        ("lml_identity_id = 8", True),
        ("lml_identity_id = NULL", True),
        ("discogs_release_id = 9", True),
        ("album_id = NULL", True),
        ("rotation_bin = 'L'", False),
        ("artist_name = 'Stereolab'", False),
        ("kill_date = kill_date", False),
    ],
)
def test_rotation_records_changes_that_affect_warming(
    db: Connection, album: int, assignment: str, recorded: bool
) -> None:
    row = db.execute(
        "INSERT INTO wxyc_schema.rotation (album_id, rotation_bin, kill_date, lml_identity_id)"
        " VALUES (%s, 'H', '2031-05-01', 7) RETURNING id",
        (album,),
    ).fetchone()
    assert row is not None
    assert waiting(db, "rotation") == [row[0]]
    db.execute("DELETE FROM listener.change")

    statement = sql.SQL("UPDATE wxyc_schema.rotation SET ") + sql.SQL(assignment)
    db.execute(statement)

    assert waiting(db, "rotation") == ([row[0]] if recorded else [])
    assert waiting(db) == []


# Who writes, and where


@pytest.fixture
def role(db: Connection) -> Iterator[sql.Identifier]:
    """Name of a role without any rights."""
    name = sql.Identifier(f"listener_test_{secrets.token_hex(6)}")
    db.execute(sql.SQL("CREATE ROLE {}").format(name))
    yield name
    db.execute("RESET ROLE")
    db.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(name))
    db.execute(sql.SQL("DROP ROLE {}").format(name))


def test_role_without_rights_on_schema_listener_writes_and_is_recorded(
    db: Connection, album: int, role: sql.Identifier
) -> None:
    for statement in (
        "GRANT USAGE ON SCHEMA wxyc_schema TO {}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wxyc_schema TO {}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA wxyc_schema TO {}",
        "SET ROLE {}",
    ):
        db.execute(sql.SQL(statement).format(role))
    with _warnings_of(db) as said:
        _update(db, album, "artist_name = 'Pram'")
        _fill(db, 3)
        db.execute("DELETE FROM wxyc_schema.library WHERE id = %s", (album,))
    with pytest.raises(errors.InsufficientPrivilege):
        waiting(db)
    db.execute("RESET ROLE")
    assert waiting(db)[0] == album
    assert outbox_size(db) == 4
    assert said == []


def test_objects_in_the_writers_search_path_are_not_used(db: Connection, album: int) -> None:
    db.execute("""
        CREATE TEMPORARY TABLE change (stream text, row_id int);
        CREATE SCHEMA trap;
        CREATE FUNCTION trap.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
        SET search_path = trap, pg_catalog
    """)
    _update(db, album, "artist_name = 'Laika'")
    assert waiting(db) == [album]


def test_backend_schema_may_have_another_name(dsn: str, db: Connection) -> None:
    name = 'The "odd" schéma; {x} -- y'
    create_backend(dsn, name, with_triggers=True)
    on(db, uninstall, BACKEND)
    migrate(dsn, name)
    artists, library = sql.Identifier(name, "artists"), sql.Identifier(name, "library")
    for statement, table, recorded in (
        ("INSERT INTO {} (artist_name) VALUES ('Moonshake')", artists, 0),
        ("INSERT INTO {} (artist_id, album_title) VALUES (1, 'Eva Luna')", library, 1),
        ("UPDATE {} SET album_title = 'Big Good Angel'", library, 2),
        ("DELETE FROM {}", library, 2),
    ):
        db.execute(sql.SQL(statement).format(table))
        assert outbox_size(db) == recorded


# When recording fails


def test_write_continues_with_one_warning_when_the_table_is_gone(db: Connection) -> None:
    db.execute("DROP TABLE listener.change")
    with _warnings_of(db) as said:
        _fill(db, 100)
        assert len(said) == 1
        db.execute("UPDATE wxyc_schema.library SET album_title = 'Ege Bamyasi'")
        assert len(said) == 2
    assert "listener.change" in said[1]
    row = db.execute(
        "SELECT count(*) FROM wxyc_schema.library WHERE album_title = 'Ege Bamyasi'"
    ).fetchone()
    assert row == (100,)


def test_recording_resumes_when_the_table_is_back(db: Connection, album: int) -> None:
    db.execute("ALTER TABLE listener.change RENAME TO away")
    with _warnings_of(db) as said:
        _update(db, album, "artist_name = 'Bowery Electric'")
    db.execute("ALTER TABLE listener.away RENAME TO change")
    _update(db, album, "artist_name = 'Windy & Carl'")
    assert len(said) == 1
    assert waiting(db) == [album]


@pytest.mark.parametrize(
    "revocation",
    ["REVOKE INSERT ON listener.change FROM {}", "REVOKE USAGE ON SCHEMA listener FROM {}"],
)
def test_write_continues_with_a_warning_when_rights_are_revoked(
    db: Connection, album: int, role: sql.Identifier, revocation: str
) -> None:
    _give_functions_to(db, role)
    _update(db, album, "artist_name = 'Movietone'")
    assert waiting(db) == [album]

    db.execute(sql.SQL(revocation).format(role))
    with _warnings_of(db) as said:
        _update(db, album, "artist_name = 'Third Eye Foundation'")
        _fill(db, 5)

    assert len(said) == 2
    assert all("permission denied" in warning for warning in said)
    assert outbox_size(db) == 1


def _give_functions_to(db: Connection, role: sql.Identifier) -> None:
    for statement in (
        "GRANT USAGE, CREATE ON SCHEMA listener TO {}",
        "GRANT INSERT ON listener.change TO {}",
        "ALTER FUNCTION listener.capture_library_insert() OWNER TO {}",
        "ALTER FUNCTION listener.capture_library_update() OWNER TO {}",
    ):
        db.execute(sql.SQL(statement).format(role))


@pytest.mark.parametrize(
    "harm", ["DROP TABLE listener.change", "REVOKE INSERT ON listener.change FROM {}"]
)
def test_write_continues_when_recording_fails_mid_transaction(
    db: Connection, album: int, role: sql.Identifier, harm: str
) -> None:
    _give_functions_to(db, role)
    with _warnings_of(db) as said, db.transaction():
        _update(db, album, "artist_name = 'Crescent'")
        db.execute(sql.SQL(harm).format(role))
        _update(db, album, "artist_name = 'Amp'")
    assert len(said) == 1


def test_write_that_waits_for_the_table_to_be_dropped_continues(
    dsn: str, db: Connection, album: int
) -> None:
    with psycopg.connect(dsn) as operator:
        operator.execute("DROP TABLE listener.change")
        update = "UPDATE wxyc_schema.library SET artist_name = 'Flying Saucer Attack'"
        with _in_the_background(dsn, update) as ended:
            operator.commit()
            assert len(ended()) == 1


def test_many_changes_in_one_transaction_take_at_most_one_subtransaction(
    db: Connection, album: int
) -> None:
    with db.transaction():
        for number in range(100):
            _update(db, album, f"album_title = 'Hex {number}'")
    row = db.execute("SELECT count(*), count(DISTINCT xmin::text) FROM listener.change").fetchone()
    assert row == (100, 2)


def test_bulk_statement_stays_linear_after_single_row_statements(db: Connection) -> None:
    # A plan kept from one-row statements must not be a nested loop over all rows.
    for _ in range(10):
        _fill(db, 1)
    db.execute("SET statement_timeout = '8s'")
    _fill(db, MANY)
    for number in range(10):
        _update(db, number + 1, "album_title = 'Future Days'")
    db.execute("DELETE FROM listener.change")
    db.execute("UPDATE wxyc_schema.library SET artist_name = 'Can (Köln)'")
    assert outbox_size(db) == MANY + 10


# Waking


@pytest.mark.parametrize("statement", ["insert", "update"])
def test_sleeping_daemon_is_woken_once_a_transaction(
    dsn: str, db: Connection, album: int, statement: str
) -> None:
    with _listening(dsn, "listener_library") as heard:
        with db.transaction():
            for number in range(3):
                if statement == "insert":
                    _fill(db, 2)
                else:
                    _update(db, album, f"album_title = 'Hex {number}'")
        assert heard() == 1


def test_awake_daemon_is_not_woken(dsn: str, db: Connection, album: int) -> None:
    with _listening(dsn, "listener_library") as heard, psycopg.connect(dsn) as daemon:
        daemon.execute("SELECT pg_advisory_lock(%s, %s)", LIBRARY_AWAKE)
        _update(db, album, "artist_name = 'Labradford'")
        assert heard() == 0
        daemon.execute("SELECT pg_advisory_unlock(%s, %s)", LIBRARY_AWAKE)
        _update(db, album, "artist_name = 'Stars of the Lid'")
        assert heard() == 1
    assert waiting(db) == [album, album]


def test_streams_are_woken_independently(dsn: str, db: Connection, album: int) -> None:
    with (
        _listening(dsn, "listener_library") as library,
        _listening(dsn, "listener_rotation") as rotation,
        psycopg.connect(dsn) as daemon,
    ):
        daemon.execute("SELECT pg_advisory_lock(%s, %s)", ROTATION_AWAKE)
        insert = "INSERT INTO wxyc_schema.rotation (album_id, rotation_bin) VALUES (%s, 'M')"
        db.execute(insert, (album,))
        _update(db, album, "artist_name = 'Jessamine'")
        assert (library(), rotation()) == (1, 0)
        daemon.rollback()
        daemon.execute("SELECT pg_advisory_unlock_all()")
        db.execute(insert, (album,))
        assert (library(), rotation()) == (1, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE wxyc_schema.library SET plays = plays + 1",
        "UPDATE wxyc_schema.library SET artist_name = 'Fuxa' WHERE id < 0",
        "INSERT INTO wxyc_schema.library (artist_id) SELECT 1 WHERE false",
    ],
)
def test_no_daemon_is_woken_when_nothing_is_recorded(
    dsn: str, db: Connection, album: int, statement: str
) -> None:
    with _listening(dsn, "listener_library") as heard:
        db.execute(statement.encode())
        assert heard() == 0


# Deleting


def test_delete_clears_a_verdict_that_landed_before(db: Connection, album: int) -> None:
    _add_identity(db, album)
    db.execute("DELETE FROM wxyc_schema.library WHERE id = %s", (album,))
    assert db.execute("SELECT library_id FROM wxyc_schema.library_identity").fetchall() == []


@pytest.mark.parametrize("notes", [None, "music director"])
def test_delete_leaves_identities_of_others_to_the_foreign_key(
    db: Connection, album: int, notes: str | None
) -> None:
    _add_identity(db, album, notes)
    with pytest.raises(errors.ForeignKeyViolation):
        db.execute("DELETE FROM wxyc_schema.library WHERE id = %s", (album,))


def test_delete_clears_a_verdict_committed_while_it_waited(
    dsn: str, db: Connection, album: int
) -> None:
    with psycopg.connect(dsn) as verdicts:
        _add_identity(verdicts, album)
        with _in_the_background(dsn, "DELETE FROM wxyc_schema.library") as ended:
            verdicts.commit()
            assert ended() == []
    assert db.execute("SELECT id FROM wxyc_schema.library").fetchall() == []


def test_no_verdict_can_land_while_the_delete_clears(dsn: str, db: Connection, album: int) -> None:
    # A trigger that runs just before ours and waits shows what others can do at that moment.
    db.execute("""
        CREATE FUNCTION wxyc_schema.pause() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN OLD; END $$;
        CREATE TRIGGER a_pause BEFORE DELETE ON wxyc_schema.library
        FOR EACH ROW EXECUTE FUNCTION wxyc_schema.pause()
    """)
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn) as verdicts:
        holder.execute("SELECT pg_advisory_xact_lock(77)")
        with _in_the_background(dsn, "DELETE FROM wxyc_schema.library") as ended:
            verdicts.execute("SET lock_timeout = '50ms'")
            with pytest.raises(errors.LockNotAvailable):
                _add_identity(verdicts, album)
            verdicts.rollback()
            holder.commit()
            assert ended() == []
    assert db.execute("SELECT id FROM wxyc_schema.library").fetchall() == []


def test_delete_continues_with_a_warning_when_clearing_fails(
    db: Connection, album: int, role: sql.Identifier
) -> None:
    db.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA listener TO {}").format(role))
    db.execute(sql.SQL("ALTER FUNCTION listener.clear_deleted_library() OWNER TO {}").format(role))
    with _warnings_of(db) as said:
        db.execute("DELETE FROM wxyc_schema.library WHERE id = %s", (album,))
    assert len(said) == 1
    assert db.execute("SELECT id FROM wxyc_schema.library").fetchall() == []
