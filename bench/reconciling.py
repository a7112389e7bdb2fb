"""How fast the library is made right: backfill, refresh, and the searches for due rows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from bench.baseline import resolve_naively
from bench.database import (
    IDENTITY,
    LIBRARY,
    SETTLED,
    SOURCE,
    Connection,
    forget,
    read_number,
    tidy,
    wait_until,
)
from bench.harness import ROWS, Figure, catalogue, fresh_server, in_turn, median, migrate, p99
from bench.process import BACKEND, MEGABYTE, begin, finished, running_daemon
from listener.demo.postgres import create_backend
from listener.simulator import SimulatorProcess, simulator_process

BASELINE_ROWS = 5_000
REFRESHED = 31_000
BATCH, COMPILATIONS, IN_FLIGHT = 500, 100, 4
LIVE_EVENTS = 100

# One row in ten is a compilation; of the others so many have one artist that it is 48 % of all.
_MIX = {"single_artist_share": 0.559, "unresolved_share": 0.442, "entries": 3}

# One id of each ten, never the same of two tens in a row: every share of the ids has its part.
_MIXED = sql.SQL(
    "UPDATE {} SET artist_name = CASE WHEN (id + id / 10) % 10 = 0 THEN 'Various Artists'"
    " ELSE artist_name || CASE WHEN code_volume_letters LIKE 'Z%' THEN ' II'"
    " ELSE '' END END, code_volume_letters = CASE WHEN (id + id / 10) % 10 = 0 THEN 'ZA' END"
).format(LIBRARY)


@dataclass(slots=True)
class Measured:
    """One list of readings a figure, one reading a round."""

    backfill: list[float] = field(default_factory=list)
    backfill_speedup: list[float] = field(default_factory=list)
    slow: list[float] = field(default_factory=list)
    nothing_due: list[float] = field(default_factory=list)
    nothing_due_calls: list[float] = field(default_factory=list)
    refresh: list[float] = field(default_factory=list)
    refresh_speedup: list[float] = field(default_factory=list)
    refresh_wal: list[float] = field(default_factory=list)
    refresh_megabytes: list[float] = field(default_factory=list)
    live_p99: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended: its report, its largest memory, and the seconds that it took.

    `seconds` are those of its run, `whole` those from the start of Python to the exit.
    """

    report: dict[str, object]
    seconds: float
    whole: float
    largest_rss: int


@dataclass(frozen=True, slots=True)
class Bench:
    """A filled catalogue, a simulator and a connection to look with."""

    dsn: str
    lml: SimulatorProcess
    db: Connection

    def forget(self) -> None:
        """Forget all answers and changes."""
        self.db.execute("DROP TABLE IF EXISTS asked")
        forget(self.db)
        tidy(self.db)

    def wal(self) -> int:
        """Return how many bytes of WAL were ever written."""
        return int(read_number(self.db, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def command(self, *arguments: str) -> Ran:
        """Run a command of ours to its end."""
        began = time.perf_counter()
        process = begin(
            *arguments,
            DATABASE_URL=self.dsn,
            LIBRARY_METADATA_URL=self.lml.url,
            # One of them is kept for changes.
            LML_MAX_CONCURRENT=str(IN_FLIGHT + 1),
        )
        ended = finished(process)
        whole = time.perf_counter() - began
        seconds = read_number(
            self.db,
            "SELECT extract(epoch FROM ended_at - started_at)::float8 FROM listener.run"
            " ORDER BY run_id DESC LIMIT 1",
        )
        return Ran(json.loads(ended.output), seconds, whole, ended.largest_rss)


@contextmanager
def prepared(rows: int = ROWS, *, mixed: bool = True) -> Iterator[Bench]:
    """Yield a bench on a server and a simulator of their own.

    One row in ten is a compilation, or without `mixed`, which makes many rows sooner, in twenty.
    """
    with fresh_server() as dsn:
        create_backend(dsn, BACKEND, with_triggers=False)
        catalogue(dsn, BACKEND, rows)
        with psycopg.connect(dsn, autocommit=True) as db:
            if mixed:
                db.execute(_MIXED)
            migrate(dsn, BACKEND)
            # What tracks cost is measured on their own.
            tracks = {"not_visited_share": 1}
            with simulator_process(knowledge=_MIX, tracks=tracks, permits=None) as lml:
                yield Bench(dsn, lml, db)


def figures(rounds: int = 5) -> list[Figure]:
    """Measure everything `rounds` times, in turn."""
    measured = Measured()
    with prepared() as bench:
        for _ in in_turn("reconciling", rounds):
            _backfill(bench, measured)
            _nothing_due(bench, measured)
            _refresh(bench, measured)
            _slow_backfill(bench, measured)
            _live_beside_backfill(bench, measured)
    return _as_figures(measured)


def quick() -> list[Figure]:
    """Measure one backfill."""
    measured = Measured()
    with prepared() as bench:
        _backfill(bench, measured)
    return [_backfill_figure(measured)]


def _backfill(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0})
    bench.forget()
    naive = resolve_naively(bench.dsn, bench.lml.url, BASELINE_ROWS)
    bench.forget()
    ran = bench.command("backfill")
    assert ran.report["scanned"] == ROWS
    measured.backfill.append(ran.whole)
    measured.backfill_speedup.append(ROWS / ran.seconds / naive)
    measured.rss.append(ran.largest_rss / MEGABYTE)


def _nothing_due(bench: Bench, measured: Measured) -> None:
    tidy(bench.db)
    ran = bench.command("sweep")
    measured.nothing_due.append(ran.whole)
    measured.nothing_due_calls.append(float(str(ran.report["lml_total_calls"])))


def _refresh(bench: Bench, measured: Measured) -> None:
    _age(bench)
    before = bench.wal()
    naive = resolve_naively(bench.dsn, bench.lml.url, BASELINE_ROWS, refresh=True)
    naive_wal = (bench.wal() - before) / BASELINE_ROWS
    _age(bench)
    before = bench.wal()
    ran = bench.command("sweep")
    refreshed = int(str(ran.report["scanned"]))
    assert abs(refreshed - REFRESHED) < 1000, refreshed
    written = bench.wal() - before
    measured.refresh_megabytes.append(written / 1e6)
    measured.refresh_wal.append(written / refreshed / naive_wal)
    measured.refresh.append(ran.whole)
    measured.refresh_speedup.append(refreshed / ran.seconds / naive)


def _age(bench: Bench) -> None:
    """Make every identity eight days older, and nothing else due.

    Rows that were answered together stay due together.
    """
    bench.db.execute(
        sql.SQL("UPDATE {} SET last_verified_at = last_verified_at - interval '8 days'").format(
            IDENTITY
        )
    )
    bench.db.execute(
        "UPDATE listener.ledger SET answered_at = answered_at - interval '8 days',"
        " next_ask_at = next_ask_at - interval '8 days',"
        " identity_verified_at = identity_verified_at - interval '8 days'"
        " WHERE outcome = 'single_artist'"
    )
    tidy(bench.db)


def _slow_backfill(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0.5})
    bench.forget()
    ran = bench.command("backfill")
    calls = int(str(ran.report["lml_total_calls"]))
    measured.slow.append(ran.seconds / (calls * 0.5 / IN_FLIGHT))


