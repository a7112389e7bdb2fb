"""Finds releases by words in their artist and title."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from unicodedata import normalize

from psycopg import errors

from listener.adapters.postgres.sessions import Connection, query, read
from listener.domain.faults import FixableError

_ACCENTS = re.compile("[\u0300-\u036f]")
_MOST_WORDS = 20
_PATIENCE = "1s"
# pg_trgm looks up three letters at a time.
_FEWEST_LETTERS = 3
# The expression in find_releases.sql: the planner uses the index for no other.
_INDEX = """\
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX CONCURRENTLY library_names ON {backend}.library USING gin ((lower(CASE \
WHEN octet_length(coalesce(artist_name, '') || ' ' || album_title) \
> length(coalesce(artist_name, '') || ' ' || album_title) \
THEN regexp_replace(normalize(coalesce(artist_name, '') || ' ' || album_title, NFKD), \
'[\\u0300-\\u036f]', '', 'g') \
ELSE coalesce(artist_name, '') || ' ' || album_title END)) gin_trgm_ops);
ANALYZE {backend}.library;"""


@dataclass(frozen=True, slots=True)
class FoundRelease:
    """A release that was found, and its state.

    `outcome` is that of the last answer, None if there never was one. `waiting` says whether a
    change of it is in the outbox.
    """

    library_id: int
    artist_name: str | None
    album_title: str
    outcome: str | None
    answered_at: datetime | None
    failures: int
    parked: bool
    next_ask_at: datetime | None
    waiting: bool


class SlowSearchError(FixableError):
    """The search took too long; the message names the index that makes it fast."""


async def find_releases(
    connection: Connection, backend: str, words: str, *, limit: int
) -> Sequence[FoundRelease]:
    """Return up to `limit` releases whose artist and title contain all the words, best first.

    Case, accents and the order of the words do not matter; a word may be part of another. Without
    words nothing is found. Raises `SlowSearchError`.
    """
    wanted = list(dict.fromkeys(_folded(words).split()))[:_MOST_WORDS]
    if not wanted:
        return ()
    longest = max(wanted, key=len)
    parameters = {
        "indexed": f"%{_escaped(longest)}%" if len(longest) >= _FEWEST_LETTERS else None,
        "words": [f"%{_escaped(word)}%" for word in wanted],
        "starts": [f"% {_escaped(word)}%" for word in wanted],
        "limit": limit,
    }
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT set_config('statement_timeout', %s, true)", (_PATIENCE,)
            )
            return await read(connection, FoundRelease, query("find_releases", backend), parameters)
    except errors.QueryCanceled as error:
        raise SlowSearchError(
            f"the search took longer than {_PATIENCE}; give a longer or rarer word, or have the"
            f" table's owner create this index if it is missing:\n{search_index(backend)}"
        ) from error


def search_index(backend: str) -> str:
    """Return the statements that create the index which makes the search fast."""
    return _INDEX.format(backend=backend)


def _folded(text: str) -> str:
    return _ACCENTS.sub("", normalize("NFKD", text)).lower()


def _escaped(word: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", word)
