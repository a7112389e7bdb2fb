"""A role that may do just what the daemon does: granted, looked for, and nothing beyond it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors, sql

from listener.adapters.postgres.examination import read_rights, rehearsing
from listener.adapters.postgres.rights import Right, apply_grants, list_rights, plan_grants
from listener.adapters.postgres.sessions import query
from listener.demo.postgres import create_backend
from listener.domain.database import Rights, judge_rights
from listener.domain.faults import InstallationError
from listener.domain.finding import State
from tests.catalogue import add_release, table
from tests.conftest import BACKEND, ROLE_PASSWORD, Connection, as_role
from tests.database import finish, migrate, on

LOCK = "UPDATE (id)"


def rights(dsn: str, backend: str = BACKEND) -> Rights:
    async def reading() -> Rights:
        async with rehearsing(dsn) as connection:
            return await read_rights(connection, backend)

    return finish(reading())


def granted(db: Connection, role: str) -> list[Right]:
    return on(db, list_rights, BACKEND, role)


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


def test_granted_rights_are_exactly_the_required_ones(dsn: str, role: str) -> None:
    assert rights(as_role(dsn, role)) == Rights((), ())


def test_each_right_that_was_withdrawn_is_named(db: Connection, dsn: str, role: str) -> None:
    everything = granted(db, role)
    assert len(everything) > 30
    # Without them nothing can be checked.
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


def test_every_object_of_ours_has_its_rights(db: Connection, role: str) -> None:
    # Nobody calls the functions of triggers, so they need none.
    ours = db.execute(
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'listener'::regnamespace"
        " AND c.relkind IN ('r', 'p', 'v')"
        " UNION ALL SELECT p.proname FROM pg_proc AS p"
        " WHERE p.pronamespace = 'listener'::regnamespace AND p.prorettype <> 'trigger'::regtype"
    ).fetchall()
    listed = {right.name for right in granted(db, role) if right.schema_name == "listener"}
    assert {name for (name,) in ours} <= listed, "name it in listener/adapters/postgres/rights.py"
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
def test_role_may_do_nothing_else(db: Connection, dsn: str, role: str, forbidden: str) -> None:
    add_release(db)
    with psycopg.connect(as_role(dsn, role), autocommit=True) as daemon:
        statement = sql.SQL(forbidden).format(backend=sql.Identifier(BACKEND))
        with pytest.raises(errors.InsufficientPrivilege):
            daemon.execute(statement)


def test_excess_rights_in_our_schema_are_revoked(db: Connection, role: str) -> None:
    name = sql.Identifier(role)
    db.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA listener TO {}").format(name))
    on(db, apply_grants, BACKEND, role)
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
        on(nobody, apply_grants, BACKEND, "pg_monitor")


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


def test_rights_on_a_missing_history_are_not_required(db: Connection, role: str) -> None:
    db.execute(sql.SQL("DROP TABLE {}").format(table("library_identity_history")))
    assert not any(right.granted is None for right in granted(db, role))
    assert not any(
        "history" in statement for statement in on(db, plan_grants, BACKEND, role).statements
    )


def test_role_and_backend_may_have_any_name(dsn: str, db: Connection) -> None:
    odd_role, odd_backend = 'Odd "role" 1', 'Odd "schema" 1'
    create_backend(dsn, odd_backend, with_triggers=False)
    with db.transaction(force_rollback=True):
        statements = on(db, plan_grants, odd_backend, odd_role).statements
        assert statements[0] == 'CREATE ROLE "Odd ""role"" 1" LOGIN'
        for statement in statements:
            db.execute(statement.encode())
        assert all(right.granted for right in on(db, list_rights, odd_backend, odd_role))


def withdraw_watermark(db: Connection, role: str) -> None:
    statement = sql.SQL("REVOKE ALL ON {} FROM {}")
    db.execute(statement.format(table("library_watermark"), sql.Identifier(role)))


def test_rights_that_backend_triggers_need_are_granted(db: Connection, dsn: str, role: str) -> None:
    assert rights(as_role(dsn, role)) == Rights((), ())
    withdraw_watermark(db, role)
    refused = rights(as_role(dsn, role))
    assert refused.refused == ("fill_identities: permission denied for table library_watermark",)
    (finding,) = judge_rights(refused)
    assert finding.state is State.FAIL
    assert "permission denied for table library_watermark" in finding.finding
    assert "listener roles" in finding.advice
    added = on(db, plan_grants, BACKEND, role).statements[-1]
    assert added == f'GRANT SELECT, UPDATE ON TABLE {BACKEND}.library_watermark TO "{role}"'
    assert rights(as_role(dsn, role)) == refused


def trigger(db: Connection, name: str, event: str, body: str) -> None:
    """Have the backend do something after each such statement, with the rights of its writer."""
    made = sql.SQL(
        "CREATE FUNCTION {0}.also() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN {2} RETURN NULL; END $$;"
        "CREATE TRIGGER also AFTER {3} ON {1} FOR EACH STATEMENT EXECUTE FUNCTION {0}.also()"
    )
    parts = (sql.SQL(body).format(backend=sql.Identifier(BACKEND)), sql.SQL(event))
    db.execute(made.format(sql.Identifier(BACKEND), table(name), *parts))


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("rotation", "UPDATE OF lml_identity_id"),
        ("compilation_track_artist", "UPDATE OF track_artist_id"),
        ("library_identity", "INSERT"),
        ("library_identity", "UPDATE"),
        ("library_identity", "DELETE"),
        ("library_identity_source", "INSERT"),
        ("library_identity_source", "UPDATE"),
        ("library_identity_source", "DELETE"),
        ("library_identity_history", "INSERT"),
    ],
)
def test_each_kind_of_write_is_tried(
    db: Connection, dsn: str, role: str, name: str, event: str
) -> None:
    db.execute(sql.SQL("CREATE TABLE {} (at timestamptz)").format(table("audit_log")))
    trigger(db, name, event, "INSERT INTO {backend}.audit_log VALUES (now());")
    assert "permission denied for table audit_log" in rights(as_role(dsn, role)).refused[0]
    granted = on(db, apply_grants, BACKEND, role)
    assert f'GRANT INSERT ON TABLE {BACKEND}.audit_log TO "{role}"' in granted.statements
    assert rights(as_role(dsn, role)) == Rights((), ())


@pytest.mark.parametrize(
    ("made", "body", "grant"),
    [
        (
            "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.seen (x int)",
            "DELETE FROM elsewhere.seen;",
            ["USAGE ON SCHEMA elsewhere", "DELETE ON TABLE elsewhere.seen"],
        ),
        (
            "CREATE SEQUENCE {backend}.counted",
            "PERFORM nextval('{backend}.counted');",
            ["USAGE ON SEQUENCE {backend}.counted"],
        ),
        (
            """CREATE FUNCTION {backend}.f(i int) RETURNS int LANGUAGE sql AS 'SELECT 1';
            REVOKE ALL ON FUNCTION {backend}.f FROM PUBLIC""",
            "PERFORM {backend}.f(1);",
            ["EXECUTE ON ROUTINE {backend}.f(integer)"],
        ),
        (
            'CREATE TABLE {backend}."Odd ""log""" (x int)',
            'UPDATE {backend}."Odd ""log""" SET x = 1;',
            ['UPDATE ON TABLE {backend}."Odd ""log"""'],
        ),
    ],
)
def test_any_right_that_a_trigger_needs_is_found(
    db: Connection, role: str, made: str, body: str, grant: list[str]
) -> None:
    db.execute(sql.SQL(made).format(backend=sql.Identifier(BACKEND)))
    trigger(db, "rotation", "UPDATE", body)
    wanted = [f'GRANT {each.format(backend=BACKEND)} TO "{role}"' for each in grant]
    assert on(db, plan_grants, BACKEND, role).statements[-len(wanted) :] == wanted


