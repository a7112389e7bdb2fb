"""How long a fresh change waits because of rows that fail, and what those cost LML."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg
from psycopg import sql

from bench.database import IDENTITY, LIBRARY, SETTLED, Connection, wait_until
from bench.harness import Figure, fresh_server, in_turn, median, migrate, show
from bench.process import BACKEND, running_daemon
from listener.demo.postgres import create_backend
from listener.simulator import Knowledge, Simulator, simulator_thread

ROWS = 8_000
PROBES = 60
LOCKED = 6_000
WRONG_SECONDS = 60
_FILL = sql.SQL(
    "INSERT INTO {artists} (artist_name) VALUES ('Somebody');"
    " INSERT INTO {library} (artist_id, artist_name, album_title)"
    " SELECT 1, 'Artist ' || n, 'Album ' || n FROM generate_series(1, {rows}) AS n"
)
_INSERT = sql.SQL(
    "INSERT INTO {} (artist_id, artist_name, album_title) VALUES (1, %s, 'Probe') RETURNING id"
)
_NONE_FAILING: LiteralString = "NOT EXISTS (SELECT FROM listener.ledger WHERE failures > 0)"
_RENAME = sql.SQL("UPDATE {} SET artist_name = %s WHERE id BETWEEN %s AND %s")


@dataclass(slots=True)
class Measured:
    """Seconds that probes waited and most questions about a row, by situation; then the rest.

    `coalesced` and `recovered` are seconds, one for each round.
    """

    waits: dict[str, list[float]] = field(default_factory=dict)
    questions: dict[str, int] = field(default_factory=dict)
    coalesced: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)
    refused_calls: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """A catalogue, a simulator, and a connection to write and look with."""

    dsn: str
    lml: Simulator
    db: Connection

    def probe(self, count: int = PROBES, pause: float = 0.05) -> list[float]:
        """Insert releases one at a time; return the seconds from commit to identity of each."""
        waits, ticks = [], threading.Event()
        for number in range(count):
            row = self.db.execute(_INSERT.format(LIBRARY), (f"Probe {number}",)).fetchone()
            assert row is not None
            began = time.monotonic()
            exists = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE library_id = %s)")
            while self.db.execute(exists.format(IDENTITY), (row[0],)).fetchone() != (True,):
                ticks.wait(0.001)
            waits.append(time.monotonic() - began)
            ticks.wait(pause)
        return waits

    def rename(self, name: str, first: int, last: int) -> None:
        """Give rows another artist name in one transaction."""
        self.db.execute(_RENAME.format(LIBRARY), (name, first, last))

    def questions(self, name: str) -> int:
        """Return how often the row of an artist that was asked about most was asked about."""
        asked = self.lml.calls.questions()
        counts = Counter(each.library_id for each in asked if name in each.artist_name)
        return max(counts.values(), default=0)


@contextmanager
def prepared(**settings: str) -> Iterator[Bench]:
    """Yield a bench whose catalogue is answered, followed by a daemon."""
    with fresh_server() as dsn:
        create_backend(dsn, BACKEND, with_triggers=False)
        migrate(dsn, BACKEND)
        # In a thread, so that every question can be looked at.
        lml = Simulator(knowledge=Knowledge(all_single=True), permits=None)
        with (
            simulator_thread(lml) as url,
            psycopg.connect(dsn, autocommit=True) as db,
        ):
            bench = Bench(dsn, lml, db)
            db.execute(
                _FILL.format(artists=sql.Identifier(BACKEND, "artists"), library=LIBRARY, rows=ROWS)
            )
            with running_daemon(dsn, url, **settings):
                wait_until(bench.db, SETTLED)
                yield bench


def figures(rounds: int = 3) -> list[Figure]:
    """Measure every situation `rounds` times."""
    measured = Measured()
    for _ in in_turn("failures", rounds):
        with prepared() as bench:
            _situations(bench, measured)
            _coalescing(bench, measured)
            _isolating(bench, measured)
            _entirely_wrong(bench, measured)
        with prepared(BATCH_SIZE="50", VA_BATCH_SIZE="50") as bench:
            _flips(bench, measured)
    return _as_figures(measured)


def quick() -> list[Figure]:
    """Measure inserts while nothing fails."""
    measured = Measured()
    with prepared() as bench:
        _note(measured, "nothing fails", bench.probe())
    return _waits(measured)


def _note(measured: Measured, situation: str, waits: Sequence[float], questions: int = 0) -> None:
    measured.waits.setdefault(situation, []).extend(waits)
    most = measured.questions.get(situation, 0)
    measured.questions[situation] = max(most, questions)


def _situations(bench: Bench, measured: Measured) -> None:
    _note(measured, "nothing fails", bench.probe())
    for situation, fault, first in (
        ("40 useless verdicts of one artist", "repeated_source", 1),
        ("50 unknown kinds", "unknown_kind", 101),
    ):
        bench.lml.faults.add(fault, artist=situation, rows=None)
        bench.rename(situation, first, first + (39 if first == 1 else 49))
        waits = bench.probe(2 * PROBES, 0.2)
        _note(measured, situation, waits, bench.questions(situation))
        bench.lml.faults.clear()
        wait_until(bench.db, _NONE_FAILING)
    situation = f"{LOCKED} rows locked for 60 s"
    bench.db.execute("DELETE FROM listener.ledger WHERE library_id > 2000")
    for table in ("library_identity_source", "library_identity"):
        bench.db.execute(
            sql.SQL("DELETE FROM {} WHERE library_id > 2000").format(sql.Identifier(BACKEND, table))
        )
    with psycopg.connect(bench.dsn) as other:
        lock = sql.SQL("SELECT FROM {} WHERE id BETWEEN 2001 AND %s FOR UPDATE")
        other.execute(lock.format(LIBRARY), (2000 + LOCKED,))
        bench.db.execute(
            "INSERT INTO listener.change (stream, row_id)"
            " SELECT 'library', n FROM generate_series(2001, %s) AS n",
            (2000 + LOCKED,),
        )
        until = time.monotonic() + 60
        waits = []
        while time.monotonic() < until:
            waits += bench.probe(5, 0.2)
    _note(measured, situation, waits)
    wait_until(bench.db, _NONE_FAILING)


def _flips(bench: Bench, measured: Measured) -> None:
    bench.lml.faults.add("status", status=422, body="detail", artist="Flip")
    done = threading.Event()

    def flip() -> None:
        with psycopg.connect(bench.dsn, autocommit=True) as connection:
            for number in range(600):
                connection.execute(_RENAME.format(LIBRARY), (f"Flip {number % 2}", 7, 7))
                done.wait(0.02)

    flipping = threading.Thread(target=flip)
    flipping.start()
    waits = bench.probe()
    flipping.join()
    _note(measured, "600 flips of a refused row", waits)
    bench.lml.faults.clear()


def _coalescing(bench: Bench, measured: Measured) -> None:
    bench.db.execute(
        "INSERT INTO listener.change (stream, row_id)"
        " SELECT 'library', 1 + n % 2000 FROM generate_series(0, 63999) AS n"
    )
    bench.db.execute("DELETE FROM listener.ledger WHERE library_id <= 2000")
    bench.db.execute("NOTIFY listener_library")
    measured.coalesced.append(wait_until(bench.db, SETTLED))


def _isolating(bench: Bench, measured: Measured) -> None:
    bad = "(SELECT count(*) FROM listener.ledger WHERE failures > 0) = 3"
    bench.lml.faults.add("status", status=422, body="detail", artist="Poison")
    before = bench.lml.calls.counts["bulk"]
    with bench.db.transaction():
        bench.rename("Fresh", 3001, 3500)
        for row in (3007, 3250, 3499):
            bench.rename("Poison", row, row)
    wait_until(bench.db, SETTLED)
    wait_until(bench.db, bad)
    measured.refused_calls.append(bench.lml.calls.counts["bulk"] - before)
    bench.lml.faults.clear()
    wait_until(bench.db, _NONE_FAILING)


def _entirely_wrong(bench: Bench, measured: Measured) -> None:
    bench.lml.faults.add("nan", rows=None)
    ticks, until, row = threading.Event(), time.monotonic() + WRONG_SECONDS, 4000
    while time.monotonic() < until:
        bench.rename(f"Edited {row}", row, row)
        row += row < 4005
        ticks.wait(min(10, max(0, until - time.monotonic())))
    bench.lml.faults.clear()
    measured.recovered.append(wait_until(bench.db, _NONE_FAILING))


def _waits(measured: Measured) -> list[Figure]:
    found = []
    for situation, waits in measured.waits.items():
        ordered = sorted(waits)
        p99, longest = ordered[int(0.99 * (len(ordered) - 1))], ordered[-1]
        asked = measured.questions[situation]
        found.append(
            Figure(
                f"insert beside: {situation}",
                "p99 1 s, max 3 s",
                f"{p99 * 1000:.0f} ms, {longest * 1000:.0f} ms",
                p99 <= 1 and longest <= 3,
                f"{len(waits)} inserts" + (f", a bad row asked {asked} x" if asked else ""),
            )
        )
    return found


def _as_figures(measured: Measured) -> list[Figure]:
    coalesced, recovered = median(measured.coalesced), median(measured.recovered)
    calls = max(measured.refused_calls)
    return [
        *_waits(measured),
        Figure(
            "64,000 changes of 2,000 rows",
            "3 s",
            f"{coalesced:.1f} s",
            coalesced <= 3,
            readings=measured.coalesced,
        ),
        Figure(
            "500 rows, 3 refused by LML: calls",
            "60",
            f"{calls}",
            calls <= 60,
            readings=measured.refused_calls,
        ),
        Figure(
            f"LML entirely wrong for {WRONG_SECONDS} s: answered after",
            f"{WRONG_SECONDS} s",
            f"{recovered:.0f} s",
            recovered <= WRONG_SECONDS,
            readings=measured.recovered,
        ),
    ]


if __name__ == "__main__":
    show(figures(int(sys.argv[1]) if len(sys.argv) > 1 else 3), "failures")
