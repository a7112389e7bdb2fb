"""What the rotation costs Discogs, and whom it keeps waiting.

The simulated LML has the real budget: a bucket of 50 Discogs calls that refills by 50 a minute, two
refreshes at a time in it, five permits, one for each row and identity at work, and people who
browse 20 times a minute. Its clock and the
budget's window run faster than real time together; only the real time of our own work does not
shrink, so what is measured is a little worse than the truth.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import httpx
import psycopg
from psycopg import sql

from bench.database import (
    IDENTITY,
    LIBRARY,
    SETTLED,
    Connection,
    identified,
    read_number,
    wait_until,
)
from bench.harness import Figure, fresh_server, in_turn, median, migrate, p99, show
from bench.process import BACKEND, running_daemon
from listener.adapters.lml.client import LmlLimits, open_lml
from listener.adapters.postgres.connection import Database, open_pool
from listener.adapters.postgres.rotation import PostgresRefreshes, PostgresRotation
from listener.adapters.postgres.runs import PostgresRuns
from listener.demo.postgres import create_backend
from listener.domain.budget import DISCOGS_CALLS, RefreshLimits
from listener.domain.change import Stream
from listener.domain.due import AskAgain
from listener.domain.refreshing import RotationTally
from listener.engine.circuit import Circuit
from listener.engine.refresher import Refresher
from listener.engine.walker import Walker
from listener.simulator import (
    DiscogsLimits,
    IdentityMix,
    Knowledge,
    Latency,
    Simulator,
    SimulatorProcess,
    simulator_process,
    simulator_thread,
)

IDENTITIES, BROWSING = 310, 20
# How much faster than real time a cold walk is measured, and one beside the library.
FACTOR, BESIDE_FACTOR, UNKNOWN_FACTOR = 30, 10, 5
INSERTS, WARM_UP = 60, 10
RELEASES, EVERY = 300, timedelta(milliseconds=60)
RATES = (7, 15, 30, 60)
WEEK = timedelta(days=7)
PERMITS = 5
# What no release is called.
_NOBODY = 2_000_000_000
_ONE = {"inputs": [{"library_id": _NOBODY, "artist_name": "Somebody", "album_title": "Else"}]}

_ROTATION = sql.Identifier(BACKEND, "rotation")

LIMITS = RefreshLimits(calls=30, in_flight=2, call_timeout=timedelta(minutes=6))


@dataclass(slots=True)
class Measured:
    """One list of readings a figure, one reading a round; times are simulated where LML's are."""

    busiest: list[float] = field(default_factory=list)
    browsing_wait: list[float] = field(default_factory=list)
    cold_minutes: list[float] = field(default_factory=list)
    cold_calls: list[float] = field(default_factory=list)
    warm_seconds: list[float] = field(default_factory=list)
    warm_calls: list[float] = field(default_factory=list)
    warm_by_rate: dict[int, list[float]] = field(default_factory=dict)
    unknown_calls: list[float] = field(default_factory=list)
    unknown_minutes: list[float] = field(default_factory=list)
    insert_p50: list[float] = field(default_factory=list)
    alone_p99: list[float] = field(default_factory=list)
    beside_p99: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)
    behind_directly: list[float] = field(default_factory=list)
    behind_asked: list[int] = field(default_factory=list)


def figures(rounds: int = 3) -> list[Figure]:
    """Measure everything `rounds` times, in turn."""
    measured = Measured()
    for _ in in_turn("rotation", rounds):
        with _prepared() as (dsn, db):
            _play(db, IDENTITIES)
            _cold_and_warm(dsn, db, measured)
            _inserts(dsn, db, measured)
            _beside(dsn, db, measured)
            _behind(dsn, db, measured)
    return _as_figures(measured)


def quick() -> list[Figure]:
    """Measure inserts once."""
    measured = Measured()
    with _prepared() as (dsn, db):
        _inserts(dsn, db, measured)
    return [_insert_figure(measured)]


@contextmanager
def _prepared() -> Iterator[tuple[str, Connection]]:
    with fresh_server() as dsn:
        create_backend(dsn, BACKEND, with_triggers=True)
        migrate(dsn, BACKEND)
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute(
                sql.SQL("INSERT INTO {} (artist_name) VALUES ('Somebody')").format(
                    sql.Identifier(BACKEND, "artists")
                )
            )
            yield dsn, db


