"""The SQL files, made ready for one backend schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from psycopg import sql

_PACKAGE = Path(__file__).parents[2]


def sql_folder() -> Path:
    """Return the folder `sql`: inside the installed package, or beside it in a checkout."""
    installed = _PACKAGE / "sql"
    return installed if installed.is_dir() else _PACKAGE.parent / "sql"


def text_of(part: str, name: str) -> str:
    """Return the text of `sql/<part>/<name>.sql`."""
    return (sql_folder() / part / f"{name}.sql").read_text(encoding="utf-8")


def compose(text: str, backend: str, *, history: bool = True) -> sql.Composed:
    """Put the name of the backend's schema into a statement of ours.

    Without `history`, the part that keeps former identities is left out.
    """
    # Only ever called with the contents of our own files.
    return sql.SQL(text).format(
        backend=sql.Identifier(backend), if_history=sql.SQL("" if history else "/*")
    )


@cache
def query(name: str, backend: str, *, history: bool = True) -> bytes:
    """Return `sql/queries/<name>.sql` for the backend schema, as psycopg takes it."""
    return compose(text_of("queries", name), backend, history=history).as_bytes(None)
