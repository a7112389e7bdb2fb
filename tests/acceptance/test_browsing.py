"""The pages on which people find a release, served by a running daemon."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.acceptance.conftest import Commands, Start, eventually, refusing_connections
from tests.acceptance.test_site import ANY_PORT, TOKEN, Site, url_of
from tests.catalogue import add_identity, add_release, count, delete_release, rename, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(90)

HOSTILE = '=cmd|"<script>alert(1)</script>"'


@pytest.fixture
def site(start: Start) -> Iterator[Site]:
    """Yield what an idle daemon serves."""
    daemon = start(HTTP_BIND=ANY_PORT)
    yield Site(daemon).ready()
    assert daemon.stop() == 0


def links(page: httpx.Response, start: str) -> list[str]:
    assert page.status_code == 200
    return re.findall(rf'href="({re.escape(start)}[^"]*)"', page.text)


def text_of(page: httpx.Response) -> str:
    return unescape(re.sub("<[^>]*>", " ", page.text))


def test_words_lead_to_a_release_its_story_and_its_history(
    db: Connection, site: Site, listener: Commands
) -> None:
    row, other = add_release(db, "Björk", "Post"), add_release(db, "Broadcast", "Tender Buttons")
    eventually(lambda: count(db, "library_identity") == 2)
    rename(db, row, "Björk Guðmundsdóttir")
    eventually(lambda: count(db, "library_identity_history") == 1)
    found = site.get("search?q=bjork+POST")
    assert links(found, "/library/") == [f"/library/{row}"]
    assert links(site.get("search?q=tender"), "/library/") == [f"/library/{other}"]
    assert "No release contains all of these words." in site.get("search?q=autechre").text
    story = site.get(f"library/{row}")
    assert "<h1" in story.text
    shown = text_of(story)
    assert "Björk Guðmundsdóttir \N{EN DASH} Post" in shown
    # The page says what the command says, but for how long ago it was.
    for line in listener.run("why", str(row)).stdout.splitlines():
        words = re.sub(r" \(.*? (ago|.*)\).*| `.*", "", line[10:])
        assert words in shown, line
    assert "the row changed, and so did LML's verdict" in shown


def test_row_with_blank_names_is_titled_by_its_number(db: Connection, site: Site) -> None:
    row = add_release(db, " ", "")
    assert f'<h1 class="wide title">Row {row}</h1>' in site.get(f"library/{row}").text


def test_story_of_a_deleted_row_can_still_be_shared(db: Connection, site: Site) -> None:
    row = add_release(db)
    eventually(lambda: count(db, "library_identity") == 1)
    rename(db, row, "Another")
    eventually(lambda: count(db, "library_identity_history") == 1)
    delete_release(db, row)
    story = site.get(f"library/{row}")
    assert story.status_code == 404
    assert "no such row" in text_of(story)
    assert "the row changed, and so did LML's verdict" in text_of(story)


def withdraw(db: Connection, row: int, method: str = "trigram") -> None:
    """Enter an identity in the history of a row, where nothing changes it any more."""
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, method, confidence, last_verified_at, superseded_reason)"
            " VALUES (%s, %s, 0.5, now(), 'withdrawn')"
        ).format(table("library_identity_history")),
        (row, method),
    )


def test_worklists_are_paged_linked_and_downloaded(db: Connection, site: Site) -> None:
    rows = [add_release(db, "@", HOSTILE)]
    rows += [add_release(db, "Can", f"Tape {number:02}", "ZA") for number in range(60)]
    for row in rows:
        withdraw(db, row)
    rows.reverse()
    assert "/lists/replaced" in links(site.get("lists"), "/lists/")
    first = site.get("lists/replaced")
    assert links(first, "/library/") == [f"/library/{row}" for row in rows[:50]]
    assert links(first, "/lists/replaced?") == ["/lists/replaced?page=2"]
    assert "withdrawn; was trigram, confidence 0.50" in text_of(first)
    second = site.get("lists/replaced?page=2")
    assert links(second, "/library/") == [f"/library/{row}" for row in rows[50:]]
    assert links(second, "/lists/replaced?") == ["/lists/replaced?page=1"]
    assert "<script" not in second.text
    assert HOSTILE in text_of(second)
    assert "Nothing is on this page" in site.get("lists/replaced?page=3").text

    file = site.get("lists/replaced.csv")
    assert file.headers["content-disposition"] == 'attachment; filename="replaced.csv"'
    downloaded = list(csv.DictReader(io.StringIO(file.content.decode("utf-8-sig"))))
    assert [int(each["id"]) for each in downloaded] == rows
    assert (downloaded[-1]["artist"], downloaded[-1]["title"]) == ("'@", f"'{HOSTILE}")


@pytest.mark.parametrize(
    "kind", ["unresolved", "low-confidence", "rotation", "credits", "replaced", "parked"]
)
def test_every_worklist_is_a_page_and_a_file(db: Connection, site: Site, kind: str) -> None:
    assert "Nothing is on this list." in site.get(f"lists/{kind}").text
    file = site.get(f"lists/{kind}.csv").content.decode("utf-8-sig")
    names = ["id", "artist", "title", "letters", "since", "why", "library_id"]
    assert list(csv.reader(file.splitlines())) == [names]


def test_long_list_is_downloaded_whole_as_it_was_at_one_time(db: Connection, site: Site) -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, method, confidence, last_verified_at, superseded_reason)"
            " SELECT n, 'trigram', 0.5, now(), 'withdrawn' FROM generate_series(1, 20000) AS n"
        ).format(table("library_identity_history"))
    )
    file = site.get("lists/replaced.csv", timeout=60).content.decode("utf-8-sig")
    ids = [int(line["id"]) for line in csv.DictReader(io.StringIO(file))]
    assert ids == list(range(20_000, 0, -1))


def test_aborted_download_leaves_no_session(db: Connection, site: Site) -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, method, confidence, last_verified_at, superseded_reason)"
            " SELECT n, repeat('long', 500), 0.5, now(), 'withdrawn'"
            " FROM generate_series(1, 20000) AS n"
        ).format(table("library_identity_history"))
    )
    with httpx.stream("GET", site.url + "lists/replaced.csv", trust_env=False) as reply:
        next(reply.iter_raw())
        eventually(lambda: downloads(db) == 1)
    eventually(lambda: downloads(db) == 0)
    assert site.get("lists/replaced").status_code == 200


def downloads(db: Connection) -> int:
    return db.execute(
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'listener-page' AND backend_xid IS NULL"
        " AND state = 'idle in transaction'"
    ).rowcount


def test_pages_need_the_token(start: Start) -> None:
    daemon = start(HTTP_BIND=ANY_PORT, HTTP_TOKEN=TOKEN)
    url = url_of(daemon)
    for path in ("search?q=can", "library/1", "lists", "lists/parked", "lists/parked.csv"):
        assert httpx.get(url + path, trust_env=False).status_code == 401
        reply = httpx.get(url + path, auth=("dj", TOKEN), trust_env=False)
        assert reply.status_code == (404 if "library" in path else 200)


def test_lost_database_is_explained_on_a_page_and_delays_no_probe(
    owner_dsn: str, site: Site
) -> None:
    with refusing_connections(owner_dsn):
        for path in ("search?q=can", "library/1", "lists/parked", "lists/parked.csv"):
            reply = site.get(path)
            assert reply.status_code == 503
            assert "not currently accepting connections" in text_of(reply)
        assert site.get("livez").status_code == 200
        assert site.get("lists").status_code == 200
    eventually(lambda: site.get("search?q=can").status_code == 200)


def test_waiting_readers_are_few_and_delay_nothing(
    db: Connection, owner_dsn: str, site: Site
) -> None:
    with (
        psycopg.connect(owner_dsn, autocommit=True) as other,
        db.transaction(),
        ThreadPoolExecutor(6) as pool,
    ):
        db.execute(sql.SQL("LOCK TABLE {}").format(table("library")))
        asked = [pool.submit(site.get, "search?q=can", timeout=60) for _ in range(6)]
        most = 0
        while not all(each.done() for each in asked):
            most = max(most, searches(other))
            assert site.get("livez").status_code == 200
        assert most == 2
        assert {each.result().status_code for each in asked} == {503}


def searches(db: Connection) -> int:
    return db.execute(
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'active' AND query LIKE '-- Finds releases%'"
    ).rowcount


def test_neither_words_nor_rows_are_logged(db: Connection, start: Start) -> None:
    add_identity(db, add_release(db, "Sekret", "Verschwiegen"))
    daemon = start(HTTP_BIND=ANY_PORT, LOG_LEVEL="DEBUG")
    site = Site(daemon).ready()
    assert "Verschwiegen" in site.get("search?q=sekret").text
    site.get("nowhere?q=sekret")
    site.get("search/sekret")
    assert daemon.stop() == 0
    assert "sekret" not in "".join(daemon.lines).lower()
    assert "verschwiegen" not in "".join(daemon.lines).lower()