def _play(db: Connection, identities: int) -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (rotation_bin, lml_identity_id, discogs_release_id)"
            " SELECT 'H', n, n FROM generate_series(1, %s) AS n"
        ).format(_ROTATION),
        (identities,),
    )
    db.execute("TRUNCATE listener.change")


def _forget(db: Connection, *tables: str) -> None:
    for table in tables:
        db.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier("listener", table)))


def _an_hour_later(db: Connection) -> None:
    """Let no call count any more; what they taught stays."""
    db.execute(
        "UPDATE listener.refresh SET started_at = started_at - interval '1 h',"
        " ended_at = ended_at - interval '1 h'"
    )


@asynccontextmanager
async def _walker(dsn: str, lml_url: str, limits: RefreshLimits) -> AsyncIterator[Walker]:
    database = Database(dsn, BACKEND, "listener-bench")
    lml_limits = LmlLimits(2, 1, timedelta(seconds=30), limits.call_timeout, 2**26)
    async with (
        open_pool(database, size=3) as pool,
        open_lml(lml_url, None, lml_limits) as lml,
    ):
        yield Walker(
            played=PostgresRotation(pool, BACKEND, AskAgain(WEEK, WEEK)),
            refresher=Refresher(lml, PostgresRefreshes(pool, database, limits)),
            runs=PostgresRuns(database),
            min_coverage=0,
            circuit=Circuit(Stream.ROTATION),
        )


def faster(limits: RefreshLimits, factor: float) -> RefreshLimits:
    """Return the same limits for a clock that runs so much faster."""
    return replace(
        limits,
        window=limits.window / factor,
        warm_call=limits.warm_call / factor,
        warm_identity=limits.warm_identity / factor,
        fastest_call=limits.fastest_call / factor,
    )


def _walk(dsn: str, db: Connection, url: str, limits: RefreshLimits) -> tuple[RotationTally, float]:
    """Walk over everything; return the tally and the real seconds."""

    async def walking() -> tuple[RotationTally, float]:
        async with _walker(dsn, url, limits) as walker:
            began = monotonic()
            tally = await walker.run(_now(db), cause="bench")
            return tally, monotonic() - began

    return asyncio.run(walking())


def _now(db: Connection) -> datetime:
    found = db.execute("SELECT clock_timestamp()").fetchone()
    assert found is not None
    assert isinstance(found[0], datetime)
    return found[0]


def _cold_and_warm(dsn: str, db: Connection, measured: Measured) -> None:
    _forget(db, "refresh", "warmth")
    cold = {"warm_share": 0.0, "tombstone_share": 0.05}
    with simulator_process(
        latency={"fixed": 0.1},
        identities=cold,
        discogs={"browsing_a_minute": BROWSING},
        clock_factor=FACTOR,
    ) as lml:
        tally, seconds = _walk(dsn, db, lml.url, faster(LIMITS, FACTOR))
        discogs = lml.counters()["discogs"]
        measured.busiest.append(discogs["busiest_minute"])
        measured.browsing_wait.append(discogs["longest_browsing_wait"])
        measured.cold_minutes.append(seconds * FACTOR / 60)
        measured.cold_calls.append(tally.calls)
        # What was fetched is warm now; LML takes 100 ms of real time.
        lml.set(clock_factor=1)
        _warm(dsn, db, lml, measured)


def _warm(dsn: str, db: Connection, lml: SimulatorProcess, measured: Measured) -> None:
    for rate in RATES:
        _an_hour_later(db)
        # The rate alone: what was learned of the cold walk is of identities not known by then.
        tally, seconds = _walk(dsn, db, lml.url, replace(LIMITS, calls=rate))
        measured.warm_by_rate.setdefault(rate, []).append(seconds)
        if rate == LIMITS.calls:
            measured.warm_seconds.append(seconds)
            measured.warm_calls.append(tally.calls)
    _forget(db, "refresh", "warmth")
    # Not faster: our own time would be taken for that of Discogs.
    lml.set(clock_factor=UNKNOWN_FACTOR)
    tally, seconds = _walk(dsn, db, lml.url, faster(LIMITS, UNKNOWN_FACTOR))
    measured.unknown_calls.append(tally.calls)
    measured.unknown_minutes.append(seconds * UNKNOWN_FACTOR / 60)


