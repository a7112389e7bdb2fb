"""Breaks everything for a while, beside writers of the backend, and then looks at every row.

Run as `python -m tests.soak`: two daemons follow a catalogue that three writers edit without a
pause, while sessions are cut, daemons are killed or frozen, the server crashes and LML talks
nonsense. In the end every row must have been asked as it is now, and hold what LML says of it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import psycopg
from psycopg import sql

from listener.demo.postgres import create_backend, embedded_postgres
from listener.simulator import SimulatorProcess, simulator_process
from tests.conftest import BACKEND
from tests.database import migrate

ROWS = 4_000
WRITERS = 3
DAEMONS = 2
# What two replicas may take to notice each other's end, and a breaker to close.
PATIENCE = 60
# A row that failed waits as long again as it has failed, five minutes at most.
RETRY_PATIENCE = 330
_STOP = 20

# What LML must not say: each of these spoils a reply or a call visibly.
_FAULTS = (
    *("reset", "reset_midway", "cut", "truncated_json", "not_json", "invalid_utf8", "empty_body"),
    *("html", "redirect", "gzip_bomb", "list_document", "no_results", "null_results", "short"),
    *("foreign", "repeated", "conflicting", "permuted", "not_an_object", "null_id", "text_id"),
    *("nan", "confidence_high", "nul", "long_text", "unknown_kind", "no_main", "no_method"),
)

_LIBRARY = sql.Identifier(BACKEND, "library")
_SET = {
    name: sql.SQL("UPDATE {} SET {} = %s WHERE id BETWEEN %s AND %s").format(
        _LIBRARY, sql.Identifier(name)
    )
    for name in ("artist_name", "album_title", "code_volume_letters", "plays")
}
_INSERT = sql.SQL(
    "INSERT INTO {} (artist_id, artist_name, album_title) VALUES (1, %s, 'New')"
).format(_LIBRARY)
_DELETE = tuple(
    sql.SQL("DELETE FROM {} WHERE {} = %s").format(
        sql.Identifier(BACKEND, table), sql.Identifier(column)
    )
    for table, column in (
        ("library_identity_source", "library_id"),
        ("library_identity", "library_id"),
        ("library", "id"),
    )
)
_CATALOGUE = sql.SQL(
    "INSERT INTO {artists} (artist_name) VALUES ('Somebody');"
    " INSERT INTO {library} (artist_id, artist_name, album_title)"
    " SELECT 1, 'Artist ' || n % 400, 'Album ' || n FROM generate_series(1, {rows}) AS n"
)
_NOW = sql.SQL(
    "SELECT l.id, l.artist_name, l.album_title, l.legacy_release_id, g.outcome,"
    " g.question = listener.question_digest(l.artist_name, l.album_title, l.legacy_release_id,"
    " coalesce(l.code_volume_letters LIKE 'Z%', false)) AND g.failures = 0,"
    " i.library_id IS NOT NULL,"
    " ARRAY(SELECT s.source || '=' || s.external_id FROM {source} AS s"
    " WHERE s.library_id = l.id ORDER BY 1)"
    " FROM {library} AS l LEFT JOIN listener.ledger AS g ON g.library_id = l.id"
    " LEFT JOIN {identity} AS i ON i.library_id = l.id"
    " WHERE l.artist_name IS NOT NULL ORDER BY l.id"
).format(
    library=_LIBRARY,
    identity=sql.Identifier(BACKEND, "library_identity"),
    source=sql.Identifier(BACKEND, "library_identity_source"),
)

_MISSED = "SELECT sum((tally ->> 'capture_missed')::int) FROM listener.run"

Connection = psycopg.Connection[tuple[Any, ...]]


class Writers:
    """Edit the library in threads, as the backend does, whatever happens to their connections."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.committed = 0
        self._dsn = dsn
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(random.Random(seed + number),))
            for number in range(WRITERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them once their transactions have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn) as connection:
                    while not self._stop.wait(chance.random() / 30):
                        self._edit(connection, chance)
                        connection.commit()
                        self.committed += 1
            # The server crashed, or two writers met.
            except psycopg.Error:
                self._stop.wait(0.2)

    def _edit(self, connection: Connection, chance: random.Random) -> None:
        row = chance.randint(1, ROWS)
        match chance.randrange(8):
            case 0:
                connection.execute(_INSERT, (f"New {row}",))
            case 1:
                for statement in _DELETE:
                    connection.execute(statement, (row,))
            case 2:
                many = row + chance.randint(10, 900)
                connection.execute(_SET["artist_name"], (f"All {row % 9}", row, many))
            case 3:
                connection.execute(_SET["artist_name"], (None, row, row))
                connection.commit()
                connection.execute(_SET["artist_name"], (f"Again {row % 3}", row, row))
            case 4:
                connection.execute(_SET["album_title"], ("Rolled back", row, row))
                connection.rollback()
            case 5:
                connection.execute(_SET["album_title"], (f"Slow {row % 5}", row, row))
                self._stop.wait(chance.random() * 3)
            case 6:
                connection.execute(_SET["plays"], (row, row, row + 50))
                letters = chance.choice((None, "ZA", "ST"))
                connection.execute(_SET["code_volume_letters"], (letters, row, row))
            case _:
                for title in ("A", "B", "A"):
                    connection.execute(_SET["album_title"], (title, row, row))
                    connection.commit()


