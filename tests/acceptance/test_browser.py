"""The page in a real browser: what it shows, how soon, at what width, and that it stays at home."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Response, sync_playwright

from listener.simulator import Simulator
from tests.acceptance.conftest import Daemon, eventually
from tests.acceptance.test_site import ANY_PORT, TOKEN, Site, url_of
from tests.catalogue import add_release, count
from tests.conftest import Connection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH"),
]

Start = Callable[..., Daemon]

_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A change is to be seen within two seconds; a busy machine is given some more.
_SOON = 5.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the machine's own chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        yield browser
        browser.close()


@dataclass
class Seen:
    """What a page said, asked for and got."""

    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    weight: dict[str, int] = field(default_factory=dict)

    def console(self, message: Any) -> None:  # noqa: ANN401 - whatever the page logs
        self.complaints.append(f"{message.type}: {message.text}")

    def request(self, request: Request) -> None:
        self.asked.append(request.url)

    def response(self, response: Response) -> None:
        self.weight[response.url] = int(response.headers.get("content-length", 0))


@pytest.fixture
def look(browser: Browser) -> Iterator[Callable[..., tuple[Page, Seen]]]:
    """Open a page; no page may complain."""
    opened: list[tuple[Page, Seen]] = []

    def looking(url: str, width: int = 1400, **options: Any) -> tuple[Page, Seen]:  # noqa: ANN401
        page, seen = browser.new_page(viewport={"width": width, "height": 800}, **options), Seen()
        page.on("console", seen.console)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("request", seen.request)
        page.on("response", seen.response)
        opened.append((page, seen))
        page.goto(url)
        page.wait_for_selector("#coverage-legend div")
        return page, seen

    yield looking
    for page, seen in opened:
        page.close()
        assert seen.complaints == []


def shown(page: Page, name: str) -> str:
    # Shown or not: tables are folded away.
    return page.locator(f'[data-value="{name}"]').first.text_content() or ""


def soon(fact: Callable[[], bool], page: Page) -> float:
    """Wait until a fact can be seen; return the seconds that took."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < 15, page.inner_text("main")
        page.wait_for_timeout(20)
    return time.monotonic() - began


def test_values_are_those_of_the_database(
    db: Connection, start: Start, look: Callable[..., tuple[Page, Seen]]
) -> None:
    for _ in range(3):
        add_release(db)
    add_release(db, None)
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    eventually(lambda: count(db, "library_identity") == 3)
    # The audit made at start would find the row that is added behind capture's back.
    ended = (
        "SELECT FROM listener.run WHERE kind IN ('backfill', 'audit')"
        " AND cause = 'start' AND outcome = 'done'"
    )
    eventually(lambda: db.execute(ended).rowcount == 1)
    parked = add_parked(db)
    page, seen = look(site.url)
    soon(lambda: shown(page, "coverage.parked") == "1", page)
    assert shown(page, "coverage.resolved") == "3"
    assert shown(page, "coverage.nameless") == "1"
    assert shown(page, "coverage.never") == "0"
    assert shown(page, "staleness.0-1") == "3"
    assert shown(page, "backlog.library") == "0"
    assert shown(page, "parked") == str(parked)
    assert page.locator("#parked code").inner_text() == f"listener requeue {parked}"
    # What was said of the row is shown as it is, and does nothing.
    assert page.locator("#parked").inner_text().count("<img src=x onerror=alert(1)>") == 1
    assert page.inner_text("#word") == "Well"
    assert page.title() == "Well · listener"
    (holder,) = db.execute("SELECT holder FROM listener.lane WHERE stream = 'library'").fetchall()
    assert str(holder[0]) in page.inner_text("#streams")
    assert "backfill" in page.inner_text("#runs")
    assert all(url.startswith(site.url) for url in seen.asked)
    files = {url: size for url, size in seen.weight.items() if not url.endswith(".json")}
    assert 0 < sum(files.values()) <= 200_000


def test_change_is_seen_within_two_seconds(
    db: Connection, start: Start, look: Callable[..., tuple[Page, Seen]]
) -> None:
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    page, _ = look(site.url)
    took = []
    for rows in range(1, 4):
        row = add_release(db, f"Artist {rows}")
        eventually(lambda row=row: has_identity(db, row))  # type: ignore[misc]
        took.append(soon(lambda rows=rows: shown(page, "coverage.resolved") == str(rows), page))  # type: ignore[misc]
    assert min(took) <= 2
    assert max(took) <= _SOON


