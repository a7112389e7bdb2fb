"""What grows with the library and what does not: searches, claims, memory, status and page."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
from psycopg import sql

from bench.database import IDENTITY, LIBRARY, searches, tidy, wait_until_searched
from bench.harness import ROWS, Figure, median, spread
from bench.process import BACKEND, MEGABYTE, begin, cpu_of, finished, running_daemon, server_of
from bench.reconciling import Bench, prepared
from listener.adapters.postgres.connection import Database, open_pool
from listener.adapters.postgres.library import PostgresDue
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.sessions import query
from listener.domain.change import Stream
from listener.domain.due import AskAgain, Scope

WEEK = timedelta(days=7)
BATCH, READINGS = 500, 5
_LEVEL_MORE = "flat but for a level more of the key's index: <= 1.26"

# A ledger that knows every row, half of them with an identity; none is due for a day.
_ANSWERED = (
    sql.SQL(
        "INSERT INTO listener.ledger"
        " (library_id, question, ask_order, outcome, answered_at, next_ask_at)"
        " SELECT id, listener.question_digest(artist_name, album_title, legacy_release_id,"
        " coalesce(code_volume_letters LIKE 'Z%', false)), 1,"
        " CASE WHEN id % 2 = 0 THEN 'single_artist' ELSE 'unresolved' END, now(),"
        " now() + interval '1 day' + random() * interval '6 days' FROM {}"
    ).format(LIBRARY),
    sql.SQL(
        "INSERT INTO {} (library_id, last_verified_at, method, confidence, notes)"
        " SELECT id, now(), 'exact_match', 0.9, 'consumer:lml-bulk' FROM {} WHERE id % 2 = 0"
    ).format(IDENTITY, LIBRARY),
)
_DUE = sql.SQL(
    "UPDATE listener.ledger SET next_ask_at = now() - interval '1 hour' WHERE library_id IN"
    " (SELECT 1 + n * (SELECT max(id) / {most} FROM {library}) FROM generate_series(0, {most} - 1)"
    " AS n)"
).format(most=sql.Literal(BATCH), library=LIBRARY)
_ALL_CHANGED = sql.SQL(
    "INSERT INTO listener.change (stream, row_id) SELECT 'library', id FROM {}"
).format(LIBRARY)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something cost: seconds each time, and the server's CPU seconds on average."""

    times: list[float]
    cpu: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was measured on a library of so many rows: seconds, and bytes of memory."""

    rows: int
    blocks: int
    page: Cost
    audit: Cost
    window: float
    claim: Cost
    backfill: float
    daemon: float
    status: list[float]
    site: list[float]


def figures(rows: int) -> list[Figure]:
    """Measure a library of the station's size and one of `rows` rows."""
    small, large = _measured(ROWS), _measured(rows)
    return _as_figures(small, large)


def _measured(rows: int) -> Sizes:
    sys.stderr.write(f"sizes: making {rows:,} rows\n")
    with prepared(rows, mixed=False) as bench:
        bench.lml.set(latency={"fixed": 0})
        sys.stderr.write("sizes: running a backfill\n")
        backfill = bench.command("backfill", "--limit", str(ROWS)).largest_rss
        sys.stderr.write("sizes: making their answers\n")
        _answer_everything(bench)
        sys.stderr.write("sizes: searching\n")
        blocks = asyncio.run(_blocks(bench.dsn))
        page, audit, window = asyncio.run(_search(bench))
        sys.stderr.write("sizes: running the daemon\n")
        daemon, status, site = _daemon(bench)
        sys.stderr.write("sizes: having every row wait\n")
        bench.db.execute(_ALL_CHANGED)
        bench.db.execute("VACUUM ANALYZE listener.change")
        claim = asyncio.run(_claim(bench))
    megabytes = backfill / MEGABYTE, daemon / MEGABYTE
    return Sizes(rows, blocks, page, audit, window, claim, *megabytes, status, site)


def _answer_everything(bench: Bench) -> None:
    bench.forget()
    for statement in (*_ANSWERED, _DUE):
        bench.db.execute(statement)
    tidy(bench.db)


async def _blocks(dsn: str) -> int:
    """Return how many blocks a due page reads, which no other load on the machine changes."""
    parameters = {
        "after_time": "-infinity",
        "after_id": 0,
        "until": "now",
        "limit": BATCH,
        "since_id": 0,
        "partition": 0,
        "partitions": 1,
        "include_null_canonical": True,
    }
    explained = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query("find_due_by_time", BACKEND)
    async with (
        open_pool(Database(dsn, BACKEND, "listener bench"), size=1) as pool,
        pool.connection() as connection,
    ):
        row = await (await connection.execute(explained, parameters)).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def _measured_costs(
    bench: Bench, count: int, work: Callable[[], Coroutine[Any, Any, None]]
) -> Cost:
    """Do something that often; other load on the machine changes its time, but hardly its CPU."""
    server, times = server_of(bench.db), []
    before = cpu_of(server)
    for _ in range(count):
        began = time.perf_counter()
        await work()
        times.append(time.perf_counter() - began)
    return Cost(times, (cpu_of(server) - before) / count)


