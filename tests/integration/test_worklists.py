"""The worklists, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus

from listener.adapters.postgres import sessions
from listener.adapters.postgres.worklists import (
    ListedRelease,
    Worklist,
    read_worklist,
    stream_worklist,
)
from listener.domain.faults import InstallationError
from tests.catalogue import add_release, delete_release, set_column, table
from tests.conftest import BACKEND, Connection
from tests.database import look


def listed(
    dsn: str, worklist: Worklist, *, below: float = 0.7, limit: int = 1000, skip: int = 0
) -> list[ListedRelease]:
    return list(look(dsn, BACKEND, read_worklist, worklist, below=below, limit=limit, skip=skip))


async def in_parts(
    connection: sessions.Connection, backend: str, part: int, *, held: bool = False
) -> list[tuple[Sequence[ListedRelease], TransactionStatus]]:
    """Return the parts of a list, and the state of the session while each was at hand."""
    parts = stream_worklist(
        connection, backend, Worklist.UNRESOLVED, below=0.7, part=part, held=held
    )
    return [(each, connection.info.transaction_status) async for each in parts]


def rows(found: list[ListedRelease]) -> list[tuple[int, str]]:
    return [(each.row_id, each.why) for each in found]


def answer(db: Connection, row: int, outcome: str, day: int, **columns: object) -> None:
    given = {"library_id": row, "question": b"", "ask_order": 1, "outcome": outcome}
    given |= {"answered_at": f"2026-01-{day:02}", "next_ask_at": "2999-01-01", **columns}
    db.execute(
        sql.SQL("INSERT INTO listener.ledger ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, given)),
            sql.SQL(", ").join(sql.Placeholder() * len(given)),
        ),
        list(given.values()),
    )


def identify(db: Connection, row: int, confidence: float, method: str = "trigram") -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, method, confidence, last_verified_at)"
            " VALUES (%s, %s, %s, now())"
        ).format(table("library_identity")),
        (row, method, confidence),
    )


def play(db: Connection, release: int | None, identity: int | None, until: str | None) -> int:
    row = db.execute(
        sql.SQL(
            "INSERT INTO {} (rotation_bin, artist_name, album_title, discogs_release_id,"
            " lml_identity_id, kill_date) VALUES ('H', 'Broadcast', 'Pendulum', %s, %s, %s)"
            " RETURNING id"
        ).format(table("rotation")),
        (release, identity, until),
    ).fetchone()
    assert row is not None
    (identifier,) = row
    assert isinstance(identifier, int)
    return identifier


@pytest.mark.parametrize(
    ("part", "lengths"), [(2, [2, 2, 1]), (5, [5]), (6, [5])], ids=["several", "full", "one"]
)
def test_long_list_comes_in_parts_and_the_last_holds_no_transaction(
    db: Connection, dsn: str, part: int, lengths: list[int]
) -> None:
    for number in range(5):
        answer(db, add_release(db, "Can", f"Tape {number}"), "unresolved", 1 + number)
    found = look(dsn, BACKEND, in_parts, part)
    assert [len(each) for each, _ in found] == lengths
    whole = listed(dsn, Worklist.UNRESOLVED)
    assert [entry for each, _ in found for entry in each] == whole
    assert [state for _, state in found] == [
        TransactionStatus.INTRANS if length == part else TransactionStatus.IDLE
        for length in lengths
    ]
    assert look(dsn, BACKEND, in_parts, part, held=True) == [
        (each, TransactionStatus.IDLE) for each, _ in found
    ]


def test_longest_unresolved_come_first_without_rows_that_failed_since(
    db: Connection, dsn: str
) -> None:
    first, second, failed, resolved = (add_release(db, "Can", f"Tape {n}") for n in range(4))
    answer(db, first, "unresolved", 2)
    answer(db, second, "unresolved", 1)
    answer(db, failed, "unresolved", 1, failures=1, failed_at="2026-01-03", failing_since="now")
    answer(db, resolved, "single_artist", 1)
    found = listed(dsn, Worklist.UNRESOLVED)
    assert rows(found) == [(row, "LML finds no single artist") for row in (second, first)]
    assert (found[0].artist_name, found[0].album_title) == ("Can", "Tape 1")
    assert [each.row_id for each in listed(dsn, Worklist.UNRESOLVED, limit=1, skip=1)] == [first]


def test_least_certain_identities_come_first_without_a_persons(db: Connection, dsn: str) -> None:
    low, lower, high, manual = (add_release(db, "Neu!", f"Tape {n}") for n in range(4))
    identify(db, low, 0.6)
    identify(db, lower, 0.25, "llm")
    identify(db, high, 0.9)
    identify(db, manual, 0.1, "manual")
    assert rows(listed(dsn, Worklist.LOW_CONFIDENCE)) == [
        (lower, "confidence 0.25 by llm"),
        (low, "confidence 0.60 by trigram"),
    ]
    assert [each.row_id for each in listed(dsn, Worklist.LOW_CONFIDENCE, below=0.5)] == [lower]


def test_active_rotation_without_a_release_or_an_identity_is_listed(
    db: Connection, dsn: str
) -> None:
    bare, released = play(db, None, None, None), play(db, 7, None, "2999-01-01")
    play(db, 7, 8, None)
    play(db, None, None, "2020-01-01")
    found = listed(dsn, Worklist.ROTATION)
    assert rows(found) == [(bare, "no Discogs release"), (released, "no LML identity")]
    assert (found[0].artist_name, found[0].album_title) == ("Broadcast", "Pendulum")
    assert found[0].library_id is None
    release = add_release(db)
    set_column(db, "rotation", released, "album_id", release)
    assert listed(dsn, Worklist.ROTATION)[1].library_id == release


def test_compilations_with_the_most_unmatched_credits_come_first(db: Connection, dsn: str) -> None:
    few, many, none = (add_release(db, "Various Artists", f"Tape {n}") for n in range(3))
    for row, missing in ((few, 1), (many, 5), (none, 0)):
        tracks = (
            f'{{"credits": 12, "linked": {12 - missing}, "librarian": 0, "no_cta_match": {missing},'
            ' "no_catalog_artist": 0, "no_resolved_artist": 0}'
        )
        answer(db, row, "visited_compilation", 1, tracks=tracks)
    assert rows(listed(dsn, Worklist.CREDITS)) == [
        (many, "5 of 12 credits are linked to no artist"),
        (few, "1 of 12 credits are linked to no artist"),
    ]


def test_replaced_identities_are_listed_latest_first_even_for_deleted_rows(
    db: Connection, dsn: str
) -> None:
    gone, kept = add_release(db, "Faust", "So Far"), add_release(db, "Faust", "IV")
    for row in (gone, kept):
        db.execute(
            sql.SQL(
                "INSERT INTO {} (library_id, method, confidence, last_verified_at,"
                " superseded_reason) VALUES (%s, 'trigram', 0.5, now(), 'question_changed')"
            ).format(table("library_identity_history")),
            (row,),
        )
    delete_release(db, gone)
    why = "question changed; was trigram, confidence 0.50"
    found = listed(dsn, Worklist.REPLACED)
    assert rows(found) == [(kept, why), (gone, why)]
    assert [each.album_title for each in found] == ["IV", None]
    assert [each.library_id for each in found] == [kept, gone]


def test_replaced_identities_without_a_history_are_an_error(db: Connection, dsn: str) -> None:
    db.execute(sql.SQL("DROP TABLE {}").format(table("library_identity_history")))
    with pytest.raises(InstallationError, match="former identities are not kept: "):
        listed(dsn, Worklist.REPLACED)


def test_parked_releases_are_listed_with_the_reason(db: Connection, dsn: str) -> None:
    row = add_release(db, "Cluster", "Zuckerzeit")
    failing = {
        "failures": 8,
        "failed_at": "2026-01-03",
        "failing_since": "2026-01-01",
        "failure": "lml_error",
        "failure_detail": "LML answered 422",
    }
    answer(db, row, "unresolved", 1, parked=True, **failing)
    assert rows(listed(dsn, Worklist.PARKED)) == [(row, "lml_error: LML answered 422")]
