"""Row level security on the backend's tables: a row that is not seen is not taken for deleted."""

from __future__ import annotations

import pytest
from psycopg import sql

from tests.acceptance.conftest import Commands, Start, eventually
from tests.acceptance.test_look import look
from tests.catalogue import add_release, count, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(90)

POLICY = "query would be affected by row-level security policy"


def secure(db: Connection, name: str, action: str = "ENABLE") -> None:
    db.execute(sql.SQL(f"ALTER TABLE {{}} {action} ROW LEVEL SECURITY").format(table(name)))


def test_hidden_rows_are_not_settled_as_deleted(db: Connection, start: Start) -> None:
    secure(db, "library")
    daemon = start().following()
    for _ in range(5):
        add_release(db)
    eventually(lambda: any(POLICY in str(event.get("reason")) for event in list(daemon.events)), 20)
    secure(db, "library", "DISABLE")
    eventually(lambda: count(db, "library_identity") == 5, 60)


def test_search_that_cannot_see_all_rows_reports_it(db: Connection, listener: Commands) -> None:
    add_release(db)
    secure(db, "library")
    swept = listener.run("sweep")
    assert swept.code == 2
    assert POLICY in swept.stderr


@pytest.mark.parametrize("name", ["library", "rotation", "library_identity_source"])
def test_doctor_and_roles_name_the_table(
    db: Connection, listener: Commands, owner_dsn: str, role: str, name: str
) -> None:
    secure(db, name)
    seen = listener.run("doctor", "--before-start")
    assert seen.code == 1
    assert f"row level security may hide rows of {table(name).as_string(db)}".replace('"', "") in (
        seen.stdout
    )
    assert "BYPASSRLS" in seen.stdout
    granted = look(owner_dsn, "roles", "--role", role, "--apply")
    assert granted.returncode == 0
    assert "row level security applies to" in granted.stderr
    db.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(sql.Identifier(role)))
    try:
        assert listener.run("doctor", "--before-start").code == 0
    finally:
        db.execute(sql.SQL("ALTER ROLE {} NOBYPASSRLS").format(sql.Identifier(role)))
