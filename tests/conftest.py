"""A real PostgreSQL for the tests: one server a worker, a fresh database a test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from listener.adapters.demo.postgres import create_backend, embedded_postgres
from listener.adapters.postgres.installation import install, installing

BACKEND = "wxyc_schema"

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
def dsn(server: str, template: str, worker_id: str) -> Iterator[str]:
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
def db(dsn: str) -> Iterator[Connection]:
    """Yield a writer of the backend: a connection in autocommit mode."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _drop(connection: Connection, name: str) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    connection.execute(statement)
