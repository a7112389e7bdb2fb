"""Rows of the backend, as its own writers make them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from tests.conftest import BACKEND, Connection


def table(name: str) -> sql.Identifier:
    """Return the qualified name of one of the backend's tables."""
    return sql.Identifier(BACKEND, name)


def add_release(
    db: Connection,
    artist_name: str | None = "Stereolab",
    album_title: str = "Dots and Loops",
    code_volume_letters: str | None = None,
) -> int:
    """Insert a release, with its artist, and return its id."""
    artist = db.execute(
        sql.SQL("INSERT INTO {} (artist_name) VALUES (%s) RETURNING id").format(table("artists")),
        (artist_name or "unknown",),
    ).fetchone()
    assert artist is not None
    row = db.execute(
        sql.SQL(
            "INSERT INTO {} (artist_id, artist_name, album_title, code_volume_letters)"
            " VALUES (%s, %s, %s, %s) RETURNING id"
        ).format(table("library")),
        (artist[0], artist_name, album_title, code_volume_letters),
    ).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def rename(db: Connection, library_id: int, artist_name: str) -> None:
    """Give a release another artist name."""
    db.execute(
        sql.SQL("UPDATE {} SET artist_name = %s WHERE id = %s").format(table("library")),
        (artist_name, library_id),
    )


def delete_release(db: Connection, library_id: int) -> None:
    """Delete a release as the backend does: its identity rows first."""
    for name, column in (
        ("library_identity_source", "library_id"),
        ("library_identity", "library_id"),
        ("library", "id"),
    ):
        db.execute(
            sql.SQL("DELETE FROM {} WHERE {} = %s").format(table(name), sql.Identifier(column)),
            (library_id,),
        )


def count(db: Connection, name: str) -> int:
    """Return the number of rows of one of the backend's tables."""
    row = db.execute(sql.SQL("SELECT count(*) FROM {}").format(table(name))).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def rows_of(db: Connection, name: str) -> list[dict[str, Any]]:
    """Return all of one of the backend's tables."""
    with db.cursor(row_factory=dict_row) as cursor:
        statement = sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(table(name))
        return cursor.execute(statement).fetchall()


def outbox_size(db: Connection) -> int:
    """Return the number of changes that are not settled."""
    row = db.execute("SELECT count(*) FROM listener.change").fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def changes(db: Connection) -> list[tuple[str, int]]:
    """Return stream and row of each change that is not settled, as they were recorded."""
    rows = db.execute("SELECT stream, row_id FROM listener.change ORDER BY seq").fetchall()
    return [(str(stream), int(str(row))) for stream, row in rows]


def waiting(db: Connection, stream: str = "library") -> list[int]:
    """Return the rows of one stream of which changes are not settled, as they were recorded."""
    return [row for of, row in changes(db) if of == stream]


def entries(db: Connection) -> list[tuple[int, int]]:
    """Return number and row of each change that is not settled."""
    rows = db.execute("SELECT seq, row_id FROM listener.change ORDER BY seq").fetchall()
    return [(int(str(seq)), int(str(row))) for seq, row in rows]


def set_column(db: Connection, name: str, row_id: int, column: str, value: object) -> None:
    """Set one column of a row of one of the backend's tables."""
    key = "library_id" if name.startswith("library_identity") else "id"
    db.execute(
        sql.SQL("UPDATE {} SET {} = %s WHERE {} = %s").format(
            table(name), sql.Identifier(column), sql.Identifier(key)
        ),
        (value, row_id),
    )


def add_identity(
    db: Connection,
    library_id: int,
    verified_ago: timedelta = timedelta(),
    method: str = "exact_match",
    notes: str | None = None,
) -> None:
    """Insert the identity of a release, as somebody other than the listener would."""
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, last_verified_at, method, confidence, notes)"
            " VALUES (%s, now() - %s, %s, 1, %s)"
        ).format(table("library_identity")),
        (library_id, verified_ago, method, notes),
    )
