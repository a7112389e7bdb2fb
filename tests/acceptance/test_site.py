"""What a running daemon serves: health, metrics, status."""

from __future__ import annotations

import math
import operator
import re
import signal
import socket
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from listener import DISTRIBUTION
from listener.domain.health import Cause
from listener.simulator import Simulator
from tests.acceptance.conftest import Commands, Daemon, Start, eventually, refusing_connections
from tests.acceptance.proxy import proxy_before
from tests.catalogue import add_release, count, rename, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(90)

ANY_PORT = "127.0.0.1:0"
TOKEN = "a-secret-of-the-tests"
STALLING = "tests.acceptance.stalling"


def url_of(daemon: Daemon) -> str:
    daemon.wait_for("page served")
    found = next(entry for entry in daemon.events if entry["event"] == "page served")
    return str(found["url"])


class Site:
    """What a daemon serves, asked from outside."""

    def __init__(self, daemon: Daemon, token: str | None = None) -> None:
        self.url = url_of(daemon)
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}

    def get(self, path: str, **options: float) -> httpx.Response:
        url = self.url + path
        return httpx.get(url, headers=self._headers, trust_env=False, **options)  # type: ignore[arg-type]

    @property
    def why(self) -> list[str]:
        """Why it is not ready."""
        reply = self.get("readyz")
        why: list[str] = reply.json()["why"]
        assert reply.status_code == (503 if why else 200)
        return why

    def metric(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.get("metrics").text)
        found = (
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == f"listener_{name}" and dict(sample.labels) == labels
        )
        return next(found, math.nan)

    def ready(self) -> Site:
        eventually(lambda: not self.why)
        return self


def red_within(site: Site, word: str, seconds: float = 40) -> str:
    """Wait until it is not ready for a reason with this word in it; return the reason.

    What stands still is noticed after 12 seconds, when the next reading was taken.
    """
    reasons: list[str] = []

    def red() -> bool:
        reasons[:] = [why for why in site.why if word in why]
        return bool(reasons)

    eventually(red, seconds)
    return reasons[0]


def test_ready_once_it_follows_and_the_numbers_are_those_of_the_database(
    db: Connection, start: Start, listener: Commands
) -> None:
    rows = [add_release(db), add_release(db)]
    nameless = add_release(db, None)
    daemon = start(HTTP_BIND=ANY_PORT)
    site = Site(daemon).ready()
    assert site.get("livez").status_code == 200
    eventually(lambda: count(db, "library_identity") == len(rows))
    eventually(lambda: site.metric("changes_settled_total", stream="library") == 3)
    assert site.metric("changes_claimed_total", stream="library") == 3
    eventually(lambda: site.metric("changes_captured_total", stream="library") == 3)
    assert site.metric("commit_to_identity_seconds_count", stream="library") == 3
    assert site.metric("verdicts_total", outcome="resolved") == 2
    assert site.metric("verdicts_total", outcome="null_artist") == 1
    assert site.metric("following", stream="rotation") == 1
    assert site.metric("rung", stream="library", rung="notify") == 1
    assert site.metric("ready") == 1
    eventually(lambda: site.metric("runs_total", kind="backfill", outcome="done") == 1)
    eventually(lambda: site.metric("backlog_changes", stream="library") == 0)

    def told_and_served() -> list[dict[str, Any]]:
        both = [listener.run("status", "--json").report, site.get("status.json").json()]
        for each in both:
            del each["at"]
            for stream in each["streams"]:
                # What is as of the last beat, or grows.
                del stream["stalled_seconds"]
        return both

    # The ends of runs and slots are written down a moment after they are counted.
    eventually(lambda: operator.eq(*told_and_served()))
    coverage = site.get("status.json").json()["coverage"]
    assert coverage["resolved"] == len(rows)
    assert coverage["nameless"] == len([nameless])
    wellness = site.get("status.json").json()["wellness"]
    assert wellness == {
        "word": "well",
        "why": [{"cause": None, "words": "every change is answered"}],
    }
    assert site.get("page.json").json()["wellness"] == wellness
    assert listener.run("status").stdout.splitlines()[0] == "Well: every change is answered"
    eventually(lambda: site.metric("wellness") == 0, seconds=30)
    assert {site.metric("cause", cause=cause) for cause in Cause} == {0}
    eventually(lambda: site.metric("last_success_timestamp_seconds", kind="audit") > 0, seconds=30)
    assert daemon.stop() == 0


def test_page_counts_as_due_what_its_daemon_searches(
    db: Connection, start: Start, listener: Commands
) -> None:
    add_release(db)
    site = Site(start(HTTP_BIND=ANY_PORT, INCLUDE_NULL_CANONICAL="false")).ready()
    eventually(lambda: count(db, "library_identity") == 1)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    assert listener.run("status", "--json").report["due_by_time"] == 1
    assert site.get("status.json").json()["due_by_time"] == 0
    assert site.get("page.json").json()["status"]["due_by_time"] == 0


