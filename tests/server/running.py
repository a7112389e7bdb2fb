"""Running the server that was chosen for as long as a worker needs it."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from listener.demo.postgres import embedded_postgres
from tests.server.choice import Choice
from tests.server.containers import removed_afterwards

if TYPE_CHECKING:
    from testcontainers.community.postgres import PostgresContainer

# It is thrown away afterwards: what a crash of the machine would lose does not matter.
CARELESS = {"fsync": "off", "full_page_writes": "off"}


@contextmanager
def running(choice: Choice) -> Iterator[str]:
    """Yield the DSN of a server whose databases the tests may create and drop."""
    if choice.url is not None:
        yield choice.url
    elif choice.image is not None:
        with (
            removed_afterwards() as labels,
            postgres_container(choice.image, labels) as container,
        ):
            yield container.get_connection_url()
    else:
        with _embedded() as dsn:
            yield dsn


@contextmanager
def postgres_container(image: str, labels: dict[str, str]) -> Iterator[PostgresContainer]:
    """Run PostgreSQL in a container for the length of the block."""
    # Imported here: without a need for containers nobody waits for this library.
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415

    # Its own cleaner is an image of its own; ours needs none.
    testcontainers_config.ryuk_disabled = True
    settings = " ".join(f"-c {setting}={to}" for setting, to in CARELESS.items())
    container = PostgresContainer(
        image, username="postgres", password=secrets.token_hex(), dbname="postgres", driver=None
    )
    container.with_command(f"postgres {settings}").with_kwargs(labels=labels)
    with container as started:
        yield started


@contextmanager
def _embedded() -> Iterator[str]:
    # Short and outside pytest's folders: a socket's path may not exceed 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="listener-test-"))
    folder.chmod(0o755)
    try:
        with embedded_postgres(folder / "data") as dsn:
            with psycopg.connect(dsn, autocommit=True) as connection:
                for setting, to in CARELESS.items():
                    statement = sql.SQL("ALTER SYSTEM SET {} = {}")
                    connection.execute(statement.format(sql.Identifier(setting), sql.Literal(to)))
                connection.execute("SELECT pg_reload_conf()")
            yield dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)
