"""What is reported to Sentry: envelopes made by the real SDK, captured before they are sent."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext, suppress
from contextvars import Context
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sentry_sdk
import structlog
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport
from sentry_sdk.utils import BadDsn, Dsn

from listener.adapters.log import configure_logs
from listener.adapters.telemetry.errors import ErrorReporter
from listener.adapters.telemetry.scrub import Scrubber
from listener.adapters.telemetry.sentry import SentryOptions, SentryTelemetry, open_sentry
from listener.domain.refreshing import Refreshed, RefreshStatus, RotationTally
from listener.domain.tally import Skip, Tally
from listener.settings import Settings, SettingsError, load_settings
from tests.integration.conftest import until

TOKEN = "sesame-token"
PASSWORD = "hunter2/@:x"
ARTIST = "Sleater-Kinney"
OPTIONS = SentryOptions(
    dsn="https://public-key@sentry.example/42",
    environment="tests",
    traces_sample_rate=1.0,
    secrets=(TOKEN, PASSWORD),
    window=timedelta(milliseconds=50),
)
_NEVER = 86_400
STATS = {"memory_hits": 7, "pg_time_ms": 12.5}

NEEDED = {"DATABASE_URL": "postgresql://db", "LIBRARY_METADATA_URL": "http://lml"}

TOTALS = {
    "consumer.scanned",
    "consumer.rows_resolved",
    "consumer.rows_resolved_compilation",
    "consumer.rows_unresolved",
    "consumer.source_rows_skipped_null_confidence",
    "consumer.capture_missed",
    "consumer.identities_withdrawn",
    "consumer.resolved_now_unresolved",
    "consumer.kept_manual",
    "consumer.lml_total_calls",
    "consumer.lml_total_latency_ms",
    *(f"consumer.rows_skipped.{reason}" for reason in Skip),
    "consumer.compilation_track_rows_written",
    "consumer.compilation_track_rows_skipped_unchanged",
    "consumer.compilation_track_rows_skipped_librarian",
    "consumer.compilation_track_rows_skipped_no_cta_match",
    "consumer.compilation_track_rows_skipped_no_catalog_artist",
    "consumer.compilation_track_position_rows_written",
    "consumer.compilation_track_position_rows_skipped_ambiguous",
    "consumer.compilation_track_entries_invalid",
    "consumer.compilation_track_confidences_invalid",
}


class Captured(Transport):
    """Keeps every envelope as the text that would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.append(envelope.serialize().decode())

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(envelope.splitlines()[2]) for envelope in self.sent]

    @property
    def text(self) -> str:
        return "\n".join(self.sent)


@pytest.fixture
def captured() -> Captured:
    return Captured()


@pytest.fixture
async def telemetry(captured: Captured) -> AsyncIterator[SentryTelemetry]:
    async with open_sentry(OPTIONS, captured) as opened:
        yield opened


@pytest.fixture
def _logs() -> Iterator[None]:
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logs("INFO")
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


async def sent(telemetry: SentryTelemetry, captured: Captured) -> list[dict[str, Any]]:
    await telemetry.sent()
    return captured.events