def test_server_that_speaks_another_language_is_understood(db: Connection) -> None:
    refusal = "fill_identities: keine Berechtigung für Tabelle library_watermark"
    grants = db.execute(query("list_grants", BACKEND), {"refusal": refusal}).fetchall()
    assert grants[0] == (f"SELECT ON TABLE {BACKEND}.library_watermark",)


def test_refusal_that_no_grant_resolves_is_reported(db: Connection, role: str) -> None:
    trigger(
        db,
        "rotation",
        "UPDATE",
        "RAISE EXCEPTION 'only on weekdays' USING ERRCODE = 'insufficient_privilege';",
    )
    with pytest.raises(
        InstallationError, match=r"fill_identities: .* no grant by .* resolves that"
    ):
        on(db, apply_grants, BACKEND, role)


def test_missing_membership_in_the_role_is_reported(db: Connection, dsn: str, role: str) -> None:
    as_owner = on(db, plan_grants, BACKEND, role)
    with psycopg.connect(as_role(dsn, role), autocommit=True) as nobody:
        printed = on(nobody, plan_grants, BACKEND, "pg_monitor")
    assert as_owner.untried is None
    assert printed.untried is not None
    assert printed.statements


def test_trial_leaves_nothing_behind(db: Connection, dsn: str, role: str) -> None:
    watermark = sql.SQL("SELECT last_modified_at, xmin::text FROM {}").format(
        table("library_watermark")
    )
    before = db.execute(watermark).fetchone()
    assert rights(as_role(dsn, role)) == Rights((), ())
    on(db, plan_grants, BACKEND, role)
    assert db.execute(watermark).fetchone() == before
    assert db.execute(
        "SELECT pg_has_role(current_user, %s, 'MEMBER') AND NOT rolsuper FROM pg_roles"
        " WHERE rolname = current_user",
        (role,),
    ).fetchone() == (False,)