def _inserts(dsn: str, db: Connection, measured: Measured) -> None:
    """Measure from the commit of an insert until the request has come; all are warm."""
    _forget(db, "refresh", "warmth", "change")
    simulator = Simulator(identities=IdentityMix(warm_share=1, tombstone_share=0))
    insert = sql.SQL("INSERT INTO {} (rotation_bin, lml_identity_id) VALUES ('H', %s)").format(
        _ROTATION
    )
    pause, committed = threading.Event(), dict[int, float]()
    with (
        simulator_thread(simulator) as url,
        # More than one a minute, so that the rate is not what is measured.
        running_daemon(dsn, url, BACKFILL_LML_RPS="600") as _,
    ):
        wait_until(db, "(SELECT done FROM listener.slot WHERE job = 'rotation')")
        for identity in range(10_000, 10_000 + WARM_UP + INSERTS):
            db.execute(insert, (identity,))
            committed[identity] = monotonic()
            pause.wait(0.2)
        calls = simulator.calls.recent("refresh")
    sent = {identity: call.started_at for call in calls for identity in call.ids}
    times = [(sent[i] - at) * 1000 for i, at in committed.items() if i in sent][WARM_UP:]
    measured.insert_p50.append(median(times))


def _beside(dsn: str, db: Connection, measured: Measured) -> None:
    """Measure changes of the library alone, and while a cold walk goes on."""
    simulator = Simulator(
        knowledge=Knowledge(all_single=True),
        latency=Latency(fixed=timedelta(seconds=0.5)),
        identities=IdentityMix(warm_share=0, tombstone_share=0),
        # People leave less than usual, so cold identities wait long, and hold permits meanwhile.
        discogs=DiscogsLimits(browsing_a_minute=2 * BROWSING, burst=5),
        clock_factor=BESIDE_FACTOR,
        kept_rows=0,
    )
    with simulator_thread(simulator) as url, running_daemon(dsn, url, ROTATION_WARM_AT=""):
        measured.alone_p99.append(_library_p99(db))
        _forget(db, "refresh", "warmth")
        with _walking(dsn, db, url):
            measured.beside_p99.append(_library_p99(db))


def _behind(dsn: str, db: Connection, measured: Measured) -> None:
    """Measure changes of the library behind a cold page that somebody else asked for."""
    simulator = Simulator(
        knowledge=Knowledge(all_single=True),
        identities=IdentityMix(warm_share=0, tombstone_share=0),
        # Hardly anything is left in the bucket.
        discogs=DiscogsLimits(browsing_a_minute=BROWSING, burst=5),
        clock_factor=BESIDE_FACTOR,
    )
    pause = threading.Event()
    with (
        simulator_thread(simulator) as url,
        running_daemon(dsn, url, ROTATION_WARM_AT=""),
        ThreadPoolExecutor() as elsewhere,
    ):
        simulator.calls.reset()
        identities = {"identity_ids": list(range(20_001, 20_051))}
        page = elsewhere.submit(_post, f"{url}/api/v1/cache/refresh-for-identities", identities)
        while simulator.permits_held < PERMITS:
            pause.wait(0.01)
        # Towards its end the page holds fewer.
        while simulator.permits_held == PERMITS:
            directly = elsewhere.submit(
                _post, f"{url}/api/v1/identity/bulk-resolve-libraries", _ONE
            )
            measured.behind.append(_answered(db) * BESIDE_FACTOR)
            measured.behind_directly.append(directly.result() * BESIDE_FACTOR)
        page.result()
        rows = Counter(question.library_id for question in simulator.calls.questions())
    del rows[_NOBODY]
    measured.behind_asked.append(max(rows.values()))


def _post(url: str, body: object) -> float:
    """Return the seconds until the answer."""
    began = monotonic()
    httpx.post(url, json=body, timeout=900, trust_env=False).raise_for_status()
    return monotonic() - began


def _answered(db: Connection) -> float:
    """Return the seconds from the insert of a release until it has its identity."""
    pause, began = threading.Event(), monotonic()
    (row,) = db.execute(
        sql.SQL(
            "INSERT INTO {} (artist_id, artist_name, album_title) VALUES (1, 'Behind', 'A page')"
            " RETURNING id"
        ).format(LIBRARY)
    ).fetchone() or (None,)
    has_identity = sql.SQL("SELECT FROM {} WHERE library_id = %s").format(IDENTITY)
    while not db.execute(has_identity, (row,)).rowcount:
        pause.wait(0.01)
    return monotonic() - began


