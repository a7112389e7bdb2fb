"""What serving costs: an idle daemon, metrics while a backfill runs, how soon the page is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import psycopg

from bench.harness import ROWS, Figure, catalogue, fresh_server, median, migrate, p99
from bench.process import BACKEND, RunningDaemon
from listener.demo.postgres import create_backend
from listener.simulator import simulator_process

IDLE_SECONDS = 30
FILES = ("", "app.js", "chart.js", "style.css", "icon.svg")
# One release, many, none, and what nearly every name contains.
WORDS = ("underground sessions 150", "björk", "nobody at all", "a")
# What LML takes for a page of 500: long enough that the backfill lasts while metrics are read.
LATENCY = {"fixed": 0.05, "per_row": 0.0003}


def figures(rounds: int) -> list[Figure]:
    """Measure everything `rounds` times, on one server."""
    starts: list[float] = []
    rss: list[float] = []
    cpu: list[float] = []
    scrapes: list[float] = []
    searches: list[float] = []
    with _prepared() as (environment, dsn):
        for _ in range(rounds):
            _begin_anew(dsn)
            began = time.monotonic()
            daemon = RunningDaemon(environment)
            url = daemon.url
            with httpx.Client(base_url=url, trust_env=False) as client:
                starts.append(_ready(client) - began)
                scrapes.append(_scraped(client, dsn))
                weight = sum(len(client.get(path).content) for path in FILES)
            daemon.stop()
            daemon = RunningDaemon(environment)
            with httpx.Client(base_url=daemon.url, trust_env=False) as client:
                _ready(client)
                searches.append(_searched(client))
            memory, share = _idle(psutil.Process(daemon.process.pid))
            rss.append(memory)
            cpu.append(share)
            daemon.stop()
    return [
        Figure(
            "start to ready",
            "<= 3 s",
            f"{median(starts):.2f} s",
            median(starts) <= 3,
            readings=starts,
        ),
        Figure(
            "idle daemon, memory",
            "<= 80 MB",
            f"{median(rss):.0f} MB",
            median(rss) <= 80,
            readings=rss,
        ),
        Figure(
            "idle daemon, of a core",
            "<= 0.25 %",
            f"{100 * median(cpu):.2f} %",
            median(cpu) <= 0.0025,
            readings=[100 * share for share in cpu],
        ),
        Figure(
            "/metrics p99 during a backfill",
            "<= 20 ms",
            f"{median(scrapes):.1f} ms",
            median(scrapes) <= 20,
            f"{ROWS:,} rows",
            scrapes,
        ),
        Figure(
            "search answer",
            "<= 200 ms",
            f"{median(searches):.0f} ms",
            median(searches) <= 200,
            f"{ROWS:,} rows, slowest of {len(WORDS)}",
            readings=searches,
        ),
        Figure("page weight", "<= 200 kB", f"{weight / 1000:.0f} kB", weight <= 200_000),
    ]


@contextmanager
def _prepared() -> Iterator[tuple[dict[str, str], str]]:
    with (
        fresh_server() as dsn,
        simulator_process(latency=LATENCY, knowledge={"all_single": True}) as lml,
    ):
        create_backend(dsn, BACKEND, with_triggers=False)
        catalogue(dsn, BACKEND, ROWS)
        migrate(dsn, BACKEND)
        yield {"DATABASE_URL": dsn, "LIBRARY_METADATA_URL": lml.url}, dsn


def _begin_anew(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE listener.ledger, listener.change, listener.slot,"
            " wxyc_schema.library_identity, wxyc_schema.library_identity_source"
        )
        connection.execute("VACUUM ANALYZE")


def _ready(client: httpx.Client) -> float:
    ticks = threading.Event()
    while client.get("/readyz").status_code != httpx.codes.OK:
        ticks.wait(0.02)
    return time.monotonic()


def _scraped(client: httpx.Client, dsn: str) -> float:
    """Read the metrics 20 times a second until all is answered; return the p99 in milliseconds."""
    took: list[float] = []
    ticks = threading.Event()
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute("SELECT FROM listener.ledger LIMIT %s", (ROWS,)).rowcount < ROWS:
            for _ in range(20):
                began = time.perf_counter()
                client.get("/metrics").raise_for_status()
                took.append(1000 * (time.perf_counter() - began))
                ticks.wait(0.05)
    return p99(took)


def _searched(client: httpx.Client) -> float:
    """Search for all of the words; return how long the slowest answer took, in milliseconds."""
    took = []
    for words in WORDS:
        began = time.perf_counter()
        client.get("/search", params={"q": words}).raise_for_status()
        took.append(1000 * (time.perf_counter() - began))
    return max(took)


def _idle(process: psutil.Process) -> tuple[float, float]:
    """Return the memory in MB of a daemon that has nothing to do, and its share of a core."""
    before = sum(process.cpu_times()[:2])
    threading.Event().wait(IDLE_SECONDS)
    share = (sum(process.cpu_times()[:2]) - before) / IDLE_SECONDS
    return process.memory_info().rss / 1e6, share
