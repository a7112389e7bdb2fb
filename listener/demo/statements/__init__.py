"""The demo's statements, one a file."""

from __future__ import annotations

from importlib import resources

from psycopg import sql


def statement(name: str, schema: str) -> sql.Composed:
    """Return `<name>.sql` for the backend's schema."""
    text = resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return sql.SQL(text).format(backend=sql.Identifier(schema))