def _live_beside_backfill(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0.2})
    bench.forget()
    insert = sql.SQL(
        "INSERT INTO {} (artist_id, artist_name, album_title) VALUES (1, %s, 'Live')"
    ).format(LIBRARY)
    pause = threading.Event()
    # One call kept for changes, one for the backfill that the daemon begins itself.
    with running_daemon(bench.dsn, bench.lml.url, LML_MAX_CONCURRENT="2"):
        for number in range(LIVE_EVENTS):
            bench.db.execute(insert, (f"Live {number}",))
            pause.wait(0.1)
        wait_until(bench.db, SETTLED)
        answered = read_number(bench.db, "SELECT count(*) FROM listener.ledger")
        assert answered < ROWS, "the backfill was over before the changes were"
    rows = bench.db.execute(
        sql.SQL(
            "SELECT extract(epoch FROM pg_xact_commit_timestamp(g.xmin)"
            " - pg_xact_commit_timestamp(l.xmin))::float8 * 1000 FROM {} AS l"
            " JOIN listener.ledger AS g ON g.library_id = l.id WHERE l.album_title = 'Live'"
        ).format(LIBRARY)
    ).fetchall()
    assert len(rows) == LIVE_EVENTS
    measured.live_p99.append(p99([float(str(row[0])) for row in rows]))
    for name, column in ((SOURCE, "library_id"), (IDENTITY, "library_id"), (LIBRARY, "id")):
        bench.db.execute(
            sql.SQL("DELETE FROM {} WHERE {} > %s").format(name, sql.Identifier(column)), (ROWS,)
        )


def _backfill_figure(measured: Measured) -> Figure:
    speedup = median(measured.backfill_speedup)
    return Figure(
        f"backfill of {ROWS} rows, LML 0 ms, against the naive way on the same rows",
        ">= 15 x",
        f"{speedup:.1f} x",
        speedup >= 15,
        f"{median(measured.backfill):.2f} s from start to exit",
        measured.backfill_speedup,
    )


def _as_figures(measured: Measured) -> list[Figure]:
    slow = median(measured.slow)
    idle, calls = median(measured.nothing_due), max(measured.nothing_due_calls)
    refresh, wal = median(measured.refresh_speedup), median(measured.refresh_wal)
    live, rss = median(measured.live_p99), max(measured.rss)
    return [
        _backfill_figure(measured),
        Figure(
            "the same, LML 500 ms, 4 in flight: time / (calls x 0.5 s / 4)",
            "<= 1.05",
            f"{slow:.3f}",
            slow <= 1.05,
            readings=measured.slow,
        ),
        Figure(
            "sweep when nothing is due: questions, seconds from start to exit",
            "0, <= 0.45 s",
            f"{calls:.0f}, {idle:.2f} s",
            calls == 0 and idle <= 0.45,
            readings=measured.nothing_due,
        ),
        Figure(
            "refresh of 31,000 rows 8 days old, verdicts unchanged, against the naive way",
            ">= 20 x",
            f"{refresh:.1f} x",
            refresh >= 20,
            f"{median(measured.refresh):.2f} s from start to exit",
            measured.refresh_speedup,
        ),
        Figure(
            "its WAL a library row / that of the naive way",
            "<= 1",
            f"{wal:.2f}",
            wal <= 1,
            f"{median(measured.refresh_megabytes):.1f} MB",
            measured.refresh_wal,
        ),
        Figure(
            "live change while a backfill runs, LML 200 ms: commit to answer, p99",
            "<= 700 ms",
            f"{live:.0f} ms",
            live <= 700,
            readings=measured.live_p99,
        ),
        Figure(f"memory of the backfill, {ROWS} rows", "<= 120 MB", f"{rss:.0f} MB", rss <= 120),
    ]
