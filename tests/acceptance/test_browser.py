"""The page in a real browser: what it shows, how soon, at what width, and that it stays at home."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Response, Route

from listener.simulator import Simulator
from tests.acceptance.conftest import Start, eventually
from tests.acceptance.test_parked import park
from tests.acceptance.test_site import ANY_PORT, TOKEN, Site, url_of
from tests.catalogue import add_release, count, rename
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(120)


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

    def looking(
        url: str,
        width: int = 1400,
        changes: Mapping[str, Change] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> tuple[Page, Seen]:
        page, seen = browser.new_page(viewport={"width": width, "height": 800}, **options), Seen()
        for name, change in (changes or {}).items():
            page.route(f"**/{name}.json", altered(change))
        page.on("console", seen.console)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("request", seen.request)
        page.on("response", seen.response)
        opened.append((page, seen))
        page.goto(url)
        page.wait_for_selector("html[data-situation]")
        return page, seen

    yield looking
    for page, seen in opened:
        page.unroute_all(behavior="wait")
        page.close()
        assert seen.complaints == []


Look = Callable[..., tuple[Page, Seen]]
Change = Callable[[dict[str, Any]], None]


def altered(change: Change) -> Callable[[Route], None]:
    """Change what the daemon answers on its way to the page."""

    def answer(route: Route) -> None:
        reply = route.fetch().json()
        change(reply)
        route.fulfill(json=reply)

    return answer


def shown(page: Page, name: str) -> str:
    # Shown or not: tables are folded away.
    return page.locator(f'[data-value="{name}"]').first.text_content() or ""


def soon(fact: Callable[[], bool], page: Page) -> None:
    """Wait until a fact can be seen."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < 30, page.inner_text("main")
        page.wait_for_timeout(20)


def test_values_are_those_of_the_database(db: Connection, start: Start, look: Look) -> None:
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
    assert 0 < sum(seen.weight.values()) <= 250_000


def test_change_is_seen_without_loading_the_page_again(
    db: Connection, start: Start, look: Look
) -> None:
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    page, _ = look(site.url)
    for rows in range(1, 4):
        add_release(db, f"Artist {rows}")
        soon(lambda rows=rows: shown(page, "coverage.resolved") == str(rows), page)  # type: ignore[misc]


def test_trouble_is_reported_and_ends(
    db: Connection, start: Start, simulator: Simulator, look: Look
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


def test_lost_daemon_is_reported(start: Start, browser: Browser) -> None:
    daemon = start(HTTP_BIND=ANY_PORT)
    page = browser.new_page()
    page.goto(Site(daemon).ready().url)
    page.wait_for_selector("#coverage-legend div")
    daemon.kill()
    soon(lambda: page.inner_text("#word") == "Unknown", page)
    assert "this daemon does not answer; showing the state of" in page.inner_text("#why")
    assert page.inner_text("#notice h2") == "This daemon does not answer"
    assert violations(page) == []
    page.close()


def test_password_opens_the_page(start: Start, look: Look) -> None:
    daemon = start(HTTP_BIND=ANY_PORT, HTTP_TOKEN=TOKEN)
    page, _ = look(url_of(daemon), http_credentials={"username": "dj", "password": TOKEN})
    soon(lambda: page.inner_text("#word") == "Well", page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1400, 2200])