def test_locked_row_that_a_trigger_updates_is_not_a_missing_right(
    db: Connection, dsn: str, role: str
) -> None:
    with db.transaction():
        db.execute(sql.SQL("SELECT FROM {} FOR UPDATE").format(table("library_watermark")))
        (finding,) = judge_rights(rights(as_role(dsn, role)))
    assert finding.state is State.WARN
    assert "test writes failed" in finding.finding


@pytest.fixture
def plain_owner(db: Connection, owner_dsn: str, worker_id: str) -> Iterator[str]:
    """Yield the DSN of a role that owns a backend of its own and may make roles, and no more."""
    name = f"listener_owner_{worker_id}"
    identifier = sql.Identifier(name)
    password = sql.Literal(ROLE_PASSWORD)
    db.execute("DROP SCHEMA listener CASCADE")
    db.execute(
        sql.SQL(
            "CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}; GRANT CREATE ON DATABASE {} TO {}"
        ).format(identifier, password, sql.Identifier(db.info.dbname), identifier)
    )
    yield as_role(owner_dsn, name)
    for member in (f"{name}_daemon", name):
        dropped = sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}")
        db.execute(dropped.format(sql.Identifier(member)))


def test_owner_without_superuser_finds_what_a_new_role_needs(
    db: Connection, plain_owner: str
) -> None:
    create_backend(plain_owner, "others", with_triggers=True)
    migrate(plain_owner, "others")
    with psycopg.connect(plain_owner, autocommit=True) as owner:
        name = f"{owner.info.user}_daemon"
        planned = on(owner, plan_grants, "others", name)
        assert on(owner, apply_grants, "others", name) == planned
        again = on(owner, plan_grants, "others", name)
    assert planned.untried is None
    assert planned.statements[-1].startswith(
        "GRANT SELECT, UPDATE ON TABLE others.library_watermark"
    )
    assert again.untried is None
    assert again.statements == planned.statements[1:-1]
    assert all(right.granted for right in on(db, list_rights, "others", name))