def ticking_by_hand(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have no window end by time; return what ends the present one."""
    loop = asyncio.get_running_loop()
    ticks: list[Callable[[], object]] = []
    by_time = loop.call_later

    def call_later(
        delay: float,
        callback: Callable[..., object],
        *arguments: object,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if delay == OPTIONS.window.total_seconds():
            ticks.append(callback)
            delay = _NEVER
        return by_time(delay, callback, *arguments, context=context)

    monkeypatch.setattr(loop, "call_later", call_later)

    def tick() -> None:
        ticks[-1]()

    return tick


def spans(event: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [span for span in event["spans"] if span["description"] == name]


def numbers(value: object) -> bool:
    return type(value) in (int, float)


async def test_run_is_a_span_with_its_calls_and_totals_all_in_numbers(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    tally = Tally()
    with telemetry.run("sweep", tally):
        with telemetry.call(500) as answered:
            await asyncio.sleep(0.02)
        answered(STATS)
        tally.add(Tally(resolved=400, unresolved=90, lml_calls=1))
        tally.skip(Skip.COMPILATION, 10)
        tally.lml_latency = timedelta(milliseconds=1234.6)
    (event,) = await sent(telemetry, captured)
    assert (event["type"], event["transaction"]) == ("transaction", "library-identity-consumer.run")
    assert event["tags"]["consumer.kind"] == "sweep"
    assert event["contexts"]["trace"]["status"] == "ok"
    assert (event["environment"], event["release"]) == ("tests", "listener@0.1.0")
    top = event["contexts"]["trace"]["span_id"]
    assert {span["parent_span_id"] for span in event["spans"]} == {top}

    (call,) = spans(event, "lml.bulk_resolve_libraries")
    assert call["op"] == "http.client"
    assert call["data"] == {
        "lml.batch_size": 500,
        "lml.cache.memory_hits": 7,
        "lml.cache.pg_time_ms": 12.5,
    }
    (totals,) = spans(event, "library-identity-consumer.run.totals")
    assert totals["data"].keys() == TOTALS
    assert totals["data"]["consumer.scanned"] == 500
    assert totals["data"]["consumer.rows_resolved"] == 400
    assert totals["data"]["consumer.rows_skipped.compilation"] == 10
    assert totals["data"]["consumer.rows_skipped.gone"] == 0
    assert totals["data"]["consumer.lml_total_latency_ms"] == 1235
    assert all(numbers(value) for span in event["spans"] for value in span["data"].values())


async def test_walk_over_the_rotation_is_reported_under_the_names_that_dashboards_know(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    tally = RotationTally()
    with telemetry.run("rotation", tally):
        before = time.monotonic()
        with telemetry.refresh(50):
            within = await _some_time()
        about = time.monotonic() - before
        with suppress(ValueError), telemetry.refresh(7):
            raise ValueError
        tally.count(Refreshed(1, RefreshStatus.WARMED, releases=2, artists=3, parts=6))
        tally.count(Refreshed(2, RefreshStatus.NOT_FOUND))
        tally.count(Refreshed(3, RefreshStatus.ERROR, word="from a newer LML"))
    (event,) = await sent(telemetry, captured)
    assert event["transaction"] == "rotation-artist-backfill.run"
    assert event["tags"]["consumer.kind"] == "rotation"
    calls = spans(event, "lml.refresh_for_identities")
    assert [(call["op"], call["data"], call["status"]) for call in calls] == [
        ("http.client", {"lml.batch_size": 50}, "ok"),
        ("http.client", {"lml.batch_size": 7}, "internal_error"),
    ]
    assert within <= seconds(calls[0]) <= about
    (totals,) = spans(event, "rotation-artist-backfill.run.totals")
    assert totals["op"] == "rotation-artist-backfill.totals"
    assert totals["data"] == {
        "backfill.identities_scanned": 3,
        "backfill.identities_resolved": 2,
        "backfill.warmed_releases": 2,
        "backfill.warmed_artists": 3,
        "backfill.not_found": 1,
        "backfill.not_implemented": 0,
        "backfill.lml_error": 1,
    }


async def test_spans_have_the_original_times(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    with telemetry.run("sweep", Tally()):
        first = await _some_time()
        before = time.monotonic()
        with telemetry.call(1) as answered:
            within = await _some_time()
        about = time.monotonic() - before
        last = await _some_time()
        answered({})
    (event,) = await sent(telemetry, captured)
    (call,) = spans(event, "lml.bulk_resolve_libraries")
    assert within <= seconds(call) <= about
    assert seconds(event) >= first + within + last
    assert event["start_timestamp"] < call["start_timestamp"] < call["timestamp"]
    assert call["timestamp"] < event["timestamp"]


async def _some_time() -> float:
    """Let time pass; return how much, cut off to the millisecond, as no span is finer."""
    began = time.monotonic()
    await asyncio.sleep(0.02)
    return math.floor((time.monotonic() - began) * 1000) / 1000


def seconds(span: dict[str, Any]) -> float:
    begin, end = (datetime.fromisoformat(span[name]) for name in ("start_timestamp", "timestamp"))
    return (end - begin).total_seconds()


@pytest.mark.parametrize(
    ("fault", "status"),
    [(ValueError("boom"), "internal_error"), (asyncio.CancelledError(), "cancelled")],
)
async def test_run_that_does_not_end_well_has_its_totals_too(
    telemetry: SentryTelemetry, captured: Captured, fault: BaseException, status: str
) -> None:
    tally = Tally(resolved=3)
    with suppress(ValueError, asyncio.CancelledError), telemetry.run("backfill", tally):
        raise fault
    (event,) = [
        event for event in await sent(telemetry, captured) if event.get("type") == "transaction"
    ]
    (totals,) = spans(event, "library-identity-consumer.run.totals")
    assert totals["data"]["consumer.rows_resolved"] == 3
    assert event["contexts"]["trace"]["status"] == status


async def test_call_that_fails_is_a_span_that_failed(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    with telemetry.run("sweep", Tally()), suppress(ValueError), telemetry.call(5):
        raise ValueError(ARTIST)
    (event,) = await sent(telemetry, captured)
    (call,) = spans(event, "lml.bulk_resolve_libraries")
    assert (call["status"], call["data"]) == ("internal_error", {"lml.batch_size": 5})
    assert ARTIST not in captured.text


async def test_run_within_a_run_is_part_of_it(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    with telemetry.run("sweep", Tally()), telemetry.run("sweep", Tally()):
        with telemetry.call(1) as answered:
            pass
        answered({})
    (event,) = await sent(telemetry, captured)
    assert len(spans(event, "lml.bulk_resolve_libraries")) == 1


async def test_very_long_run_keeps_its_totals(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    tally = Tally(lml_calls=3000)
    with telemetry.run("backfill", tally):
        for _ in range(3000):
            with telemetry.call(100) as answered:
                pass
            answered(STATS)
    (event,) = await sent(telemetry, captured)
    assert len(spans(event, "lml.bulk_resolve_libraries")) == 500
    (totals,) = spans(event, "library-identity-consumer.run.totals")
    assert totals["data"]["consumer.lml_total_calls"] == 3000


async def test_runs_at_the_same_time_keep_their_calls_apart(
    monkeypatch: pytest.MonkeyPatch, telemetry: SentryTelemetry, captured: Captured
) -> None:
    ticking_by_hand(monkeypatch)

    async def run(kind: str, size: int) -> None:
        with telemetry.run(kind, Tally()):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(3):
                    tasks.create_task(call(size))

    async def call(size: int) -> None:
        with telemetry.call(size) as answered:
            await asyncio.sleep(0.01)
        answered({})

    with telemetry.windows(tally := Tally()):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run("audit", 1))
            tasks.create_task(run("refresh", 2))
            tasks.create_task(call(3))
        tally.resolved += 1
    sizes = {
        event["tags"]["consumer.kind"]: [
            span["data"]["lml.batch_size"] for span in spans(event, "lml.bulk_resolve_libraries")
        ]
        for event in await sent(telemetry, captured)
    }
    assert sizes == {"audit": [1, 1, 1], "refresh": [2, 2, 2], "window": [3]}


async def test_window_shows_what_was_added_in_it(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    tally = Tally(resolved=100)
    with telemetry.windows(tally):
        tally.resolved += 5
        await until(lambda: len(captured.sent) == 1)
        tally.unresolved += 2
    first, second = (
        spans(event, "library-identity-consumer.run.totals")[0]["data"]
        for event in await sent(telemetry, captured)
    )
    assert (first["consumer.rows_resolved"], first["consumer.scanned"]) == (5, 5)
    assert (second["consumer.rows_resolved"], second["consumer.rows_unresolved"]) == (0, 2)


async def test_window_in_which_nothing_was_scanned_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, telemetry: SentryTelemetry, captured: Captured
) -> None:
    tally, tick = Tally(resolved=100), ticking_by_hand(monkeypatch)
    with telemetry.windows(tally):
        tally.lml_calls += 1
        tick()
    assert not await sent(telemetry, captured)


async def test_call_whose_rows_are_written_in_the_next_window_is_reported_there(
    monkeypatch: pytest.MonkeyPatch, telemetry: SentryTelemetry, captured: Captured
) -> None:
    tally, tick = Tally(), ticking_by_hand(monkeypatch)
    with telemetry.windows(tally):
        with telemetry.call(9) as answered:
            pass
        answered({})
        tick()
        tally.resolved += 9
    (event,) = await sent(telemetry, captured)
    assert len(spans(event, "lml.bulk_resolve_libraries")) == 1


@pytest.mark.parametrize(
    ("kind", "tally"),
    [
        ("rotation", RotationTally()),
        ("sweep", Tally()),
        ("dry backfill", Tally()),
        ("backfill", Tally()),
        ("recheck", Tally()),
        ("audit", Tally()),
    ],
)
async def test_rare_runs_are_sent_whatever_the_rate(
    captured: Captured, kind: str, tally: Tally | RotationTally
) -> None:
    async with open_sentry(replace(OPTIONS, traces_sample_rate=0.0), captured) as telemetry:
        for _ in range(3):
            with telemetry.run(kind, tally), telemetry.refresh(7):
                pass
    runs = captured.events
    assert [run["tags"]["consumer.kind"] for run in runs] == [kind] * 3
    assert all(len(run["spans"]) == 2 for run in runs)


async def test_unsampled_spans_are_not_sent_but_their_errors_are(captured: Captured) -> None:
    async with open_sentry(replace(OPTIONS, traces_sample_rate=0.0), captured) as telemetry:
        with telemetry.windows(tally := Tally()):
            tally.resolved += 1
        with suppress(ValueError), telemetry.run("refresh", Tally(resolved=1)):
            raise ValueError
    (event,) = captured.events
    assert (event["message"], event["level"]) == ("run failed", "error")


@pytest.mark.usefixtures("_logs")
async def test_error_is_captured_once_a_cause_without_contents(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    log = structlog.stdlib.get_logger()
    for row in range(100):
        log.error("row parked", library_id=row, reason="lml_error", detail=ARTIST, failures=8)
    log.error("row parked", library_id=5, reason="lml_invalid", detail=ARTIST)
    log.warning("rows cannot be answered", count=3)
    first, other = await sent(telemetry, captured)
    assert first["message"] == "row parked"
    assert first["fingerprint"] == ["row parked", ""]
    assert first["contexts"]["listener"] == {
        "library_id": 0,
        "failures": 8,
        "reason": "lml_error",
        "repeats": 0,
    }
    assert other["contexts"]["listener"]["reason"] == "lml_invalid"
    assert ARTIST not in captured.text


@pytest.mark.usefixtures("_logs")
async def test_exception_shows_only_its_type_and_places(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    def broken(artist: str) -> None:
        raise KeyError(artist)

    log = structlog.stdlib.get_logger()
    try:
        broken(ARTIST)
    except KeyError:
        log.exception("batch handling failed", rows=3, artist=ARTIST)
    (event,) = await sent(telemetry, captured)
    assert event["fingerprint"] == ["batch handling failed", "KeyError"]
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("KeyError", "batch handling failed")
    frames = exception["stacktrace"]["frames"]
    assert frames[-1]["function"] == "broken"
    assert set(frames[-1]) <= {"filename", "lineno", "function", "in_app"}
    assert event["contexts"]["listener"] == {"rows": 3, "repeats": 0}
    assert ARTIST not in captured.text
    assert "public-key" not in captured.text.splitlines()[2]


@pytest.mark.usefixtures("_logs")
async def test_error_of_a_library_shows_only_the_library(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    logging.getLogger("psycopg.pool").error("could not insert %s", ARTIST)
    logging.getLogger("sentry_sdk.errors").error("cannot send %s", ARTIST)
    (event,) = await sent(telemetry, captured)
    assert event["message"] == "error logged by psycopg.pool"
    assert ARTIST not in captured.text


async def test_failed_run_is_reported_once_with_its_cause(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    for number in range(50):
        with suppress(ExceptionGroup), telemetry.run("refresh", Tally(resolved=2)):
            raise ExceptionGroup(ARTIST, [ConnectionError(f"{ARTIST} {number}")])
    (event,) = [
        event for event in await sent(telemetry, captured) if event.get("type") != "transaction"
    ]
    assert event["fingerprint"] == ["run failed", "ConnectionError"]
    assert event["contexts"]["listener"] == {"kind": "refresh", "scanned": 2, "repeats": 0}
    assert ARTIST not in captured.text


def test_cause_is_reported_again_after_ten_minutes_with_its_repeats() -> None:
    reported: list[dict[str, Any]] = []
    times = iter((0.0, 10.0, 599.0, 600.0, 700.0))
    reporter = ErrorReporter(reported.append, lambda: next(times))
    for _ in range(5):
        reporter.report("run failed", ValueError("7 rows"), kind="sweep")
    assert [event["contexts"]["listener"]["repeats"] for event in reported] == [0, 2]


def test_storm_of_many_causes_is_cut() -> None:
    reported: list[dict[str, Any]] = []
    reporter = ErrorReporter(reported.append, lambda: 0.0)
    for number in range(1000):
        reporter.report("run failed", ValueError("x" * number))
    assert len(reported) == 20


def test_reporter_that_cannot_capture_raises_nothing() -> None:
    def broken(event: dict[str, Any]) -> None:
        raise OSError

    reporter = ErrorReporter(broken)
    reporter.report("run failed", ValueError())
    record = {"name": "x", "msg": "%s", "args": (1, 2), "levelno": logging.ERROR}
    reporter.handle(logging.makeLogRecord(record))


SCRUBBED = [
    f"Bearer {TOKEN}",
    "Authorization: Bearer abc.def-ghi",
    "authorization=Basic YWJjOmRlZg==",
    f"postgresql://wxyc:{PASSWORD}@db/backend?sslmode=require",
    "https://user:abc.def-ghi@lml.example/api",
    "https://abc.def-ghi@sentry.example/42",
    "host=db password='abc.def-ghi' user=wxyc",
    'PGPASSWORD="abc.def-ghi"',
    "api_key: abc.def-ghi",
    f"it said {PASSWORD}!",
]


@pytest.mark.parametrize("text", SCRUBBED)
def test_credentials_are_scrubbed_wherever_they_appear(text: str) -> None:
    scrubber = Scrubber((TOKEN, PASSWORD))
    for cleaned in (scrubber.text(text), scrubber.text(f"before {text} after")):
        assert "[scrubbed]" in cleaned
        for secret in (TOKEN, PASSWORD, "abc.def-ghi", "YWJjOmRlZg"):
            assert secret not in cleaned


@pytest.mark.parametrize("text", ["LML answered 503 to /api/v1/x", "https://lml.example/api", ""])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert Scrubber((TOKEN, "", "api")).text(text) == text


async def test_what_others_capture_later_is_scrubbed_too(
    telemetry: SentryTelemetry, captured: Captured
) -> None:
    def fail(artist: str) -> None:
        raise ValueError(f"{artist} {TOKEN}")

    try:
        fail(ARTIST)
    except ValueError as error:
        sentry_sdk.add_breadcrumb(message=ARTIST)
        sentry_sdk.set_extra("row", ARTIST)
        sentry_sdk.set_user({"username": ARTIST})
        sentry_sdk.capture_exception(error)
    sentry_sdk.capture_message(f"asked with Bearer {TOKEN}")
    with sentry_sdk.start_transaction(name="x") as transaction:
        transaction.start_child(name=f"POST {TOKEN}").finish()
        span = transaction.start_child(name="row")
        span.set_data("artist", ARTIST)
        span.finish()
    assert len(await sent(telemetry, captured)) == 3
    assert ARTIST not in captured.text
    assert TOKEN not in captured.text
    assert not sentry_sdk.get_client().should_send_default_pii()


async def test_close_leaves_nothing_behind(captured: Captured) -> None:
    before = list(logging.getLogger().handlers)
    async with open_sentry(OPTIONS, captured):
        assert sentry_sdk.get_client().is_active()
    assert not sentry_sdk.get_client().is_active()
    assert logging.getLogger().handlers == before


async def test_silent_sentry_delays_the_end_by_two_seconds() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = replace(OPTIONS, dsn=f"http://key@127.0.0.1:{port}/42")
    async with open_sentry(options) as telemetry:
        for _ in range(200):
            with telemetry.run("sweep", Tally(resolved=1)):
                pass
        await telemetry.sent()
        began = time.monotonic()
    # The SDK by itself would wait for 30 s.
    assert time.monotonic() - began < 10
    server.close()


def test_without_a_dsn_the_sdk_is_not_even_imported() -> None:
    program = (
        "import asyncio, sys; import listener.cli;"
        "from listener.app.parts import open_telemetry;"
        "from listener.settings import Settings, load_settings\n"
        "async def main():\n"
        "    async with open_telemetry(load_settings(Settings)): pass\n"
        "asyncio.run(main())\n"
        "print('sentry_sdk' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=NEEDED, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"


@pytest.mark.parametrize(
    ("dsn", "good"),
    [
        ("https://key@sentry.example/42", True),
        ("https://key:old-secret@o7.ingest.sentry.io:443/42", True),
        ("http://key@localhost:9000/some/path/42", True),
        ("https://sentry.example/42", False),
        ("https://key@sentry.example/", False),
        ("https://key@sentry.example/name", False),
        ("https://key@/42", False),
        ("key@sentry.example/42", False),
        ("ftp://key@sentry.example/42", False),
    ],
)
def test_dsn_is_accepted_if_the_sdk_accepts_it(
    monkeypatch: pytest.MonkeyPatch, dsn: str, good: bool
) -> None:
    for name, value in {**NEEDED, "SENTRY_DSN": dsn}.items():
        monkeypatch.setenv(name, value)
    for refusal, read in ((BadDsn, lambda: Dsn(dsn)), (SettingsError, load)):
        with nullcontext() if good else pytest.raises(refusal):
            read()


def test_blank_dsn_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**NEEDED, "SENTRY_DSN": " "}.items():
        monkeypatch.setenv(name, value)
    assert load().sentry_dsn is None


def load() -> Settings:
    return load_settings(Settings)
