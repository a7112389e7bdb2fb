"""A database whose administrator has set it, or the role, as suits others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from listener.demo.postgres import create_backend
from tests.acceptance.conftest import Commands, Start, eventually
from tests.acceptance.test_look import look
from tests.catalogue import add_release, count, outbox_size, rename
from tests.conftest import BACKEND, Connection, fresh_database

pytestmark = pytest.mark.timeout(90)

SETTINGS = {
    "IntervalStyle": "sql_standard",
    "DateStyle": "German, DMY",
    "client_encoding": "LATIN1",
    "timezone": "Asia/Kathmandu",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "array_nulls": "off",
    "extra_float_digits": "-15",
    "statement_timeout": "20s",
}
LOOKS: list[tuple[str, ...]] = [
    ("status", "--json"),
    ("parked", "--json"),
    ("history", "1"),
    ("why", "1"),
    ("doctor", "--before-start"),
    ("backfill", "--plan"),
]


@pytest.fixture
def foreign(db: Connection, request: pytest.FixtureRequest) -> None:
    """Set the database as `SETTINGS` say, or as the test says."""
    for name, value in getattr(request, "param", SETTINGS).items():
        statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
        db.execute(statement.format(sql.Identifier(db.info.dbname), sql.SQL(name), value))


@pytest.mark.usefixtures("foreign")
def test_daemon_works_whatever_the_database_is_set_to(db: Connection, start: Start) -> None:
    release = add_release(db, "Björk", "Début")
    daemon = start().following()
    eventually(lambda: count(db, "library_identity") == 1 and not outbox_size(db), 20)
    rename(db, release, "Sigur Rós")
    eventually(lambda: not outbox_size(db), 20)
    assert daemon.stop() == 0
    assert not any(event["level"] in {"warning", "error"} for event in daemon.events)


@pytest.mark.parametrize(
    "foreign",
    [SETTINGS, {"client_encoding": "SQL_ASCII"}, {"client_encoding": "EUC_TW"}],
    indirect=True,
)
@pytest.mark.usefixtures("foreign")
def test_commands_work_whatever_the_database_is_set_to(
    db: Connection, listener: Commands, owner_dsn: str, role: str
) -> None:
    add_release(db, "Björk", "Début")
    swept = listener.run("sweep", "--json")
    assert (swept.code, swept.report["rows_resolved"]) == (0, 1)
    for arguments in LOOKS:
        looked = listener.run(*arguments)
        assert (looked.code, looked.stderr) == (0, ""), arguments
    for arguments in (("migrate",), ("migrate", "--check"), ("roles", "--role", role)):
        assert look(owner_dsn, *arguments).returncode == 0, arguments


@pytest.fixture
def encoded(server: str, request: pytest.FixtureRequest, worker_id: str) -> Iterator[str]:
    """Yield the DSN of a database in the encoding that the test asks for."""
    options = sql.SQL("ENCODING {} LOCALE 'C' TEMPLATE template0").format(request.param)
    with fresh_database(server, f"listener_encoded_{worker_id}", options) as dsn:
        yield dsn


@pytest.mark.parametrize("encoded", ["SQL_ASCII", "LATIN1"], indirect=True)
@pytest.mark.parametrize(
    "command",
    [("run",), ("sweep",), ("migrate",), ("migrate", "--check"), ("status",), ("why", "1")],
)
def test_database_that_cannot_hold_unicode_is_named_at_the_start(
    encoded: str, listener: Commands, command: tuple[str, ...]
) -> None:
    create_backend(encoded, BACKEND, with_triggers=False)
    refused = listener.run(*command, DATABASE_URL=encoded)
    assert (refused.code, refused.stdout) == (2, "")
    assert "is encoded in " in refused.stderr
    assert "UTF8" in refused.stderr
