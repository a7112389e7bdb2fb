"""A real PostgreSQL for the tests: one server a worker, a fresh database a test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from listener.adapters.demo.postgres import create_backend, embedded_postgres
from listener.adapters.postgres.installation import install, installing
from listener.adapters.postgres.rights import grants

BACKEND = "wxyc_schema"
ROLE_PASSWORD = "geheim"

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """DSN of a server whose databases the tests may create and drop."""
    given = os.environ.get("LISTENER_TEST_DATABASE_URL")  # noqa: TID251 - a setting of the tests
    with ExitStack() as stack:
        if given is None:
            # Short and outside pytest's folders: a socket's path may not exceed 107 characters.
            folder = Path(tempfile.mkdtemp(prefix="listener-test-"))
            folder.chmod(0o755)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            given = stack.enter_context(embedded_postgres(folder / "data"))
            with psycopg.connect(given, autocommit=True) as connection:
                for setting in ("fsync", "full_page_writes"):
                    name = sql.Identifier(setting)
                    connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(name))
                connection.execute("SELECT pg_reload_conf()")
        yield given


@pytest.fixture(scope="session")
def template(server: str, worker_id: str) -> Iterator[str]:
    """Name of a database with the backend's tables and the listener installed."""
    name = f"listener_template_{worker_id}"
    with psycopg.connect(server, autocommit=True) as connection:
        _drop(connection, name)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        dsn = with_database(server, name)
        create_backend(dsn, BACKEND, with_triggers=True)
        with installing(dsn) as installer:
            install(installer, BACKEND)
        yield name
        _drop(connection, name)


_numbers = itertools.count()


@pytest.fixture
def owner_dsn(server: str, template: str, worker_id: str) -> Iterator[str]:
    """DSN of a fresh database with the backend's tables and the listener installed."""
    name = f"listener_{worker_id}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        yield with_database(server, name)
        _drop(connection, name)


@pytest.fixture
def dsn(owner_dsn: str) -> str:
    """Where the test connects: as the owner, unless it says otherwise."""
    return owner_dsn


@pytest.fixture
def db(owner_dsn: str) -> Iterator[Connection]:
    """Yield a writer of the backend: a connection in autocommit mode."""
    with psycopg.connect(owner_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(db: Connection, worker_id: str) -> Iterator[str]:
    """Name a role that may do what `listener roles` grants, and no more."""
    name = f"listener_daemon_{worker_id}"
    for statement in grants(db, BACKEND, name):
        db.execute(statement.encode())
    db.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), ROLE_PASSWORD))
    yield name
    db.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    # Databases of a run that was killed may still name it.
    with suppress(psycopg.errors.DependentObjectsStillExist):
        db.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def as_role(dsn: str, role: str) -> str:
    """Return the DSN with another role, made by the fixture `role`."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{ROLE_PASSWORD}@{host}").geturl()


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _drop(connection: Connection, name: str) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    connection.execute(statement)
