"""The command that prints worklists, as a person runs it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from psycopg import sql

from tests.acceptance.conftest import Commands, eventually
from tests.acceptance.test_parked import park
from tests.catalogue import add_release, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(60)


def test_list_is_printed_for_people_for_spreadsheets_and_for_machines(
    db: Connection, listener: Commands
) -> None:
    row = add_release(db, 'Björk, "live"', "Post")
    park(db, row, "LML answered 422", "lml_error")
    ran = listener.run("list", "parked")
    assert (ran.code, ran.stderr) == (0, "")
    header, line = ran.stdout.splitlines()
    assert header.split() == ["id", "letters", "since", "artist", "title", "why"]
    assert line.endswith("lml_error: LML answered 422")

    (as_csv,) = csv.DictReader(io.StringIO(listener.run("list", "parked", "--csv").stdout))
    assert list(as_csv) == ["id", "artist", "title", "letters", "since", "why", "library_id"]
    assert (as_csv["id"], as_csv["artist"]) == (str(row), 'Björk, "live"')
    (as_json,) = json.loads(listener.run("list", "parked", "--json").stdout)
    assert as_json == as_csv | {"id": row, "letters": None, "library_id": row}


def test_title_that_looks_like_a_formula_is_plain_text_in_a_spreadsheet(
    db: Connection, listener: Commands
) -> None:
    park(db, add_release(db, "@", '=HYPERLINK("http://evil.example")'))
    (row,) = csv.DictReader(io.StringIO(listener.run("list", "parked", "--csv").stdout))
    assert (row["artist"], row["title"]) == ("'@", '\'=HYPERLINK("http://evil.example")')
    (as_json,) = json.loads(listener.run("list", "parked", "--json").stdout)
    assert as_json["artist"] == "@"


def test_list_is_paged_and_csv_has_all_of_it(db: Connection, listener: Commands) -> None:
    for number in range(60):
        park(db, add_release(db, "Can", f"Tape {number:02}"))
    first = listener.run("list", "parked").stdout.splitlines()
    assert len(first) == 1 + 50 + 1
    assert first[-1] == "more may follow: listener list parked --page 2"
    second = listener.run("list", "parked", "--page", "2").stdout.splitlines()
    assert len(second) == 1 + 10
    assert listener.run("list", "parked", "--page", "3").stdout == "none on page 3\n"
    assert len(listener.run("list", "parked", "--csv").stdout.splitlines()) == 1 + 60
    assert len(json.loads(listener.run("list", "parked", "--json", "--page", "2").stdout)) == 10


def test_long_list_is_printed_in_parts_that_make_one_document(
    db: Connection, listener: Commands
) -> None:
    ids = add_unresolved(db, 20_000)
    as_json = listener.run("list", "unresolved", "--json").stdout
    assert as_json.endswith("]\n")
    assert [each["id"] for each in json.loads(as_json)] == ids
    as_csv = csv.DictReader(io.StringIO(listener.run("list", "unresolved", "--csv").stdout))
    assert [int(each["id"]) for each in as_csv] == ids
    db.execute("DELETE FROM listener.ledger")
    assert json.loads(listener.run("list", "unresolved", "--json").stdout) == []


def test_slow_reader_of_a_long_list_keeps_no_transaction_open(
    db: Connection, listener: Commands
) -> None:
    ids = add_unresolved(db, 20_000)
    process = listener.begin("list", "unresolved", "--json")
    waiting = (
        "SELECT state FROM pg_stat_activity WHERE application_name = 'listener-list'"
        " AND datname = current_database() AND query LIKE 'FETCH%' AND state <> 'active'"
    )
    eventually(lambda: db.execute(waiting).rowcount > 0)
    states = db.execute(waiting).fetchall()
    ran = listener.finish(process)
    assert states == [("idle",)]
    assert [each["id"] for each in json.loads(ran.stdout)] == ids


def add_unresolved(db: Connection, number: int) -> list[int]:
    """Add releases for which LML found nothing; return their ids, the longest unresolved first."""
    first = add_release(db)
    db.execute(
        sql.SQL(
            "INSERT INTO {0} (artist_id, artist_name, album_title)"
            " SELECT artist_id, artist_name, n::text FROM {0}, generate_series(2, %s) AS n"
        ).format(table("library")),
        (number,),
    )
    db.execute(
        sql.SQL(
            "INSERT INTO listener.ledger"
            " (library_id, question, ask_order, outcome, answered_at, next_ask_at)"
            " SELECT id, '', 1, 'unresolved', timestamptz '2026-01-01' + id * interval '1 s',"
            " 'infinity' FROM {}"
        ).format(table("library"))
    )
    return list(range(first, first + number))


def test_unlistable_kind_is_explained(listener: Commands) -> None:
    assert listener.run("list", "unresolved").stdout == "none\n"
    both = listener.run("list", "parked", "--csv", "--json")
    assert (both.code, both.stdout) == (2, "")
    unsure = listener.run("list", "low-confidence", "--below", "nan")
    assert (unsure.code, unsure.stdout) == (2, "")
    assert "'nan' is not a number" in unsure.stderr
    unknown = listener.run("list", "everything")
    assert unknown.code == 2
    assert "low-confidence" in unknown.stderr
