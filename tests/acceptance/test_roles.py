"""A role of its own for the daemon: printed, granted, and enough after an upgrade."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.conftest import Commands
from tests.acceptance.test_look import look
from tests.conftest import ROLE_PASSWORD, Connection, as_role

pytestmark = pytest.mark.timeout(60)


def test_printed_statements_change_nothing(owner_dsn: str, db: Connection, role: str) -> None:
    db.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
    printed = look(owner_dsn, "roles", "--role", role)
    assert (printed.returncode, printed.stderr) == (0, "")
    lines = printed.stdout.splitlines()
    assert all(line.startswith(("GRANT ", "REVOKE ")) and line.endswith(";") for line in lines)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        look_at_ledger(owner_dsn, role)
    # What is printed is what a person may pipe into psql.
    db.execute(printed.stdout.encode())
    look_at_ledger(owner_dsn, role)


def look_at_ledger(owner_dsn: str, role: str) -> None:
    with psycopg.connect(as_role(owner_dsn, role)) as daemon:
        daemon.execute("SELECT library_id FROM listener.ledger")


def test_role_is_created_and_granted_repeatedly(
    owner_dsn: str, db: Connection, listener: Commands, worker_id: str
) -> None:
    name = f"listener_fresh_{worker_id}"
    identifier = sql.Identifier(name)
    try:
        made = look(owner_dsn, "roles", "--role", name, "--apply")
        assert (made.returncode, made.stderr) == (0, "")
        assert made.stdout.startswith(f'CREATE ROLE "{name}" LOGIN;\n')
        db.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(identifier, ROLE_PASSWORD))
        fresh = as_role(owner_dsn, name)
        doctor = listener.run("doctor", "--before-start", "--json", DATABASE_URL=fresh)
        findings = json.loads(doctor.stdout)
        assert {finding["state"] for finding in findings} == {"ok"}
        again = look(owner_dsn, "roles", "--role", name, "--apply")
        # Neither the role nor what triggers of the backend need is missing any more.
        assert again.stdout.splitlines() == made.stdout.splitlines()[1:-1]
        assert "library_watermark" in made.stdout.splitlines()[-1]
        assert listener.run("sweep", DATABASE_URL=fresh).code == 0
    finally:
        db.execute(sql.SQL("DROP OWNED BY {}").format(identifier))
        db.execute(sql.SQL("DROP ROLE {}").format(identifier))


def test_owner_without_the_right_to_grant_gets_an_error(dsn: str) -> None:
    refused = look(dsn, "roles", "--role", "pg_monitor", "--apply")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "listener: could not grant " in refused.stderr
    assert "; run it as the owner of these tables" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_role_without_createrole_is_told_what_to_have_run(dsn: str, role: str) -> None:
    refused = look(dsn, "roles", "--role", "somebody_new", "--apply")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"permission denied to create role; give {role} CREATEROLE" in refused.stderr
    assert 'run this first: CREATE ROLE "somebody_new" LOGIN' in refused.stderr


@pytest.mark.parametrize("command", [("migrate",), ("uninstall", "--yes")])
def test_role_that_may_not_install_is_told_which_one_may(
    dsn: str, command: tuple[str, ...]
) -> None:
    refused = look(dsn, *command)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "; run it as the owner of the backend's tables" in refused.stderr


def test_grant_that_the_daemon_lacks_for_reading_is_named(
    db: Connection, listener: Commands, role: str
) -> None:
    db.execute(sql.SQL("REVOKE USAGE ON SCHEMA listener FROM {}").format(sql.Identifier(role)))
    refused = listener.run("run")
    assert refused.code == 2
    assert "permission denied for schema listener; run `listener roles" in refused.stderr


@pytest.mark.parametrize("applying", [(), ("--apply",)])
def test_role_that_would_lose_what_it_owns_is_refused(
    owner_dsn: str, dsn: str, db: Connection, role: str, applying: tuple[str, ...]
) -> None:
    owner = str(db.execute("SELECT current_user").fetchall()[0][0])
    itself = look(owner_dsn, "roles", "--role", owner, *applying)
    assert (itself.returncode, itself.stdout) == (2, "")
    assert f"connected as role {owner}" in itself.stderr
    of_another = look(dsn, "roles", "--role", owner, *applying)
    assert (of_another.returncode, of_another.stdout) == (2, "")
    assert f"role {owner} owns schema listener" in of_another.stderr
    db.execute(sql.SQL("ALTER TABLE listener.ledger OWNER TO {}").format(sql.Identifier(role)))
    of_a_part = look(owner_dsn, "roles", "--role", role, *applying)
    assert (of_a_part.returncode, of_a_part.stdout) == (2, "")
    assert "or part of it" in of_a_part.stderr
    look_at_ledger(owner_dsn, role)


def test_role_without_a_name_is_refused(owner_dsn: str) -> None:
    refused = look(owner_dsn, "roles", "--role", "")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--role is empty" in refused.stderr


def test_nothing_is_granted_before_the_installation(owner_dsn: str, db: Connection) -> None:
    db.execute("DROP SCHEMA listener CASCADE")
    refused = look(owner_dsn, "roles", "--role", "somebody")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "run `listener migrate`" in refused.stderr


def test_nothing_is_granted_on_a_schema_without_the_backend(
    listener: Commands, owner_dsn: str, role: str
) -> None:
    wrong = {"DATABASE_URL": owner_dsn, "WXYC_SCHEMA_NAME": "wxyc_shema"}
    refused = listener.run("roles", "--role", role, **wrong)
    assert (refused.code, refused.stdout) == (2, "")
    assert "is WXYC_SCHEMA_NAME the backend's schema?" in refused.stderr


def test_missing_right_stops_nothing_else_and_doctor_names_it(
    db: Connection, listener: Commands, role: str
) -> None:
    db.execute(sql.SQL("REVOKE INSERT ON listener.ledger FROM {}").format(sql.Identifier(role)))
    seen = listener.run("doctor")
    assert seen.code == 1
    assert "missing: INSERT on listener.ledger" in seen.stdout
    swept = listener.run("sweep")
    assert "Traceback" not in swept.stderr
