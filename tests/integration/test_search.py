"""Releases found by words, on a real PostgreSQL."""

from __future__ import annotations

import random
from unicodedata import combining, normalize

import pytest
from psycopg import sql

from listener.adapters.postgres import search
from listener.adapters.postgres.search import (
    FoundRelease,
    SlowSearchError,
    find_releases,
    search_index,
)
from listener.adapters.postgres.sessions import query
from tests.catalogue import add_release, table
from tests.conftest import BACKEND, Connection
from tests.database import look


def found(dsn: str, words: str, limit: int = 20) -> list[FoundRelease]:
    return list(look(dsn, BACKEND, find_releases, words, limit=limit))


def titles(dsn: str, words: str, limit: int = 20) -> list[str]:
    return [release.album_title for release in found(dsn, words, limit)]


def folded(text: str) -> str:
    return "".join(each for each in normalize("NFKD", text) if not combining(each)).lower()


def begun(names: str, wanted: list[str]) -> bool:
    """Return whether every word stands at the start of one."""
    return all(f" {word}" in f" {names}" for word in wanted)


@pytest.fixture
def catalogue(db: Connection) -> dict[str, int]:
    names = [
        ("Björk", "Post"),
        ("Björk", "Post Live"),
        ("Sigur Rós", "Ágætis byrjun"),
        ("Broadcast", "Tender Buttons"),
        ("100% Dynamite", "A_B"),
        ("ﬁnal", "Ligature"),
        ("Postman", "Signpost"),
    ]
    return {title: add_release(db, artist, title) for artist, title in names}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("BJORK post", ["Post", "Post Live"]),
        ("post björk", ["Post", "Post Live"]),
        ("live bjork", ["Post Live"]),
        ("sigur ros agætis", ["Ágætis byrjun"]),
        ("tend butt", ["Tender Buttons"]),
        ("final", ["Ligature"]),
        # What stands at the start of a word goes before what stands within one.
        ("post", ["Post", "Post Live", "Signpost"]),
        ("ostman", ["Signpost"]),
        # Wildcards of LIKE are letters like any other.
        ("100%", ["A_B"]),
        ("a_b", ["A_B"]),
        ("_", ["A_B"]),
        ("%%%", []),
        ("nothing like it", []),
        ("   ", []),
        ("\\", []),
    ],
)
@pytest.mark.usefixtures("catalogue")
def test_words_are_found_whatever_their_case_accents_and_order(
    dsn: str, words: str, expected: list[str]
) -> None:
    assert titles(dsn, words) == expected


@pytest.mark.usefixtures("catalogue")
def test_best_matches_are_kept_if_there_are_too_many(dsn: str) -> None:
    assert titles(dsn, "bjork", limit=1) == ["Post"]


def test_releases_contain_every_word_and_the_best_match_comes_first(
    db: Connection, dsn: str
) -> None:
    pick = random.Random(17)
    parts = ["a", "The", "Björk", "Rós", "ros", "e\u0301", "ﬁ", "Å", "\t", "a_b", "5%", "日本", ""]

    def text(most: int) -> str:
        return pick.choice(["", " ", "  "]).join(pick.choices(parts, k=pick.randint(1, most)))

    names: dict[int, str] = {}
    for _ in range(150):
        artist, title = pick.choice([None, text(3)]), text(3)
        names[add_release(db, artist, title)] = folded(f"{artist or ''} {title}")
    for words in [*filter(None, parts), "a the", "ros bjork a", *(text(4) for _ in range(40))]:
        wanted = folded(words).split()
        holding = [row for row, name in names.items() if all(word in name for word in wanted)]
        best = sorted(
            holding,
            key=lambda row: (not begun(names[row], wanted), len(names[row]), names[row], row),
        )
        expected = best if wanted else []
        assert [each.library_id for each in found(dsn, words, limit=150)] == expected, words


def test_release_is_shown_with_its_state(
    db: Connection, dsn: str, catalogue: dict[str, int]
) -> None:
    row = catalogue["Post"]
    (fresh, _) = found(dsn, "bjork post")
    assert (fresh.library_id, fresh.outcome, fresh.failures) == (row, None, 0)
    assert (fresh.waiting, fresh.parked) == (True, False)
    db.execute("DELETE FROM listener.change")
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
        " next_ask_at, failures, failed_at, failing_since, failure, parked) VALUES (%s, '', 1,"
        " 'unresolved', '2026-01-02', '2026-03-04', 3, now(), now(), 'lml_error', true)",
        (row,),
    )
    (asked, _) = found(dsn, "bjork post")
    assert (asked.outcome, asked.failures, asked.parked) == ("unresolved", 3, True)
    assert (asked.waiting, str(asked.next_ask_at)[:10]) == (False, "2026-03-04")


def test_search_that_takes_too_long_names_the_index(
    db: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_PATIENCE", "50ms")
    with db.transaction():
        db.execute(sql.SQL("LOCK TABLE {}").format(table("library")))
        with pytest.raises(SlowSearchError, match="longer than 50ms") as raised:
            found(dsn, "bjork")
    assert f"ON {BACKEND}.library USING gin" in str(raised.value)


@pytest.mark.usefixtures("catalogue")
def test_recommended_index_is_the_one_that_the_search_uses(db: Connection) -> None:
    available = db.execute(
        "SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'"
    ).fetchone()
    if available is None:
        pytest.skip("this server has no pg_trgm")
    for statement in search_index(BACKEND).splitlines():
        db.execute(sql.SQL(statement))
    db.execute("SET enable_seqscan = off")
    db.execute("SET enable_indexscan = off")
    parameters = {
        "indexed": "%bjork%",
        "words": ["%bjork%", "%post%"],
        "starts": ["% bjork%", "% post%"],
        "limit": 20,
    }
    plan = db.execute(b"EXPLAIN " + query("find_releases", BACKEND), parameters).fetchall()
    assert "library_names" in "\n".join(str(line) for (line,) in plan)