def test_trouble_is_told_and_ends(
    db: Connection, start: Start, simulator: Simulator, look: Callable[..., tuple[Page, Seen]]
) -> None:
    site = Site(start(HTTP_BIND=ANY_PORT, LML_ATTEMPTS="1")).ready()
    page, _ = look(site.url)
    simulator.faults.add("status", status=503)
    add_release(db)
    soon(lambda: page.inner_text("#word") == "Strained", page)
    soon(lambda: "LML has answered 503 since " in page.inner_text("#why"), page)
    assert page.locator("html").get_attribute("data-word") == "strained"
    simulator.faults.clear()
    soon(lambda: page.inner_text("#word") == "Well", page)


def test_daemon_that_went_is_told(start: Start, browser: Browser) -> None:
    daemon = start(HTTP_BIND=ANY_PORT)
    page = browser.new_page()
    page.goto(Site(daemon).ready().url)
    page.wait_for_selector("#coverage-legend div")
    daemon.kill()
    soon(lambda: page.inner_text("#word") == "Unknown", page)
    assert "this daemon does not answer; showing the state of" in page.inner_text("#why")
    page.close()


def test_password_opens_the_page(start: Start, look: Callable[..., tuple[Page, Seen]]) -> None:
    daemon = start(HTTP_BIND=ANY_PORT, HTTP_TOKEN=TOKEN)
    page, _ = look(url_of(daemon), http_credentials={"username": "dj", "password": TOKEN})
    soon(lambda: page.inner_text("#word") == "Well", page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1400, 2200])
def test_page_fits_every_width(
    db: Connection,
    start: Start,
    look: Callable[..., tuple[Page, Seen]],
    width: int,
    scheme: str,
) -> None:
    add_parked(db)
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    page, _ = look(site.url, width, color_scheme=scheme)
    soon(lambda: page.locator("#parked code").count() == 1, page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 18, 23)") == (scheme == "dark")


def test_page_can_be_heard_and_walked_by_keyboard(
    db: Connection, start: Start, look: Callable[..., tuple[Page, Seen]]
) -> None:
    add_parked(db)
    page, _ = look(Site(start(HTTP_BIND=ANY_PORT)).ready().url)
    soon(lambda: page.locator("#parked code").count() == 1, page)
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("banner").count() == 1
    assert page.get_by_role("heading", level=1).inner_text() == "listener"
    assert page.locator("#word").get_attribute("aria-live") == "polite"
    for picture in page.get_by_role("img").all():
        assert picture.get_attribute("aria-label")
    for table in page.locator("table").all():
        assert table.locator("caption").text_content()
        assert table.locator("th:not([scope])").count() == 0
    summary = page.locator("summary", has_text="Ages as a table")
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#staleness-table table").is_visible()
    # What is redrawn every second takes the focus from nobody.
    page.wait_for_timeout(1500)
    assert summary.evaluate("node => document.activeElement === node")
    button = page.locator("#parked button")
    button.focus()
    assert button.get_attribute("aria-label", timeout=1000)


def add_parked(db: Connection) -> int:
    """Set a row aside, whose reason tries to be more than text."""
    row = add_release(db)
    statement = (
        "INSERT INTO listener.ledger AS g (library_id, question, ask_order, failures, next_ask_at,"
        " parked, failure, failure_detail, failed_at, failing_since)"
        " VALUES (%s, '', 9223372036854775807, 8, now() + interval '7 days', true, 'lml_error',"
        " '<img src=x onerror=alert(1)>', now(), now())"
        " ON CONFLICT (library_id) DO UPDATE SET failures = 8, parked = true,"
        " next_ask_at = excluded.next_ask_at, failing_since = now(),"
        " failure = excluded.failure, failure_detail = excluded.failure_detail,"
        " failed_at = now(), outcome = NULL, answered_at = NULL"
    )
    db.execute("DELETE FROM listener.change WHERE row_id = %s", (row,))
    db.execute(statement, (row,))
    return row


def has_identity(db: Connection, row: int) -> bool:
    found = db.execute("SELECT FROM listener.ledger WHERE library_id = %s", (row,))
    return found.rowcount == 1
