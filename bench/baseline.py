"""The naive way: one page at a time, one transaction a row, one statement a source row."""

from __future__ import annotations

import time
from typing import Any

import httpx
import psycopg
from psycopg import sql

from bench.process import BACKEND

_PAGE = 500
_IDENTITY = sql.SQL("""
INSERT INTO {backend}.library_identity (
    library_id, wikidata_qid, spotify_id, apple_music_id, last_verified_at, method, confidence,
    notes
)
VALUES (%s, %s, %s, %s, now(), %s, %s, 'consumer:lml-bulk')
ON CONFLICT (library_id) DO UPDATE
SET wikidata_qid = excluded.wikidata_qid,
    spotify_id = excluded.spotify_id,
    apple_music_id = excluded.apple_music_id,
    last_verified_at = excluded.last_verified_at,
    method = excluded.method,
    confidence = excluded.confidence,
    notes = excluded.notes
""").format(backend=sql.Identifier(BACKEND))
_SOURCE = sql.SQL("""
INSERT INTO {backend}.library_identity_source (
    library_id, source, external_id, method, confidence, last_verified_at, notes
)
VALUES (%s, %s, %s, %s, %s, now(), 'consumer:lml-bulk')
ON CONFLICT (library_id, source) DO UPDATE
SET external_id = excluded.external_id,
    method = excluded.method,
    confidence = excluded.confidence,
    last_verified_at = excluded.last_verified_at,
    notes = excluded.notes
""").format(backend=sql.Identifier(BACKEND))
_READ = sql.SQL("""
SELECT c.seq, l.id, l.artist_name, l.album_title, l.legacy_release_id
FROM listener.change AS c
JOIN {backend}.library AS l ON l.id = c.row_id
WHERE c.stream = 'library'
ORDER BY c.seq
LIMIT %s
""").format(backend=sql.Identifier(BACKEND))

_READ_LIBRARY = sql.SQL("""
SELECT l.id, l.artist_name, l.album_title, l.legacy_release_id
FROM {backend}.library AS l
LEFT JOIN {backend}.library_identity AS i ON i.library_id = l.id
WHERE l.id > %s AND (NOT %s OR i.last_verified_at < now() - interval '7 days')
ORDER BY l.id
LIMIT %s
""").format(backend=sql.Identifier(BACKEND))
_MARKER = """
CREATE TABLE IF NOT EXISTS asked (library_id int PRIMARY KEY, asked_at timestamptz NOT NULL)
"""
_MARK = """
INSERT INTO asked (library_id, asked_at) VALUES (%s, now())
ON CONFLICT (library_id) DO UPDATE SET asked_at = excluded.asked_at
"""


def drain_naively(dsn: str, lml: str, rows: int) -> float:
    """Answer `rows` waiting changes; return rows a second."""
    began, done = time.perf_counter(), 0
    with psycopg.connect(dsn) as connection, httpx.Client(base_url=lml, timeout=30) as http:
        while done < rows:
            page = connection.execute(_READ, (min(_PAGE, rows - done),)).fetchall()
            connection.commit()
            for seq, result in zip([row[0] for row in page], _ask(http, page), strict=True):
                _write(connection, seq, result)
            done += len(page)
    return rows / (time.perf_counter() - began)


def resolve_naively(dsn: str, lml: str, rows: int, *, refresh: bool = False) -> float:
    """Ask about `rows` rows of the library, or of its stale identities; return rows a second."""
    began, done, after = time.perf_counter(), 0, 0
    with psycopg.connect(dsn) as connection, httpx.Client(base_url=lml, timeout=30) as http:
        connection.execute(_MARKER)
        connection.commit()
        while done < rows:
            parameters = (after, refresh, min(_PAGE, rows - done))
            page = connection.execute(_READ_LIBRARY, parameters).fetchall()
            connection.commit()
            for result in _ask(http, [(None, *row) for row in page]):
                if result["kind"] == "single_artist":
                    _write_identity(connection, result)
                else:
                    connection.execute(_MARK, (result["library_id"],))
                connection.commit()
            after, done = page[-1][0], done + len(page)
    return rows / (time.perf_counter() - began)


def _ask(http: httpx.Client, page: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    names = ("library_id", "artist_name", "album_title", "legacy_release_id")
    inputs = [dict(zip(names, row[1:], strict=True)) for row in page]
    reply = http.post("/api/v1/identity/bulk-resolve-libraries", json={"inputs": inputs})
    results: list[dict[str, Any]] = reply.raise_for_status().json()["results"]
    return results


def _write(
    connection: psycopg.Connection[tuple[Any, ...]], seq: int, result: dict[str, Any]
) -> None:
    _write_identity(connection, result)
    connection.execute("DELETE FROM listener.change WHERE stream = 'library' AND seq = %s", (seq,))
    connection.commit()


def _write_identity(
    connection: psycopg.Connection[tuple[Any, ...]], result: dict[str, Any]
) -> None:
    row, main = result["library_id"], result["main"]
    connection.execute(
        _IDENTITY,
        (
            row,
            main["wikidata_qid"],
            main["spotify_artist_id"],
            main["apple_music_artist_id"],
            result["method"],
            result["confidence"],
        ),
    )
    for entry in result["provenance"]:
        connection.execute(
            _SOURCE,
            (row, entry["source"], entry["external_id"], entry["method"], entry["confidence"]),
        )
