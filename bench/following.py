"""How fast the daemon follows: draining, waiting, editing, memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from bench.baseline import drain_naively
from bench.database import (
    IDENTITY,
    LIBRARY,
    SETTLED,
    SOURCE,
    Connection,
    forget,
    identified,
    tidy,
    wait_until,
)
from bench.harness import (
    ROWS,
    Figure,
    catalogue,
    fresh_server,
    in_turn,
    median,
    migrate,
    p99,
    show,
    spread,
)
from bench.process import BACKEND, MEGABYTE, RunningDaemon, running_daemon
from listener.demo.postgres import create_backend
from listener.simulator import SimulatorProcess, simulator_process

BASELINE_ROWS = 5_000
BATCH, IN_FLIGHT = 500, 4
IDLE_EVENTS, WARM_UP = 300, 20


@dataclass(slots=True)
class Measured:
    """One list of readings a figure, one reading a round."""

    speedup: list[float] = field(default_factory=list)
    drain: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    slow: list[float] = field(default_factory=list)
    slow_calls: list[int] = field(default_factory=list)
    rss_million: list[float] = field(default_factory=list)
    idle_p50: list[float] = field(default_factory=list)
    idle_p99: list[float] = field(default_factory=list)
    questions: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """A filled catalogue, a simulator and a connection to look with."""

    dsn: str
    lml: SimulatorProcess
    db: Connection

    def wait_everything(self, changes: int | None = None) -> None:
        """Put every row into the outbox as if it had just changed, and forget all answers."""
        forget(self.db)
        self.db.execute(
            sql.SQL(
                "INSERT INTO listener.change (stream, row_id)"
                " SELECT 'library', 1 + n %% %s FROM generate_series(0, %s - 1) AS n"
            ),
            (ROWS, changes or ROWS),
        )
        self.db.execute("VACUUM ANALYZE listener.change")
        self.db.execute("CHECKPOINT")


@contextmanager
def prepared() -> Iterator[Bench]:
    """Yield a bench on a server and a simulator of their own."""
    with fresh_server() as dsn:
        create_backend(dsn, BACKEND, with_triggers=False)
        migrate(dsn, BACKEND)
        catalogue(dsn, BACKEND, ROWS)
        with (
            simulator_process(knowledge={"all_single": True}, permits=None) as lml,
            psycopg.connect(dsn, autocommit=True) as db,
        ):
            yield Bench(dsn, lml, db)


def figures(rounds: int = 5) -> list[Figure]:
    """Measure everything `rounds` times, in turn."""
    measured = Measured()
    with prepared() as bench:
        for _ in in_turn("following", rounds):
            _drain(bench, measured)
            _slow_drain(bench, measured)
            _idle(bench, measured)
            _edits(bench, measured)
        _million(bench, measured)
    return _as_figures(measured)


def quick() -> list[Figure]:
    """Measure one drain."""
    measured = Measured()
    with prepared() as bench:
        _drain(bench, measured)
    return [_drained_figure(measured)]


def _drain(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0})
    bench.wait_everything()
    naive = drain_naively(bench.dsn, bench.lml.url, BASELINE_ROWS)
    bench.wait_everything()
    seconds, daemon = _drained(bench)
    measured.drain.append(seconds)
    measured.speedup.append(ROWS / seconds / naive)
    measured.rss.append(daemon.largest_rss / MEGABYTE)


def _drained(bench: Bench) -> tuple[float, RunningDaemon]:
    in_flight = str(IN_FLIGHT)
    with running_daemon(bench.dsn, bench.lml.url, LML_MAX_CONCURRENT=in_flight) as daemon:
        # Counted from where the daemon holds the lane: starting Python is not draining.
        began = time.perf_counter()
        wait_until(bench.db, SETTLED)
        return time.perf_counter() - began, daemon


def _slow_drain(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0.5}, reset_calls=True)
    bench.wait_everything()
    seconds, _ = _drained(bench)
    # Compilations are asked in calls of their own.
    calls = bench.lml.counters()["calls"]["bulk"]
    measured.slow_calls.append(calls)
    measured.slow.append(seconds / (calls * 0.5 / IN_FLIGHT))


def _idle(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0})
    # What the drains before left to do in the background is not idleness.
    tidy(bench.db)
    pause = threading.Event()
    insert = sql.SQL(
        "INSERT INTO {} (artist_id, artist_name, album_title) VALUES (1, %s, 'Idle')"
    ).format(LIBRARY)
    with running_daemon(bench.dsn, bench.lml.url):
        for number in range(WARM_UP + IDLE_EVENTS):
            bench.db.execute(insert, (f"Idle {number}",))
            pause.wait(0.05)
        wait_until(bench.db, SETTLED)
    # The first events meet sessions that have yet to plan their statements.
    times = identified(bench.db, ROWS)[WARM_UP:]
    measured.idle_p50.append(median(times))
    measured.idle_p99.append(p99(times))
    for name in (SOURCE, IDENTITY):
        bench.db.execute(sql.SQL("DELETE FROM {} WHERE library_id > %s").format(name), (ROWS,))
    bench.db.execute(sql.SQL("DELETE FROM {} WHERE id > %s").format(LIBRARY), (ROWS,))


def _edits(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0.1})
    edit = sql.SQL(
        "UPDATE {} SET album_title = 'Edit ' || %s || ' of ' || id"
        " WHERE id %% 64 = 0 AND id <= 64000"
    ).format(LIBRARY)
    pause = threading.Event()
    with running_daemon(bench.dsn, bench.lml.url):
        wait_until(bench.db, SETTLED)
        bench.lml.set(reset_calls=True)
        began = time.perf_counter()
        for number in range(10):
            bench.db.execute(edit, (f"{number} {began}",))
            pause.wait(max(0.0, began + 0.2 * (number + 1) - time.perf_counter()))
        wait_until(bench.db, SETTLED)
    rows = bench.lml.counters()["rows"]["bulk"]
    measured.questions.append(rows / 1000)


def _million(bench: Bench, measured: Measured) -> None:
    bench.lml.set(latency={"fixed": 0})
    bench.wait_everything(1_000_000)
    with running_daemon(bench.dsn, bench.lml.url) as daemon:
        threading.Event().wait(15)
        measured.rss_million.append(daemon.largest_rss / MEGABYTE)
    bench.wait_everything(1)


def _drained_figure(measured: Measured) -> Figure:
    speedup = median(measured.speedup)
    return Figure(
        f"{ROWS} waiting changes, LML 0 ms, against the naive way",
        ">= 15 x",
        f"{speedup:.1f} x",
        speedup >= 15,
        f"drained in {median(measured.drain):.1f} s",
        measured.speedup,
    )


def _as_figures(measured: Measured) -> list[Figure]:
    rss = median(measured.rss)
    slow, questions = median(measured.slow), max(measured.questions)
    idle, late = median(measured.idle_p50), median(measured.idle_p99)
    million = median(measured.rss_million)
    return [
        _drained_figure(measured),
        Figure(
            "the same, LML 500 ms, 4 in flight: time / (calls x 0.5 s / 4)",
            "<= 1.10",
            f"{slow:.3f}",
            slow <= 1.10,
            f"{median(measured.slow_calls):.0f} calls; without compilations {-(-ROWS // BATCH)}",
            measured.slow,
        ),
        Figure(
            "idle: commit of an insert to identity row, p50 / p99",
            "<= 4.5 / 10 ms",
            f"{idle:.1f} / {late:.1f} ms",
            idle <= 4.5 and late <= 10,
            f"{IDLE_EVENTS} events a round, after {WARM_UP} to warm up;"
            f" p50 {spread(measured.idle_p50)}",
            measured.idle_p99,
        ),
        Figure(
            "1,000 rows edited 10 times in 2 s, LML 100 ms: questions a row",
            "<= 3",
            f"{questions:.2f}",
            questions <= 3,
            "the worst round",
            measured.questions,
        ),
        Figure(
            "memory of the daemon in the first row",
            "<= 120 MB",
            f"{rss:.0f} MB",
            rss <= 120,
            readings=measured.rss,
        ),
        Figure(
            "the same with 1,000,000 changes waiting",
            "+- 10 %",
            f"{million:.0f} MB ({million / rss - 1:+.0%})",
            abs(million / rss - 1) <= 0.10,
        ),
    ]


if __name__ == "__main__":
    show(figures(), "following")