def test_stop_is_prompt_despite_open_pages(start: Start) -> None:
    daemon = start(HTTP_BIND=ANY_PORT, SHUTDOWN_TIMEOUT="10m")
    site = Site(daemon).ready()
    with httpx.Client(base_url=site.url, trust_env=False) as client:
        assert client.get("/page.json").status_code == 200
        # Sooner than a connection that nobody uses ends by itself.
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0


def test_token_is_needed_and_never_logged(start: Start) -> None:
    daemon = start(HTTP_BIND="0.0.0.0:0", HTTP_TOKEN=TOKEN)
    url = url_of(daemon).replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - where the test asks
    for path in (
        "",
        "metrics",
        "status.json",
        "page.json",
        "latest.json",
        "history.json",
        "app.js",
    ):
        assert httpx.get(url + path, trust_env=False).status_code == 401
        wrong = httpx.get(url + path, auth=("x", TOKEN + "x"), trust_env=False)
        assert wrong.status_code == 401
        assert httpx.get(url + path, auth=("x", TOKEN), trust_env=False).status_code == 200
    for path in ("livez", "readyz"):
        assert httpx.get(url + path, trust_env=False).status_code in {200, 503}
    assert daemon.stop() == 0
    assert TOKEN not in "".join(daemon.lines)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:80", "radio.example:80"])
def test_address_reachable_from_other_hosts_needs_a_token(listener: Commands, address: str) -> None:
    ran = listener.run("run", HTTP_BIND=address)
    assert ran.code == 2
    assert (
        f"HTTP_BIND is '{address}': other hosts can reach that address; set HTTP_TOKEN"
        in ran.stderr
    )


def test_anonymous_access_is_allowed_by_a_setting(start: Start) -> None:
    daemon = start(HTTP_BIND="0.0.0.0:0", HTTP_ALLOW_ANONYMOUS="1")
    url = url_of(daemon).replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - where the test asks
    assert httpx.get(f"{url}status.json", trust_env=False).status_code == 200


