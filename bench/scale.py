"""How far one process goes with a fleet of LMLs, and several processes with one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import psycopg

from bench.database import SETTLED, Connection, forget, read_number, tidy, wait_until
from bench.fleet import PAGE, PAGE_SECONDS, RunningFleet, running_fleet
from bench.harness import Figure, catalogue, fresh_server, median, migrate
from bench.process import (
    BACKEND,
    MEGABYTE,
    begin,
    cpu_of,
    finished,
    running_daemon,
    server_of,
)
from bench.reconciling import Bench, prepared
from listener.demo.postgres import create_backend

FLEETS = (1, 2, 4, 8, 16, 32, 64)
# Pages that each process of LML works on; those at either end of a run are not counted.
PAGES_EACH, ENDS = 10, 2
MOST_CALLS = 128
SHARES, SHARED_ROWS = 4, 20_000


@dataclass(frozen=True, slots=True)
class Ran:
    """One backfill: rows a second in its middle, its largest memory, and cores in use by whom."""

    rate: float
    memory: float
    python: float
    postgres: float
    lml: float
    machine: float

    def saturated(self) -> str:
        """Name what was saturated, and what each part would reach with a core of its own."""
        cores = psutil.cpu_count() or 1
        others = max(0.0, self.machine - self.python - self.postgres - self.lml)
        if self.python >= 0.9:
            found = "Python is saturated"
        elif self.machine < 0.9 * cores:
            found = "nothing is saturated"
        elif others > self.machine / 2:
            found = f"other programs saturate the machine ({others:.1f} cores)"
        else:
            most = "PostgreSQL's writes" if self.postgres > self.python else "Python"
            found = f"CPU is saturated, mostly by {most}"
        return (
            f"{found}; cores: Python {self.python:.2f}, PostgreSQL {self.postgres:.2f}, LML"
            f" {self.lml:.2f}; with a core of its own Python {self.rate / self.python:,.0f}"
            f" rows/s, PostgreSQL {self.rate / self.postgres:,.0f}"
        )


def figures(rounds: int) -> list[Figure]:
    """Measure fleets of all sizes in turn, then shares."""
    rounds = min(rounds, 3)
    with _library(FLEETS[-1] * PAGE * PAGES_EACH) as (dsn, db):
        ran: dict[int, list[Ran]] = {processes: [] for processes in (*FLEETS, 0)}
        for number in range(rounds):
            for processes, results in ran.items():
                sys.stderr.write(
                    f"scale: {processes or 'no limit of'} LML, round {number + 1} of {rounds}\n"
                )
                results.append(_fleet_run(dsn, db, processes))
        drained = [_drained(dsn, db) for _ in range(rounds)]
    found = [*_fleet_figures(ran), _memory("the daemon", drained)]
    with prepared(SHARED_ROWS) as bench:
        return found + [_shares(bench, latency, rounds) for latency in (0.5, 0.0)]


def quick() -> list[Figure]:
    """Measure one small fleet, once."""
    processes = FLEETS[2]
    with _library(processes * PAGE * PAGES_EACH) as (dsn, db):
        return [_fleet_figure(processes, [_fleet_run(dsn, db, processes)], float("inf"))]


@contextmanager
def _library(rows: int) -> Iterator[tuple[str, Connection]]:
    """Yield a library of releases with one artist: every page has its 500 rows."""
    with fresh_server() as dsn, psycopg.connect(dsn, autocommit=True) as db:
        create_backend(dsn, BACKEND, with_triggers=False)
        catalogue(dsn, BACKEND, rows, compilations=False)
        migrate(dsn, BACKEND)
        yield dsn, db


def _fleet_run(dsn: str, db: Connection, processes: int) -> Ran:
    """Run a backfill against a fleet; without processes, against an LML that takes no time."""
    forget(db)
    tidy(db)
    rows = (processes or 32) * PAGE * PAGES_EACH
    fleet = running_fleet(processes or 1, PAGE_SECONDS if processes else 0.0)
    server = server_of(db)
    with fleet as lml:
        calls = min(MOST_CALLS, 2 * processes) if processes else MOST_CALLS
        return _watched(dsn, db, server, lml, rows=rows, calls=calls)


def _drained(dsn: str, db: Connection) -> float:
    """Have the largest fleet asked about waiting changes; return the daemon's largest memory."""
    forget(db)
    tidy(db)
    rows = FLEETS[-1] * PAGE * ENDS
    db.execute(
        "INSERT INTO listener.change (stream, row_id)"
        " SELECT 'library', n FROM generate_series(1, %s) AS n",
        (rows,),
    )
    with (
        running_fleet(FLEETS[-1]) as lml,
        running_daemon(dsn, lml.url, LML_MAX_CONCURRENT=str(MOST_CALLS)) as daemon,
    ):
        wait_until(db, SETTLED)
        return daemon.largest_rss / MEGABYTE


