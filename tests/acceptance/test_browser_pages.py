"""The pages of releases in a real browser: with a keyboard, without scripts, on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.acceptance.conftest import Start, eventually
from tests.acceptance.test_browser import add_parked, violations
from tests.acceptance.test_browsing import withdraw
from tests.acceptance.test_site import ANY_PORT, TOKEN, Site, url_of
from tests.catalogue import add_release, count
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(120)

# Longer than the screen of a phone, without a place to break it.
LONG = "<b>" + "Donaudampfschiffahrt" * 6 + "</b>"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page without scripts; no page may complain, or ask another host."""
    opened: list[Page] = []
    complaints: list[str] = []

    homes: set[str] = set()

    def asked(request: Request) -> None:
        if not request.url.startswith(tuple(homes)):
            complaints.append(request.url)

    def visiting(url: str, width: int = 1200, **options: object) -> Page:
        given = {"viewport": {"width": width, "height": 800}, "java_script_enabled": False}
        page = browser.new_page(**given | options)  # type: ignore[arg-type]
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", asked)
        opened.append(page)
        homes.add("/".join(url.split("/")[:3]) + "/")
        page.goto(url)
        return page

    yield visiting
    for page in opened:
        page.close()
    assert complaints == []


def test_release_is_found_by_keyboard_and_without_scripts(
    db: Connection, start: Start, visit: Callable[..., Page]
) -> None:
    row = add_release(db, "Björk", "Post")
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    eventually(lambda: count(db, "library_identity") == 1)
    page = visit(site.url)
    page.get_by_role("searchbox", name="Words of artist and title").fill("bjork post")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=bjork+post")
    assert page.get_by_role("searchbox").input_value() == "bjork post"
    link = page.get_by_role("link", name="Post")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/library/{row}")
    assert page.get_by_role("heading", level=1).inner_text() == "Björk \N{EN DASH} Post"
    assert page.title() == "Björk \N{EN DASH} Post · listener"
    assert ": resolved" in page.inner_text("dl")
    page.get_by_role("link", name="Overview").click()
    page.wait_for_url(site.url)


def test_latest_answer_and_parked_row_link_to_their_stories(
    db: Connection, start: Start, visit: Callable[..., Page]
) -> None:
    parked = add_parked(db)
    site = Site(start(HTTP_BIND=ANY_PORT).following()).ready()
    answered = add_release(db, "Broadcast", "Tender Buttons")
    page = visit(site.url, java_script_enabled=True)
    page.locator("#latest-list").get_by_role("link", name="Tender Buttons").click()
    page.wait_for_url(f"**/library/{answered}")
    page.go_back()
    page.locator("#parked").get_by_role("link", name=str(parked)).click()
    page.wait_for_url(f"**/library/{parked}")


def test_worklist_is_walked_and_saved(
    db: Connection, start: Start, visit: Callable[..., Page], tmp_path: Path
) -> None:
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    for number in range(51):
        withdraw(db, add_release(db, "Can", f"Tape {number:02}"))
    page = visit(site.url + "lists")
    page.get_by_role("link", name="Replaced").click()
    page.wait_for_url("**/lists/replaced")
    table = page.get_by_role("table")
    # The head is one, too.
    assert table.get_by_role("row").count() == 1 + 50
    assert table.get_by_role("columnheader").all_inner_texts() == [
        "artist",
        "title",
        "letters",
        "id",
        "why",
        "since",
    ]
    page.get_by_role("link", name="Next page").click()
    page.wait_for_url("**/lists/replaced?page=2")
    assert table.get_by_role("row").count() == 1 + 1
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download all as CSV").click()
    assert saved.value.suggested_filename == "replaced.csv"
    saved.value.save_as(tmp_path / "replaced.csv")
    assert len((tmp_path / "replaced.csv").read_text(encoding="utf-8-sig").splitlines()) == 1 + 51
    page.get_by_role("link", name="Tape 00").click()
    page.wait_for_url("**/library/*")
    assert page.get_by_role("heading", level=1).inner_text() == "Can \N{EN DASH} Tape 00"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1400])
def test_pages_fit_every_width(
    db: Connection, start: Start, visit: Callable[..., Page], width: int, scheme: str
) -> None:
    row = add_release(db, LONG, LONG)
    withdraw(db, row, LONG)
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    page = visit(site.url, width, color_scheme=scheme, java_script_enabled=True)
    paths = (
        "search",
        "search?q=donau",
        f"library/{row}",
        "lists",
        "lists/replaced",
        "lists/credits",
    )
    for path in paths:
        page.goto(site.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(15, 18, 23)") == (scheme == "dark")
        assert violations(page) == [], path
        if path in {"search?q=donau", "lists/replaced"}:
            # Shown as it is, and does nothing.
            assert LONG in page.get_by_role("cell").nth(1).inner_text()
            assert page.get_by_role("cell").nth(1).is_visible()


def test_password_opens_the_pages(start: Start, visit: Callable[..., Page]) -> None:
    url = url_of(start(HTTP_BIND=ANY_PORT, HTTP_TOKEN=TOKEN))
    page = visit(url, http_credentials={"username": "dj", "password": TOKEN})
    page.get_by_role("link", name="Worklists").click()
    page.wait_for_url("**/lists")
    assert page.get_by_role("heading", level=1).inner_text() == "Worklists"
