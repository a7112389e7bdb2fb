"""What the real process sends to a server that stands in for Sentry."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg import sql

from listener.simulator import IdentityMix, Simulator
from tests.acceptance.conftest import LML_KEY, Commands, Start, asked, eventually
from tests.acceptance.test_daemon import add_releases
from tests.acceptance.test_rotation import play, unseen
from tests.catalogue import add_release
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(90)

PASSWORD = "hunter2-of-the-tests"
ARTIST = "Sleater-Kinney"
RUN = "library-identity-consumer.run"


class Sentry:
    """Keeps what was posted to it."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.dsn = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body.splitlines()[2]) for body in self.bodies]

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("type") == "transaction"]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("level") == "error"]


@contextmanager
def sentry_server() -> Iterator[Sentry]:
    sentry = Sentry()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            sentry.bodies.append(body.decode())
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as inherited
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        sentry.dsn = f"http://public-key@127.0.0.1:{server.server_port}/42"
        try:
            yield sentry
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    with sentry_server() as running:
        yield running


@pytest.fixture
def settings(sentry: Sentry, dsn: str, db: Connection, role: str) -> dict[str, str]:
    """Everything is sent; the database's address has a password, whether it is asked for or not."""
    db.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), PASSWORD))
    parts = urlsplit(dsn)
    separator = "&" if parts.query else "?"
    return {
        "SENTRY_DSN": sentry.dsn,
        "SENTRY_TRACES_SAMPLE_RATE": "1",
        "SENTRY_ENVIRONMENT": "tests",
        "DATABASE_URL": f"{dsn}{separator}password={PASSWORD}",
    }


