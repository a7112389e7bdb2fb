"""Worklists as comma-separated values, as a spreadsheet takes them."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest

from listener.adapters.postgres.worklists import ListedRelease
from listener.app.wording import write_csv

SINCE = datetime(2026, 1, 2, tzinfo=UTC)


def written(title: str | None, artist: str | None = "Can") -> dict[str, str]:
    out = io.StringIO()
    write_csv([ListedRelease(7, artist, title, "ZA", SINCE, "a reason", None)], out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    return row


@pytest.mark.parametrize(
    "title",
    [
        '=HYPERLINK("http://evil.example","Post")',
        "+/-",
        "-",
        "@ the Club",
        "＝1+1",
        "\t=1+1",
        " =1+1",
        "\r\n@SUM(A1)",
    ],
)
def test_no_name_becomes_a_formula(title: str) -> None:
    row = written(title, artist=title)
    assert (row["title"], row["artist"]) == (f"'{title}", f"'{title}")


@pytest.mark.parametrize(
    "title", ["Post", 'A "B", C', "two\nlines", "two\r=1+1", "1999", "", "1=1", "A-B"]
)
def test_other_names_are_unchanged(title: str) -> None:
    assert written(title)["title"] == title


def test_rows_are_for_people_first() -> None:
    assert written(None) == {
        "id": "7",
        "artist": "Can",
        "title": "",
        "letters": "ZA",
        "since": "2026-01-02T00:00:00+00:00",
        "why": "a reason",
        "library_id": "",
    }