def _watched(
    dsn: str,
    db: Connection,
    server: psutil.Process,
    lml: RunningFleet,
    *,
    rows: int,
    calls: int,
) -> Ran:
    before = cpu_of(server), lml.cpu(), _busy()
    ended = finished(_begin(dsn, lml.url, calls, "--limit", str(rows)))
    after = cpu_of(server), lml.cpu(), _busy()
    took, rate = _took_and_rate(db, rows, calls // 2 * PAGE * ENDS)
    postgres, fleet, machine = (
        (end - begin) / took for begin, end in zip(before, after, strict=True)
    )
    return Ran(rate, ended.largest_rss / MEGABYTE, ended.cpu / took, postgres, fleet, machine)


def _begin(dsn: str, lml: str, calls: int, *arguments: str) -> subprocess.Popen[str]:
    return begin(
        "backfill",
        *arguments,
        DATABASE_URL=dsn,
        LIBRARY_METADATA_URL=lml,
        LML_MAX_CONCURRENT=str(calls),
    )


def _busy() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


def _took_and_rate(db: Connection, rows: int, ends: int) -> tuple[float, float]:
    """Return the seconds of the last run, and the rows a second without those at either end."""
    ends = min(ends, rows // 4)
    row = db.execute(
        "SELECT extract(epoch FROM r.ended_at - r.started_at)::float8,"
        " extract(epoch FROM l.answered_at - f.answered_at)::float8 FROM listener.run AS r"
        " CROSS JOIN (SELECT answered_at FROM listener.ledger ORDER BY 1 OFFSET %s LIMIT 1) AS f"
        " CROSS JOIN (SELECT answered_at FROM listener.ledger ORDER BY 1 OFFSET %s LIMIT 1) AS l"
        " ORDER BY r.run_id DESC LIMIT 1",
        # From the end of one page to the end of another.
        (ends - 1, rows - ends - 1),
    ).fetchone()
    assert row is not None
    return float(str(row[0])), (rows - 2 * ends) / float(str(row[1]))


def _fleet_figures(ran: dict[int, list[Ran]]) -> list[Figure]:
    limits = [each.rate for each in ran[0]]
    limit = median(limits)
    found = [
        Figure(
            "rows a second, LML 0 ms: the process's own limit",
            "-",
            f"{limit:,.0f}",
            met=True,
            detail=ran[0][-1].saturated(),
            readings=limits,
        )
    ]
    found += [_fleet_figure(processes, ran[processes], limit) for processes in FLEETS]
    found.append(_memory("a backfill", [each.memory for each in (*ran[64], *ran[0])]))
    return found


def _memory(of: str, readings: list[float]) -> Figure:
    return Figure(
        f"memory of {of}, {MOST_CALLS} calls",
        "<= 200 MB",
        f"{max(readings):.0f} MB",
        max(readings) <= 200,
        "the worst round",
        readings,
    )


def _fleet_figure(processes: int, ran: list[Ran], limit: float) -> Figure:
    ideal = processes * PAGE / PAGE_SECONDS
    rates = [each.rate for each in ran]
    held, share = ideal <= limit / 2, median(rates) / ideal
    return Figure(
        f"{processes} LML processes of 5 permits: rows a second, of ideal",
        ">= 0.90" if held else "beyond half of its limit",
        f"{median(rates):,.0f}, {share:.2f}",
        not held or share >= 0.90,
        ran[-1].saturated(),
        rates,
    )


def _shares(bench: Bench, latency: float, rounds: int) -> Figure:
    """Measure one process against four, each with one call in flight, in turn."""
    bench.lml.set(latency={"fixed": latency})
    ratios: list[float] = []
    alone: list[float] = []
    together: list[float] = []
    for _ in range(rounds):
        for shares, times in ((1, alone), (SHARES, together)):
            bench.forget()
            times.append(_shared(bench, shares))
        ratios.append(alone[-1] / together[-1])
    return Figure(
        f"{SHARES} processes with a share each against one, LML {latency * 1000:.0f} ms",
        ">= 3.4 x" if latency else "-",
        f"{median(ratios):.2f} x",
        not latency or median(ratios) >= 3.4,
        f"{median(alone):.1f} s, {median(together):.1f} s",
        ratios,
    )


def _shared(bench: Bench, shares: int) -> float:
    ran = [
        _begin(bench.dsn, bench.lml.url, 2, "--partition", f"{share}/{shares}")
        for share in range(shares)
    ]
    for process in ran:
        finished(process)
    return read_number(
        bench.db,
        "SELECT extract(epoch FROM max(ended_at) - min(started_at))::float8 FROM"
        " (SELECT * FROM listener.run ORDER BY run_id DESC LIMIT %s) AS r",
        (shares,),
    )