class Daemons:
    """Replicas of `listener run`, started again whenever they end."""

    def __init__(self, dsn: str, lml: str, folder: Path) -> None:
        self._environment = {
            **os.environ,  # noqa: TID251 - handed on to children
            "DATABASE_URL": dsn,
            "LIBRARY_METADATA_URL": lml,
            "HTTP_BIND": "",
        }
        self._logs = [folder / f"daemon-{number}.log" for number in range(DAEMONS)]
        self._processes = [self._start(log) for log in self._logs]

    def kill(self, number: int) -> None:
        """End one without warning, and start it anew; it must not have ended by itself before."""
        process = self._processes[number]
        process.kill()
        code = process.wait()
        self._processes[number] = self._start(self._logs[number])
        assert code == -signal.SIGKILL, f"daemon {number} had ended by itself with {code}"

    def stop(self, number: int) -> None:
        """End one as a service manager does, and start it anew; it must end by itself, with 0."""
        self._processes[number].terminate()
        self._see_off(self._processes[number])
        self._processes[number] = self._start(self._logs[number])

    def freeze(self, number: int, seconds: float) -> None:
        """Let one stand still."""
        self._processes[number].send_signal(signal.SIGSTOP)
        time.sleep(seconds)  # noqa: TID251 - the chaos has a pace of its own
        self._processes[number].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End all."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            self._see_off(process)

    def _start(self, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "listener", "run"], env=self._environment, stderr=said
            )

    def _see_off(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait(_STOP)
        # Before it has begun to listen to signals it just ends.
        assert code in {0, -signal.SIGTERM}, f"a daemon ended with {code}"


class Chaos:
    """One misfortune after another, in an order that the seed decides."""

    def __init__(
        self, dsn: str, lml: SimulatorProcess, daemons: Daemons, chance: random.Random
    ) -> None:
        self._dsn = dsn
        self._lml = lml
        self._daemons = daemons
        self._chance = chance
        self._acts: Sequence[Callable[[], None]] = (
            *(self._kill, self._stop, self._freeze, self._cut, self._crash, self._slow),
            *(self._silence, self._deadly, self._nonsense, self._nonsense, self._nonsense),
        )

    def go_on(self, seconds: float) -> Iterator[str]:
        """Let something go wrong every now and then; yields what it was."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, self._chance.uniform(0.3, 4)))  # noqa: TID251 - see above
            act = self._chance.choice(self._acts)
            yield act.__name__.removeprefix("_")
            # The server may just be coming back from a crash.
            try:
                act()
            except psycopg.OperationalError:
                yield "not possible now"
        self._lml.set(clear_faults=True, latency={"fixed": 0})

    def _kill(self) -> None:
        self._daemons.kill(self._chance.randrange(DAEMONS))

    def _stop(self) -> None:
        self._daemons.stop(self._chance.randrange(DAEMONS))

    def _freeze(self) -> None:
        self._daemons.freeze(self._chance.randrange(DAEMONS), self._chance.uniform(0.5, 12))

    def _cut(self) -> None:
        with psycopg.connect(self._dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'listener %%' AND random() < %s",
                (self._chance.random(),),
            )

    def _crash(self) -> None:
        # One process of the server that dies takes all sessions with it.
        with psycopg.connect(self._dsn) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)

    def _slow(self) -> None:
        self._lml.set(latency={"fixed": self._chance.choice((0, 0.05, 0.5, 1.5))})

    def _silence(self) -> None:
        self._lml.set(faults=[{"name": "status", "status": 503}])
        time.sleep(self._chance.uniform(0.5, 6))  # noqa: TID251 - see above
        self._lml.set(clear_faults=True)

    def _deadly(self) -> None:
        # Fewer calls than it takes until a row is parked.
        fault = {"name": self._chance.choice(("reset", "cut", "status")), "status": 502}
        artist = f"Artist {self._chance.randrange(40)}"
        self._lml.set(faults=[{**fault, "artist": artist, "calls": 10}])

    def _nonsense(self) -> None:
        name, calls = self._chance.choice(_FAULTS), self._chance.randint(1, 6)
        probability = self._chance.choice((0.3, 1))
        self._lml.set(faults=[{"name": name, "calls": calls, "probability": probability}])


def until_none(connection: Connection, rows: str, patience: float) -> float:
    """Wait until there are no such rows; return how many seconds that took."""
    ticks, began = threading.Event(), time.monotonic()
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.SQL(rows))
    while connection.execute(query).fetchone() == (True,):
        assert time.monotonic() < began + patience, f"there still are rows of {rows}"
        ticks.wait(0.1)
    return time.monotonic() - began


def wrong_rows(connection: Connection, lml: SimulatorProcess) -> list[str]:
    """Return what does not hold: rows not asked as they are, or that LML says something else of."""
    rows = connection.execute(_NOW).fetchall()
    wrong = [f"{row[0]} was not answered as it is" for row in rows if row[5] is not True]
    # Each daemon that starts looks at every row, and would make up for a change that was lost.
    wrong += [
        f"{missed} changes were lost until a look at every row"
        for (missed,) in connection.execute(_MISSED).fetchall()
        if missed
    ]
    for begin in range(0, len(rows), 500):
        page = rows[begin : begin + 500]
        names = ("library_id", "artist_name", "album_title", "legacy_release_id")
        reply = httpx.post(
            f"{lml.url}/api/v1/identity/bulk-resolve-libraries",
            json={"inputs": [dict(zip(names, row[:4], strict=True)) for row in page]},
            trust_env=False,
        )
        results = reply.raise_for_status().json()["results"]
        wrong += [
            f"{row[0]} has {found}, and LML says {said}"
            for row, result in zip(page, results, strict=True)
            if (found := _found(row)) != (said := _said(result))
        ]
    return wrong


def _found(row: tuple[Any, ...]) -> tuple[bool, list[str]]:
    return row[6], row[7]


def _said(result: dict[str, Any]) -> tuple[bool, list[str]]:
    if result["kind"] != "single_artist":
        return False, []
    evidence = [
        f"{entry['source']}={entry['external_id']}"
        for entry in result["provenance"]
        if entry["confidence"] is not None and entry["external_id"] is not None
    ]
    return True, sorted(evidence)


@contextmanager
def stage(folder: Path) -> Iterator[tuple[str, SimulatorProcess]]:
    """Run a server with a catalogue, and a simulator of LML; yields its DSN and the simulator."""
    with embedded_postgres(folder / "pg") as dsn:
        create_backend(dsn, BACKEND, with_triggers=False)
        migrate(dsn, BACKEND)
        with psycopg.connect(dsn) as connection:
            connection.execute(
                _CATALOGUE.format(
                    artists=sql.Identifier(BACKEND, "artists"), library=_LIBRARY, rows=ROWS
                )
            )
        with simulator_process(permits=None) as lml:
            yield dsn, lml


def soak(seconds: float, seed: int, report: Callable[[str], None]) -> tuple[int, list[str]]:
    """Break everything for some time; return the edits that were made, and what is wrong then."""
    with tempfile.TemporaryDirectory(prefix="listener-soak-") as name, ExitStack() as stack:
        dsn, lml = stack.enter_context(stage(Path(name)))
        daemons = Daemons(dsn, lml.url, Path(name))
        stack.callback(daemons.close)
        writers = Writers(dsn, seed)
        try:
            for act in Chaos(dsn, lml, daemons, random.Random(seed)).go_on(seconds):
                report(act)
        finally:
            writers.stop()
        with psycopg.connect(dsn, autocommit=True) as connection:
            settled = until_none(connection, "listener.change WHERE stream = 'library'", PATIENCE)
            report(f"outbox empty {settled:.1f} s after the last fault")
            # Nothing may have been parked within minutes.
            answered = until_none(
                connection,
                "listener.ledger AS g INNER JOIN wxyc_schema.library AS l ON l.id = g.library_id"
                " WHERE g.failures > 0 AND l.artist_name IS NOT NULL",
                RETRY_PATIENCE,
            )
            report(f"all that failed answered {answered:.1f} s later")
            return writers.committed, wrong_rows(connection, lml)


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(1), default=180, show_default=True)
@click.option("--seed", type=int, help="The same misfortunes as another time.")
def main(seconds: float, seed: int | None) -> None:
    seed = random.randrange(10_000) if seed is None else seed
    click.echo(f"soak of {seconds:.0f} s, seed {seed}")
    committed, wrong = soak(seconds, seed, click.echo)
    click.echo(f"{committed:,} edits committed, {len(wrong)} rows wrong")
    for line in wrong[:20]:
        click.echo(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