def test_page_fits_every_width(
    db: Connection,
    start: Start,
    look: Look,
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


def test_page_works_with_screen_reader_and_keyboard(
    db: Connection, start: Start, look: Look
) -> None:
    add_release(db)
    add_parked(db)
    page, _ = look(Site(start(HTTP_BIND=ANY_PORT)).ready().url)
    soon(lambda: page.locator("#parked code").count() == 1, page)
    soon(lambda: shown(page, "staleness.0-1") == "1", page)
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("banner").count() == 1
    assert page.get_by_role("heading", level=1).inner_text() == "listener"
    assert page.locator("#word").get_attribute("aria-live") == "polite"
    for picture in page.get_by_role("img").all():
        assert picture.get_attribute("aria-label")
    for each in page.locator("table").all():
        assert each.locator("caption").text_content()
        assert each.locator("th:not([scope])").count() == 0
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


def names(page: Page) -> list[str]:
    """Return what the latest answers are about, as they stand on the page."""
    return page.locator("#latest-list .what").all_inner_texts()


def test_latest_answers_arrive_by_themselves_and_hold_still_while_read(
    db: Connection, start: Start, look: Look
) -> None:
    page, _ = look(Site(start(HTTP_BIND=ANY_PORT).following()).ready().url)
    soon(lambda: "No change was handled" in page.inner_text("#latest-note"), page)
    first = add_release(db, "Broadcast", "Tender Buttons")
    soon(lambda: names(page) == ["added Broadcast – Tender Buttons"], page)
    assert page.locator("#latest-list .pill").inner_text() == "resolved"
    assert page.locator("#latest-list .sources").inner_text()
    assert "took" in page.locator("#latest-list .times").inner_text()
    page.hover("#latest-list li")
    rename(db, first, "Broadcast (UK)")
    soon(lambda: page.inner_text("#latest-note") == "1 new answer since you read here", page)
    assert len(names(page)) == 1
    page.mouse.move(5, 5)
    soon(lambda: names(page)[0] == "edited Broadcast (UK) – Tender Buttons", page)
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    add_release(db, "Pram", "Sargasso Sea")
    soon(lambda: page.inner_text("#latest-note") == "1 new answer since you paused", page)
    assert len(names(page)) == 2
    pause.click()
    soon(lambda: names(page)[0] == "added Pram – Sargasso Sea", page)
    soon(lambda: "Pram – Sargasso Sea, resolved" in page.inner_text("#latest-said"), page)


def test_latest_answers_continue_after_the_daemon_restarts(
    db: Connection, start: Start, look: Look
) -> None:
    forgotten: list[int] = []

    def begin_anew(reply: dict[str, Any]) -> None:
        former = sum(forgotten)
        reply["answers"] = [
            each | {"number": each["number"] - former}
            for each in reply["answers"]
            if each["number"] > former
        ]

    site = Site(start(HTTP_BIND=ANY_PORT).following()).ready()
    page, _ = look(site.url, changes={"latest": begin_anew})
    add_release(db, "Broadcast", "Tender Buttons")
    soon(lambda: names(page) == ["added Broadcast – Tender Buttons"], page)
    # Each look is a minute after the last one, so that each may say something.
    page.evaluate("() => { let now = Date.now(); Date.now = () => (now += 60_000); }")
    soon(lambda: "Tender Buttons, resolved" in page.inner_text("#latest-said"), page)
    forgotten.append(1)
    soon(lambda: not names(page), page)
    add_release(db, "Pram", "Sargasso Sea")
    soon(lambda: names(page) == ["added Pram – Sargasso Sea"], page)


def test_standby_names_the_replica_with_the_latest_answers(start: Start, look: Look) -> None:
    start(HTTP_BIND="").following()
    second = start(HTTP_BIND=ANY_PORT)
    second.wait_for("standing by", stream="library")
    page, _ = look(Site(second).ready().url)
    soon(lambda: "This daemon stands by. listener " in page.inner_text("#latest-note"), page)


def test_values_of_a_chart_are_read_by_keyboard_and_by_pointer(
    db: Connection, start: Start, look: Look
) -> None:
    add_release(db)
    page, _ = look(Site(start(HTTP_BIND=ANY_PORT)).ready().url)
    ages = page.get_by_role("slider", name="Rows by the age of their answer")
    soon(lambda: ages.count() == 1 and shown(page, "staleness.0-1") == "1", page)
    ages.focus()
    page.keyboard.press("Home")
    assert ages.get_attribute("aria-valuetext") == "0-1 days: 1 rows"
    page.keyboard.press("ArrowRight")
    assert ages.get_attribute("aria-valuetext") == "1-2 days: 0 rows"
    tip = page.locator("#staleness .tip")
    assert tip.inner_text() == "1-2 days: 0 rows"
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    ages.hover(position={"x": 20, "y": 60})
    assert tip.inner_text() == "0-1 days: 1 rows"


def test_hidden_chart_is_drawn_without_errors(start: Start, look: Look) -> None:
    def settle(history: dict[str, Any]) -> None:
        at = datetime.now().astimezone().timestamp() - 1800
        column = {"at": [at], "settled": [3], "typical": [0.25], "worst": [0.5], "oldest": [None]}
        rest = {"silent": [1], "coverage": [None]}
        history["hour"]["streams"] = {"library": column | rest}

    page, _ = look(Site(start(HTTP_BIND=ANY_PORT)).ready().url, changes={"history": settle})
    chart = page.locator("#rate-hour svg:not(#former)")
    chart.locator("rect.library").wait_for(state="attached")
    page.evaluate("document.querySelector('#rate-hour').style.display = 'none'")
    page.evaluate("document.querySelector('#rate-hour svg').id = 'former'")
    chart.wait_for(state="attached")


def test_old_time_to_answer_is_not_shown_as_current(
    db: Connection, start: Start, look: Look
) -> None:
    def age(history: dict[str, Any]) -> None:
        at = datetime.now().astimezone().timestamp() - 1800
        column = {"at": [at], "settled": [3], "typical": [0.25], "worst": [0.5], "oldest": [None]}
        rest = {"silent": [0], "coverage": [None]}
        history["hour"]["streams"] = {"library": column | rest}

    add_release(db)
    page, _ = look(Site(start(HTTP_BIND=ANY_PORT)).ready().url, changes={"history": age})
    soon(lambda: shown(page, "typical") == "–", page)
    tile = page.locator(".tile", has=page.locator('[data-value="typical"]'))
    soon(lambda: "last 0.3 s, at " in tile.inner_text() and "30 min ago" in tile.inner_text(), page)


def young(seen: dict[str, Any]) -> None:
    rows = 64_676
    coverage = seen["status"]["coverage"]
    coverage |= dict.fromkeys(coverage, 0) | {"rows": rows, "never": rows}
    seen["status"]["runs"] = []


def filling(seen: dict[str, Any]) -> None:
    young(seen)
    seen["status"]["coverage"] |= {"asked": 6000, "resolved": 6000, "never": 58_676}
    started = datetime.fromisoformat(seen["status"]["at"]) - timedelta(minutes=1)
    run = {"run_id": 1, "kind": "backfill", "cause": "start", "outcome": "running", "reason": None}
    times = {"started_at": started.isoformat(), "ended_at": None}
    seen["status"]["runs"] = [run | times | {"tally": {"scanned": 6000}}]


def blind(seen: dict[str, Any]) -> None:
    why = {"cause": "database", "words": "the database refuses connections"}
    seen |= {"status": None, "parked": [], "wellness": {"word": "failing", "why": [why]}}


def failed(seen: dict[str, Any]) -> None:
    at = seen["status"]["at"]
    run = {"run_id": 99, "kind": "rotation", "cause": "schedule", "outcome": "failed", "tally": {}}
    reason = "LML answered 503 to every call " * 4
    times = {"started_at": at, "ended_at": at}
    seen["status"]["runs"].insert(0, run | times | {"reason": reason})


def usual(seen: dict[str, Any]) -> None:
    """Leave everything as it is."""


STATES: dict[str, Change] = {
    "usual": usual,
    "young": young,
    "filling": filling,
    "blind": blind,
    "failed": failed,
}


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong, whatever its weight."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {json.dumps([n['target'] for n in each['nodes']])}" for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_wrong_in_any_state(
    db: Connection, start: Start, look: Look, state: str, scheme: str
) -> None:
    add_release(db, "Various Artists", code_volume_letters="ZA")
    add_parked(db)
    site = Site(start(HTTP_BIND=ANY_PORT).following()).ready()
    add_release(db)
    eventually(lambda: len(site.get("latest.json").json()["answers"]) == 2)
    for width in (360, 1440):
        page, _ = look(site.url, width, {"page": STATES[state]}, color_scheme=scheme)
        soon(lambda page=page: page.locator("#latest-list li").count() == 2, page)  # type: ignore[misc]
        assert violations(page) == []


def test_axe_finds_nothing_wrong_where_the_library_is_empty(start: Start, look: Look) -> None:
    page, _ = look(Site(start(HTTP_BIND=ANY_PORT)).ready().url)
    soon(lambda: page.inner_text("#notice h2") == "The library is empty", page)
    assert violations(page) == []


@pytest.mark.parametrize(
    ("state", "title", "words"),
    [
        ("young", "LML was not asked yet", "64,676 rows wait for their first answer"),
        ("filling", "The backfill is running", "6,000 of 64,676 rows asked"),
        ("blind", "The database cannot be read", "no change is lost meanwhile"),
    ],
)
def test_page_with_little_to_show_says_why_instead_of_showing_empty_boxes(
    start: Start, look: Look, state: str, title: str, words: str
) -> None:
    page, _ = look(Site(start(HTTP_BIND=ANY_PORT)).ready().url, changes={"page": STATES[state]})
    soon(lambda: page.inner_text("#notice h2") == title, page)
    assert words in page.inner_text("#notice")
    page.wait_for_load_state("networkidle")
    for plot in page.locator(".plot:visible").all():
        assert plot.inner_text().strip()
    if state == "blind":
        assert page.locator("section.card:visible h2").all_inner_texts() == [
            title,
            "Latest answers",
        ]


def test_reasons_and_outcomes_can_be_read_on_a_phone(
    db: Connection, start: Start, look: Look
) -> None:
    add_parked(db)
    site = Site(start(HTTP_BIND=ANY_PORT)).ready()
    page, _ = look(site.url, 360, {"page": failed})
    for cell in ('#parked td[data-label="detail"]', '#runs td[data-label="reason"]', "#runs .pill"):
        soon(lambda cell=cell: page.locator(cell).first.is_visible(), page)  # type: ignore[misc]
        box = page.locator(cell).first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def add_parked(db: Connection) -> int:
    """Set a row aside, whose reason tries to be more than text."""
    # In one transaction: a daemon that is at work never sees the change.
    with db.transaction():
        row = add_release(db)
        park(db, row, "<img src=x onerror=alert(1)>", "lml_error")
    return row