async def _search(bench: Bench) -> tuple[Cost, Cost, float]:
    """Measure due pages and looks at everything; return the seconds of its longest step, too."""
    longest: list[float] = []
    async with open_pool(Database(bench.dsn, BACKEND, "listener bench"), size=2) as pool:
        due = PostgresDue(pool, BACKEND, AskAgain(WEEK, WEEK))

        async def page() -> None:
            found = [row async for rows in due.by_time(Scope()) for row in rows]
            assert len(found) == BATCH

        async def look_at_everything() -> None:
            steps, last = [], time.perf_counter()
            async for rows in due.by_content(Scope()):
                assert not rows
                steps.append(time.perf_counter() - last)
                last = time.perf_counter()
            longest.append(max(steps))

        # Once more, for a session that has planned its statements.
        await page()
        pages = await _measured_costs(bench, 10 * READINGS, page)
        audits = await _measured_costs(bench, READINGS, look_at_everything)
    return pages, audits, median(longest)


async def _claim(bench: Bench) -> Cost:
    """Measure claims of 500 while every row waits."""
    async with open_pool(Database(bench.dsn, BACKEND, "listener bench"), size=1) as pool:
        outbox = PostgresOutbox(pool, BACKEND)

        async def claim() -> None:
            look = await outbox.look(Stream.LIBRARY, after=0, held=[], limit=BATCH)
            assert len(look.changes) == BATCH

        await claim()
        return await _measured_costs(bench, 100 * READINGS, claim)


def _daemon(bench: Bench) -> tuple[int, list[float], list[float]]:
    """Return the daemon's largest memory, and the seconds of `listener status` and of the page."""
    before = searches(bench.db)
    with running_daemon(bench.dsn, bench.lml.url) as daemon:
        # It begins with a look at everything.
        wait_until_searched(bench.db, before)
        with httpx.Client(base_url=daemon.url, trust_env=False, timeout=60) as client:
            site = [
                _timed(lambda: client.get("/status.json").raise_for_status())
                for _ in range(READINGS)
            ]
        status = [
            _timed(lambda: finished(begin("status", DATABASE_URL=bench.dsn)))
            for _ in range(READINGS)
        ]
        return daemon.largest_rss, status, site


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds of some work, endless if it gives up: a count may take too long."""
    began = time.perf_counter()
    try:
        work()
    except (subprocess.CalledProcessError, httpx.HTTPStatusError):
        return float("inf")
    return time.perf_counter() - began


def _as_figures(small: Sizes, large: Sizes) -> list[Figure]:
    times = large.rows / small.rows
    return [
        Figure(
            f"blocks that a due page of 500 reads: {large.rows:,} rows / {ROWS:,}",
            _LEVEL_MORE,
            f"{large.blocks / small.blocks:.2f}",
            large.blocks <= 1.26 * small.blocks,
            f"{small.blocks:,}, {large.blocks:,}",
        ),
        replace(
            _flat("that page", small.page, large.page, large.rows),
            target=_LEVEL_MORE,
            met=large.page.cpu <= 1.26 * small.page.cpu,
        ),
        _flat("a claim of 500 while every row waits", small.claim, large.claim, large.rows),
        _linear("a look at every row", small.audit, large.audit, times),
        Figure(
            "its longest statement",
            "<= 50 ms",
            f"{1000 * large.window:.0f} ms",
            large.window <= 0.05,
            f"{1000 * small.window:.0f} ms of {ROWS:,} rows",
        ),
        _memory("memory of a backfill of 64,676 of them", small.backfill, large.backfill),
        _memory("memory of the daemon after a look at every row", small.daemon, large.daemon),
        _counted("`listener status`", small.status, large.status, times),
        _counted("`/status.json`", small.site, large.site, times),
    ]


def _flat(name: str, small: Cost, large: Cost, rows: int) -> Figure:
    ratio = large.cpu / small.cpu
    return Figure(
        f"{name}, the server's CPU: {rows:,} rows / {ROWS:,}",
        "flat: <= 1.10",
        f"{ratio:.2f}",
        ratio <= 1.10,
        _both(small, large),
    )


def _linear(name: str, small: Cost, large: Cost, times: float) -> Figure:
    ratio = large.cpu / small.cpu / times
    return Figure(
        f"{name}, the server's CPU for each: {times:.0f} x as many / {ROWS:,}",
        "linear: <= 1.10",
        f"{ratio:.2f}",
        ratio <= 1.10,
        _both(small, large),
    )


def _counted(name: str, small: list[float], large: list[float], times: float) -> Figure:
    """Judge what counts every row: it takes a while of its own, and must not grow faster."""
    ratio = median(large) / median(small)
    return Figure(
        f"{name}: {times:.0f} x as many / {ROWS:,}",
        f"linear: <= {1.1 * times:.0f}, <= 10 s",
        f"{ratio:.1f}",
        ratio <= 1.1 * times and median(large) <= 10,
        f"{_timespan(small)}, {_timespan(large)}",
    )


def _memory(name: str, small: float, large: float) -> Figure:
    ratio = large / small
    return Figure(
        name,
        "flat: +- 10 %",
        f"{ratio - 1:+.0%}",
        abs(ratio - 1) <= 0.10,
        f"{small:.0f} MB, {large:.0f} MB",
    )


def _both(small: Cost, large: Cost) -> str:
    return ", ".join(
        f"{1000 * each.cpu:.1f} ms of CPU in {_timespan(each.times)}" for each in (small, large)
    )


def _timespan(times: list[float]) -> str:
    milliseconds = [1000 * each for each in times]
    return f"{median(milliseconds):.1f} ms ({spread(milliseconds, '{:.1f}')})"