@contextmanager
def _walking(dsn: str, db: Connection, url: str) -> Iterator[None]:
    """Walk over everything for the length of the block, as far as that goes."""
    since, ended = _now(db), threading.Event()

    async def walking() -> None:
        async with _walker(dsn, url, faster(LIMITS, BESIDE_FACTOR)) as walker:
            walk = asyncio.get_running_loop().create_task(walker.run(since, cause="bench"))
            while not ended.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.05)
            walk.cancel()
            await asyncio.wait((walk,))

    thread = threading.Thread(target=asyncio.run, args=(walking(),))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _library_p99(db: Connection) -> float:
    """Return the p99 of the milliseconds from the commit of a release to its identity."""
    highest = int(read_number(db, sql.SQL("SELECT coalesce(max(id), 0) FROM {}").format(LIBRARY)))
    insert = sql.SQL(
        "INSERT INTO {} (artist_id, artist_name, album_title) VALUES (1, %s, 'Beside')"
    ).format(LIBRARY)
    pause = threading.Event()
    for number in range(RELEASES):
        db.execute(insert, (f"Beside {number}",))
        pause.wait(EVERY.total_seconds())
    wait_until(db, SETTLED)
    return p99(identified(db, highest)[WARM_UP:])


def _insert_figure(measured: Measured) -> Figure:
    insert = median(measured.insert_p50)
    return Figure(
        "idle: commit of a rotation insert to refresh call, p50",
        "<= 50 ms",
        f"{insert:.1f} ms",
        insert <= 50,
        f"{INSERTS} inserts a round",
        measured.insert_p50,
    )


def _as_figures(measured: Measured) -> list[Figure]:
    busiest, calls = max(measured.busiest), max(measured.warm_calls)
    seconds = median(measured.warm_seconds)
    alone, beside = median(measured.alone_p99), median(measured.beside_p99)
    by_rate = {rate: median(found) for rate, found in measured.warm_by_rate.items()}
    return [
        Figure(
            f"cold walk of {IDENTITIES}: Discogs calls in the busiest minute, browsing included",
            "<= 50",
            f"{busiest:.0f}",
            busiest <= 50,
            f"the worst round; {DISCOGS_CALLS} for refreshing, {BROWSING} for people",
            measured.busiest,
        ),
        Figure(
            "the same: the longest that browsing waited",
            "<= 1 s",
            f"{max(measured.browsing_wait):.2f} s",
            max(measured.browsing_wait) <= 1,
            "the worst round",
            measured.browsing_wait,
        ),
        Figure(
            "the same: how long it takes",
            "-",
            f"{median(measured.cold_minutes):.0f} min",
            met=True,
            detail=f"{median(measured.cold_calls):.0f} refresh calls",
            readings=measured.cold_minutes,
        ),
        Figure(
            f"warm walk of {IDENTITIES}, LML 100 ms",
            "<= 7 calls, <= 3 s",
            f"{calls:.0f} calls, {seconds:.2f} s",
            calls <= 7 and seconds <= 3,
            "by BACKFILL_LML_RPS: "
            + ", ".join(f"{rate}: {found:.0f} s" for rate, found in sorted(by_rate.items())),
        ),
        Figure(
            "the same while nothing is known of them",
            "-",
            f"{median(measured.unknown_calls):.0f} calls",
            met=True,
            detail=f"{median(measured.unknown_minutes):.1f} min",
        ),
        _insert_figure(measured),
        Figure(
            "library while a cold walk goes on: commit to identity, p99 against without",
            "<= 2 x",
            f"{beside / alone:.2f} x",
            beside <= 2 * alone,
            f"{alone:.0f} ms without, {beside:.0f} ms with",
        ),
        Figure(
            "library behind another caller's cold page of 50: how often each release is asked",
            "once",
            f"{max(measured.behind_asked)} x",
            max(measured.behind_asked) == 1,
            f"answered after {median(measured.behind):.0f} s, {max(measured.behind):.0f} s at most;"
            f" a question of the bench itself {median(measured.behind_directly):.0f} s",
        ),
    ]


def main() -> int:
    """Measure and print; return 1 if a figure is not reached."""
    parser = argparse.ArgumentParser(prog="make bench-rotation ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="readings a figure (default 3)")
    given: Any = parser.parse_args()
    measured = figures(given.rounds)
    show(measured, "rotation")
    return 0 if all(figure.met for figure in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