def spans(run: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [span for span in run["spans"] if span["description"] == name]


def assert_nothing_leaked(sentry: Sentry, *texts: str) -> None:
    for text in ("\n".join(sentry.bodies), *texts):
        for secret in (LML_KEY, PASSWORD, ARTIST):
            assert secret not in text


def test_sweep_is_reported_in_numbers_without_secrets_or_rows(
    db: Connection, listener: Commands, sentry: Sentry, settings: dict[str, str]
) -> None:
    add_releases(db, 120, ARTIST)
    ran = listener.run("sweep", "--json", BATCH_SIZE="50", **settings)
    assert ran.code == 0, ran.stderr
    assert ran.report["scanned"] == 120
    (run,) = sentry.runs
    assert run["transaction"] == RUN
    assert run["environment"] == "tests"
    assert run["tags"]["consumer.kind"] == "sweep"
    (totals,) = spans(run, f"{RUN}.totals")
    assert totals["data"]["consumer.scanned"] == 120
    assert totals["data"]["consumer.rows_resolved"] == ran.report["rows_resolved"]
    assert totals["data"]["consumer.lml_total_calls"] == ran.report["lml_total_calls"]
    assert totals["data"]["consumer.lml_total_latency_ms"] == ran.report["lml_total_latency_ms"]
    calls = spans(run, "lml.bulk_resolve_libraries")
    assert len(calls) == ran.report["lml_total_calls"]
    assert {call["op"] for call in calls} == {"http.client"}
    assert sum(call["data"]["lml.batch_size"] for call in calls) == 120
    assert all("lml.cache.memory_hits" in call["data"] for call in calls)
    values = [value for span in run["spans"] for value in span["data"].values()]
    assert all(type(value) in (int, float) for value in values)
    assert not sentry.errors
    assert_nothing_leaked(sentry, ran.stderr)


def test_walk_is_sent_with_all_that_its_command_did_whatever_the_rate(
    db: Connection,
    listener: Commands,
    simulator: Simulator,
    sentry: Sentry,
    settings: dict[str, str],
) -> None:
    simulator.identities.mix = IdentityMix(warm_share=1, tombstone_share=0)
    play(db, count=4)
    unseen(db)
    play(db, first=5, count=2)
    settings["SENTRY_TRACES_SAMPLE_RATE"] = "0"
    ran = listener.run("sweep", "--stream", "rotation", "--json", **settings)
    assert ran.code == 0, ran.stderr
    (run,) = sentry.runs
    assert run["tags"]["consumer.kind"] == "rotation"
    (totals,) = spans(run, "rotation-artist-backfill.run.totals")
    assert totals["data"]["backfill.identities_scanned"] == 6
    assert totals["data"]["backfill.warmed_releases"] == 6
    assert spans(run, "lml.refresh_for_identities")


def test_sweep_that_fails_is_reported_as_one_error(
    db: Connection,
    listener: Commands,
    simulator: Simulator,
    sentry: Sentry,
    settings: dict[str, str],
) -> None:
    add_releases(db, 200, ARTIST)
    db.execute("DELETE FROM listener.change")
    simulator.faults.add("status", status=503, body="html")
    ran = listener.run("backfill", "--json", LML_ATTEMPTS="1", BATCH_SIZE="10", **settings)
    assert ran.code == 2
    (run,) = sentry.runs
    assert run["contexts"]["trace"]["status"] == "internal_error"
    (totals,) = spans(run, f"{RUN}.totals")
    assert totals["data"]["consumer.rows_skipped.lml_error"] > 0
    (error,) = sentry.errors
    assert error["fingerprint"] == ["run failed", "RunHaltedError"]
    assert_nothing_leaked(sentry, ran.stderr)


def test_poisoned_rows_are_one_error_not_one_each(
    db: Connection,
    listener: Commands,
    simulator: Simulator,
    sentry: Sentry,
    settings: dict[str, str],
) -> None:
    for _ in range(8):
        add_release(db, ARTIST)
    db.execute("DELETE FROM listener.change")
    simulator.faults.add("status", status=422, body="detail", artist=ARTIST)
    assert listener.run("backfill", MAX_ATTEMPTS="1", **settings).code == 1
    assert not sentry.errors
    db.execute(
        "UPDATE listener.ledger SET failing_since = now() - interval '12 hours',"
        " failed_at = now() - interval '1 hour', next_ask_at = now()"
    )
    add_release(db, "Answered before they are asked")
    ran = listener.run("sweep", "--stream", "library", MAX_ATTEMPTS="1", **settings)
    assert ran.code == 1
    assert ran.stderr.count("row parked") == 8
    (error,) = sentry.errors
    assert error["message"] == "row parked"
    assert type(error["contexts"]["listener"]["library_id"]) is int
    assert_nothing_leaked(sentry, ran.stderr)


def test_daemon_logs_its_last_counts_when_it_ends(
    db: Connection, start: Start, simulator: Simulator, sentry: Sentry, settings: dict[str, str]
) -> None:
    daemon = start(**settings).following()
    daemon.wait_for("checked every row")
    row = add_release(db, ARTIST)
    eventually(lambda: row in asked(simulator))
    assert daemon.stop() == 0
    kinds = {run["tags"]["consumer.kind"]: run for run in sentry.runs}
    (totals,) = spans(kinds["window"], f"{RUN}.totals")
    assert totals["data"]["consumer.scanned"] >= 1
    assert spans(kinds["window"], "lml.bulk_resolve_libraries")
    assert "refresh" in kinds
    assert_nothing_leaked(sentry, *daemon.lines)


def test_unreachable_sentry_costs_two_seconds_at_most(
    db: Connection, listener: Commands, settings: dict[str, str]
) -> None:
    add_releases(db, 10, ARTIST)
    began = time.monotonic()
    settings["SENTRY_DSN"] = "http://public-key@127.0.0.1:1/42"
    ran = listener.run("sweep", **settings)
    assert ran.code == 0
    assert time.monotonic() - began < 15
    assert "127.0.0.1:1" not in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("wrong", ["sentry.example/42", "https://sentry.example/42", "https://k@h"])
def test_invalid_dsn_is_refused_without_showing_it(
    db: Connection, listener: Commands, wrong: str
) -> None:
    ran = listener.run("sweep", SENTRY_DSN=wrong)
    assert ran.code == 2
    assert "SENTRY_DSN: must be like https://KEY@HOST/PROJECT" in ran.stderr
    assert wrong not in ran.stderr
