"""The SQL files, made ready for one backend schema."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from psycopg import sql

from listener import shipped
from listener.domain.due import AskAgain


def text_of(part: str, name: str) -> str:
    """Return the text of `sql/<part>/<name>.sql`."""
    return (shipped("sql") / part / f"{name}.sql").read_text(encoding="utf-8")


def compose(text: str, backend: str) -> sql.Composed:
    """Put the name of the backend's schema into a statement of ours."""
    # Only ever called with the contents of our own files.
    return sql.SQL(text).format(backend=sql.Identifier(backend))


@cache
def query(name: str, backend: str) -> bytes:
    """Return `sql/queries/<name>.sql` for the backend schema, as psycopg takes it."""
    return compose(text_of("queries", name), backend).as_bytes(None)


def times_of(ask_again: AskAgain) -> dict[str, timedelta]:
    """Return what our statements call the two times."""
    return {"stale_after": ask_again.resolved, "retry_after": ask_again.unresolved}
