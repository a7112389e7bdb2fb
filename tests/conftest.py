"""A real PostgreSQL for the tests: one server a worker, a fresh database a test."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from listener.adapters.postgres.rights import apply_grants
from listener.demo.postgres import create_backend
from tests.database import migrate, on
from tests.server import Choice, UnfitImageError, choose, running

BACKEND = "wxyc_schema"
ROLE_PASSWORD = "geheim"

Connection = psycopg.Connection[tuple[object, ...]]


_CHOICE = pytest.StashKey[Choice]()
_SERVER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose the server once, for all workers."""
    # A shell has what it starts in the background ignore Ctrl-C, and so would all that we start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What a worker of xdist was given by its controller; mypy does not know of it.
    given = getattr(config, "workerinput", None)
    try:
        config.stash[_CHOICE] = Choice(**given["server"]) if given else choose()
    except UnfitImageError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - xdist ships no type for it
    """Hand the choice to a worker."""
    node.workerinput["server"] = asdict(node.config.stash[_CHOICE])


def pytest_report_header(config: pytest.Config) -> str:
    """Name the server."""
    return f"PostgreSQL: {config.stash[_CHOICE].words}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the server."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the server if a test needs it, outside the first test's own time."""
    config = session.config
    needed = any(item.get_closest_marker("database") for item in session.items)
    if needed and not config.option.collectonly:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        config.stash[_SERVER] = stack.enter_context(running(config.stash[_CHOICE]))


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> str:
    """DSN of a server whose databases the tests may create and drop."""
    return pytestconfig.stash[_SERVER]


@pytest.fixture(scope="session")
def template(server: str, worker_id: str) -> Iterator[str]:
    """Name of a database with the backend's tables and the listener installed."""
    name = f"listener_template_{worker_id}"
    with fresh_database(server, name) as dsn:
        create_backend(dsn, BACKEND, with_triggers=True)
        migrate(dsn, BACKEND)
        yield name


@contextmanager
def fresh_database(server: str, name: str, options: sql.Composable | None = None) -> Iterator[str]:
    """Create a database, yield its DSN, and drop it afterwards."""
    create = sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), options or sql.SQL(""))
    with psycopg.connect(server, autocommit=True) as connection:
        _drop(connection, name)
        connection.execute(create)
        yield with_database(server, name)
        _drop(connection, name)


_numbers = itertools.count()


@pytest.fixture
def owner_dsn(server: str, template: str, worker_id: str) -> Iterator[str]:
    """DSN of a fresh database with the backend's tables and the listener installed."""
    copied = sql.SQL("TEMPLATE {}").format(sql.Identifier(template))
    with fresh_database(server, f"listener_{worker_id}_{next(_numbers)}", copied) as dsn:
        yield dsn


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
    on(db, apply_grants, BACKEND, name)
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


def address_of(url: str) -> tuple[str, int]:
    """Return the host, or the folder of the socket, and the port of a server."""
    parts = conninfo_to_dict(url)
    return str(parts["host"]), int(parts.get("port") or 5432)


def through(url: str, port: int) -> str:
    """Return the URL of the same database behind another port of this machine."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0] or "postgres"
    return parts._replace(netloc=f"{login}@127.0.0.1:{port}", query="").geturl()


def _drop(connection: Connection, name: str) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    connection.execute(statement)
