"""A role that may do just what the daemon does: granted, looked for, and nothing beyond it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors, sql

from listener.adapters.demo.postgres import create_backend
from listener.adapters.postgres.examination import Rights, examining, read_rights
from listener.adapters.postgres.installation import InstallationError
from listener.adapters.postgres.rights import Right, apply_grants, grants, list_rights
from listener.bootstrap.doctor import State, judge_rights
from tests.catalogue import add_release, table
from tests.conftest import BACKEND, Connection, as_role

LOCK = "UPDATE (id)"


def rights(dsn: str, backend: str = BACKEND) -> Rights:
    with examining(dsn) as connection:
        return read_rights(connection, backend)


def granted(db: Connection, role: str) -> list[Right]:
    return list_rights(db, BACKEND, role)


def withdraw(db: Connection, right: Right, role: str) -> None:
    """Take one right away, also what everybody has."""
    for whom in (role, "PUBLIC"):
        name = sql.SQL(whom) if whom == "PUBLIC" else sql.Identifier(whom)
        db.execute(
            sql.SQL("REVOKE {} ON {} {} FROM {}").format(
                sql.SQL(right.wanted_right),
                sql.SQL(right.kind),
                sql.Identifier(*filter(None, (right.schema_name, right.name))),
                name,
            )
        )


def test_what_is_granted_is_all_that_is_looked_for(dsn: str, role: str) -> None:
    assert rights(as_role(dsn, role)) == Rights((), ())


def test_each_right_that_was_withdrawn_is_named(db: Connection, dsn: str, role: str) -> None:
    everything = granted(db, role)
    assert len(everything) > 30
    # Without them there is no way to look.
    looked = [each for each in everything if each.kind != "DATABASE"]
    for right in looked:
        with db.transaction(force_rollback=True):
            withdraw(db, right, role)
            lacking = [each for each in granted(db, role) if not each.granted]
            assert lacking == [
                Right(right.kind, right.schema_name, right.name, right.wanted_right, False)
            ]
    withdraw(db, looked[-1], role)
    seen = rights(as_role(dsn, role))
    assert seen.lacking == (f"{looked[-1].wanted_right} on {looked[-1].thing}",)
    (finding,) = judge_rights(seen)
    assert finding.state is State.FAIL
    assert seen.lacking[0] in finding.finding
    assert "listener roles" in finding.advice


def test_every_table_of_ours_has_its_rights(db: Connection, role: str) -> None:
    tables = db.execute(
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'listener'::regnamespace"
        " AND c.relkind IN ('r', 'p', 'v')"
    ).fetchall()
    listed = {right.name for right in granted(db, role) if right.schema_name == "listener"}
    assert {name for (name,) in tables} <= listed, "name it in sql/queries/list_rights.sql"
    wanted = {right.wanted_right for right in granted(db, role) if right.name == "rotation_failure"}
    assert wanted == {"SELECT", "INSERT", "UPDATE", "DELETE"}


@pytest.mark.parametrize(
    "forbidden",
    [
        "DELETE FROM {backend}.library",
        "UPDATE {backend}.library SET album_title = 'x'",
        "INSERT INTO {backend}.library (artist_id, album_title) VALUES (1, 'x')",
        "TRUNCATE {backend}.library CASCADE",
        "ALTER TABLE {backend}.library DISABLE TRIGGER ALL",
        "ALTER TABLE {backend}.library ADD COLUMN x int",
        "DROP TABLE {backend}.library CASCADE",
        "CREATE TRIGGER x AFTER INSERT ON {backend}.library EXECUTE FUNCTION suppress()",
        "UPDATE {backend}.rotation SET kill_date = now()",
        "DELETE FROM {backend}.rotation",
        "INSERT INTO {backend}.artists (artist_name) VALUES ('x')",
        "UPDATE {backend}.compilation_track_artist SET artist_name = 'x'",
        "DELETE FROM {backend}.compilation_track_artist",
        "UPDATE {backend}.library_identity_history SET notes = 'x'",
        "DELETE FROM {backend}.library_identity_history",
        "CREATE TABLE {backend}.mine (x int)",
        "CREATE TABLE listener.mine (x int)",
        "CREATE SCHEMA mine",
        "DROP SCHEMA listener CASCADE",
        "TRUNCATE listener.change",
        "UPDATE listener.change SET row_id = 1",
        "DROP TRIGGER listener_capture_insert ON {backend}.library",
        "DELETE FROM listener.installed",
        "SELECT listener.capture_library_insert()",
        "SET ROLE postgres",
        "ALTER ROLE CURRENT_USER CREATEROLE",
    ],
)
def test_nothing_beyond_it_is_allowed(db: Connection, dsn: str, role: str, forbidden: str) -> None:
    add_release(db)
    with psycopg.connect(as_role(dsn, role), autocommit=True) as daemon:
        statement = sql.SQL(forbidden).format(backend=sql.Identifier(BACKEND))
        with pytest.raises(errors.InsufficientPrivilege):
            daemon.execute(statement)


def test_what_it_had_too_much_in_our_schema_is_taken_away(db: Connection, role: str) -> None:
    name = sql.Identifier(role)
    db.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA listener TO {}").format(name))
    for statement in grants(db, BACKEND, role):
        db.execute(statement.encode())
    assert db.execute(
        "SELECT has_table_privilege(%s, 'listener.installed', 'DELETE')", (role,)
    ).fetchone() == (False,)
    assert all(right.granted for right in granted(db, role))


def test_grants_that_are_only_warned_about_are_refused(db: Connection, dsn: str, role: str) -> None:
    name = sql.Identifier(role)
    everything = "GRANT ALL ON ALL {} IN SCHEMA listener, {} TO {}"
    for kind in ("TABLES", "SEQUENCES", "ROUTINES"):
        db.execute(sql.SQL(everything).format(sql.SQL(kind), sql.Identifier(BACKEND), name))
    with (
        psycopg.connect(as_role(dsn, role), autocommit=True) as nobody,
        pytest.raises(
            InstallationError, match=r"could not grant .* on listener\.ledger.* as the owner"
        ),
    ):
        apply_grants(nobody, BACKEND, "pg_monitor")


def test_another_column_that_may_be_updated_is_enough_for_a_row_lock(
    db: Connection, dsn: str, role: str
) -> None:
    name = sql.Identifier(role)
    db.execute(sql.SQL("REVOKE UPDATE (id) ON {} FROM {}").format(table("library"), name))
    db.execute(sql.SQL("GRANT UPDATE (label) ON {} TO {}").format(table("library"), name))
    assert rights(as_role(dsn, role)) == Rights((), ())


def test_one_of_several_columns_is_not_enough_to_write_them(db: Connection, role: str) -> None:
    name = sql.Identifier(role)
    tracks = table("compilation_track_artist")
    db.execute(sql.SQL("REVOKE UPDATE (track_artist_id) ON {} FROM {}").format(tracks, name))
    (lacking,) = [right for right in granted(db, role) if not right.granted]
    assert lacking.thing == f"{BACKEND}.compilation_track_artist"


def test_history_that_a_backend_does_not_have_is_not_asked_for(db: Connection, role: str) -> None:
    db.execute(sql.SQL("DROP TABLE {}").format(table("library_identity_history")))
    assert not any(right.granted is None for right in granted(db, role))
    assert not any("history" in statement for statement in grants(db, BACKEND, role))


def test_role_and_backend_may_have_any_name(dsn: str, db: Connection) -> None:
    odd_role, odd_backend = 'Odd "role" 1', 'Odd "schema" 1'
    create_backend(dsn, odd_backend, with_triggers=False)
    with db.transaction(force_rollback=True):
        statements = grants(db, odd_backend, odd_role)
        assert statements[0] == 'CREATE ROLE "Odd ""role"" 1" LOGIN'
        for statement in statements:
            db.execute(statement.encode())
        assert all(right.granted for right in list_rights(db, odd_backend, odd_role))