def test_address_in_use_ends_the_start(listener: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ran = listener.run("run", HTTP_BIND=f"127.0.0.1:{other.getsockname()[1]}")
    assert ran.code == 2
    assert "Address already in use; choose another address" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_nothing_is_served_or_imported_without_an_address(start: Start) -> None:
    served = start(HTTP_BIND=ANY_PORT, PYTHONPROFILEIMPORTTIME="1").following()
    silent = start(HTTP_BIND="", PYTHONPROFILEIMPORTTIME="1")
    silent.wait_for("standing by", stream="library")
    assert not silent.logged("page served")
    for daemon, needed in ((served, True), (silent, False)):
        assert daemon.stop() == 0
        imported = "".join(line for line in daemon.lines if line.startswith("import time:"))
        for library in ("uvicorn", "starlette", "prometheus_client"):
            assert (library in imported) == needed


@pytest.mark.parametrize("loop", [signal.SIGUSR1, signal.SIGUSR2])
def test_stuck_loop_turns_readiness_red(db: Connection, start: Start, loop: signal.Signals) -> None:
    daemon = start(STALLING, HTTP_BIND=ANY_PORT)
    site = Site(daemon).ready()
    daemon.kill(loop)
    # Who hands out batches is stopped by the next one.
    add_release(db)
    assert "library" in red_within(site, "have been stuck")
    # The process lives: it is not its end that is noticed.
    assert site.get("livez").status_code == 200
    eventually(lambda: "stalled" in causes_on(site))


def causes_on(site: Site) -> list[str | None]:
    return [why["cause"] for why in site.get("page.json").json()["wellness"]["why"]]


def test_blocked_loop_fails_every_probe(start: Start) -> None:
    daemon = start(STALLING, HTTP_BIND=ANY_PORT)
    site = Site(daemon).ready()
    daemon.kill(signal.SIGHUP)
    for path in ("livez", "readyz"):
        with pytest.raises(httpx.ReadTimeout):
            site.get(path, timeout=1)
    daemon.kill()


def test_lml_that_is_down_does_not_turn_readiness_red(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    daemon = start(HTTP_BIND=ANY_PORT, READY_MAX_LAG="1s", LML_ATTEMPTS="1")
    site = Site(daemon).ready()
    simulator.faults.add("status", status=503)
    add_release(db)
    daemon.wait_for("LML unavailable, keeping changes in the outbox")
    eventually(lambda: site.metric("oldest_change_age_seconds", stream="library") > 4)
    assert site.why == []
    assert site.metric("breaker", stream="library", state="closed") == 0
    eventually(lambda: site.get("page.json").json()["wellness"]["word"] == "strained")


def test_standby_is_ready_only_while_another_daemon_follows(start: Start) -> None:
    first = start(HTTP_BIND=ANY_PORT).following()
    second = start(HTTP_BIND=ANY_PORT)
    second.wait_for("standing by", stream="library")
    site = Site(second).ready()
    assert site.metric("following", stream="library") == 0
    assert site.get("page.json").json()["wellness"]["word"] == "well"
    assert first.stop() == 0
    second.following()
    site.ready()
    assert site.metric("following", stream="library") == 1


def latest_of(site: Site) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = site.get("latest.json").json()["answers"]
    return answers


def test_latest_answers_match_the_changes_and_appear_nowhere_else(
    db: Connection, start: Start
) -> None:
    # Only a search finds this row.
    add_release(db)
    db.execute("DELETE FROM listener.change")
    daemon = start(HTTP_BIND=ANY_PORT).following()
    site = Site(daemon).ready()
    daemon.wait_for("checked every row", scanned=1)
    assert latest_of(site) == []
    row = add_release(db, "Broadcast", "Tender Buttons")
    eventually(lambda: len(latest_of(site)) == 1)
    rename(db, row, "Broadcast (UK)")
    eventually(lambda: len(latest_of(site)) == 2)
    edited, added = latest_of(site)
    assert (added["origin"], edited["origin"]) == ("added", "edited")
    assert (added["artist"], edited["artist"]) == ("Broadcast", "Broadcast (UK)")
    assert added["title"] == "Tender Buttons"
    assert (added["library_id"], added["outcome"]) == (row, "single_artist")
    assert added["sources"]
    assert added["took"] > 0
    assert edited["at"] > added["at"]
    db.execute(
        sql.SQL(
            "INSERT INTO {} (album_id, rotation_bin, lml_identity_id) VALUES (%s, 'H', 9)"
        ).format(table("rotation")),
        (row,),
    )
    eventually(lambda: len(latest_of(site)) == 3)
    assert latest_of(site)[0]["origin"] == "rotation"
    assert latest_of(site)[0]["artist"] == "Broadcast (UK)"
    assert "Broadcast" not in site.get("metrics").text
    assert daemon.stop() == 0
    assert "Broadcast" not in "".join(daemon.lines)


def test_standby_reports_that_it_follows_nothing(start: Start) -> None:
    first = start(HTTP_BIND=ANY_PORT).following()
    second = start(HTTP_BIND=ANY_PORT)
    second.wait_for("standing by", stream="library")
    assert sorted(Site(first).get("latest.json").json()["follows"]) == ["library", "rotation"]
    assert Site(second).ready().get("latest.json").json()["follows"] == []


def test_lost_database_turns_readiness_red_until_it_is_back(
    db: Connection, owner_dsn: str, start: Start
) -> None:
    daemon = start(HTTP_BIND=ANY_PORT)
    site = Site(daemon).ready()
    with refusing_connections(owner_dsn):
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'listener%'"
        )
        assert red_within(site, "database") == "the database cannot be read"
        assert site.get("livez").status_code == 200
        assert site.get("status.json").status_code == 503
        page = site.get("page.json").json()
        assert (page["status"], page["wellness"]["word"]) == (None, "failing")
    eventually(lambda: not site.why, 40)


def test_history_survives_a_restart(db: Connection, start: Start) -> None:
    add_release(db)
    daemon = start(HTTP_BIND=ANY_PORT)
    eventually(lambda: db.execute("SELECT FROM listener.sample").rowcount >= 2, 30)
    assert daemon.stop() == 0
    site = Site(start(HTTP_BIND=ANY_PORT))
    hour = site.get("history.json").json()["hour"]["streams"]
    assert sum(hour["library"]["settled"]) == 1
    assert hour["library"]["coverage"][-1][0] == 1


def test_half_open_listening_session_turns_readiness_red(dsn: str, start: Start) -> None:
    with proxy_before(dsn, b"LISTEN ") as (through, proxy):
        site = Site(start(HTTP_BIND=ANY_PORT, DATABASE_URL=through)).ready()
        proxy.dead.set()
        assert "does not respond" in red_within(site, "the session that wakes")
        # It takes another session by itself.
        site.ready()


def test_every_session_names_version_and_process(db: Connection, start: Start) -> None:
    daemon = start(HTTP_BIND=ANY_PORT).following()
    Site(daemon).get("page.json")
    named = db.execute(
        "SELECT DISTINCT application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'listener%'"
    ).fetchall()
    names = [str(name) for (name,) in named]
    assert {name.split()[0] for name in names} == {"listener", "listener-page"}
    for name in names:
        assert f" {version(DISTRIBUTION)} " in name
        assert f"[{daemon.process.pid}] " in name


def test_log_shows_where_the_page_is(start: Start) -> None:
    daemon = start(HTTP_BIND=ANY_PORT)
    url = url_of(daemon)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
    assert daemon.logged("page served", token_needed=False) == 1
