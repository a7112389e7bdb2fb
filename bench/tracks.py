"""What compilations down to the track cost: pages of credits written, unchanged, and very long."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
from psycopg import sql

from bench.database import LIBRARY, SETTLED, Connection, read_number, wait_until
from bench.harness import Figure, catalogue, fresh_server, in_turn, median, migrate
from bench.process import BACKEND, MEGABYTE, running_daemon
from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.demo.postgres import create_backend
from listener.domain.due import AskAgain
from listener.domain.tracks import Credit, Tracks, gather
from listener.domain.verdict import Identity, Kind, Provenance, Verdict, VerdictBatch
from listener.simulator import simulator_process
from listener.simulator.tracks import MOST_CREDITS, credits_of, entries_for

ROWS = 20_000
PAGE, CREDITS, SINGLES = 100, 56, 500
# So many credits for each of 100 releases make a reply of 6 MB, nearly the longest that is read.
LONG = 200
WAIT_SECONDS = 60

# No answer holds: whatever is read is to be asked.
_AT_ONCE = AskAgain(timedelta(0), timedelta(0))

_ARTISTS = sql.Identifier(BACKEND, "artists")
_CREDITS = sql.Identifier(BACKEND, "compilation_track_artist")


@dataclass(slots=True)
class Measured:
    """Milliseconds of pages, one reading a round; updates and statements counted over all."""

    singles: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    updates: int = 0
    statements: int = 0
    rss: list[float] = field(default_factory=list)
    long_page: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """A filled catalogue with the credits of some releases, and means to write pages."""

    db: Connection
    pool: Pool
    writer: PostgresVerdicts
    compilations: Sequence[int]
    largest: int
    singles: Sequence[int]

    async def write(self, verdicts: Sequence[Verdict]) -> float:
        """Write one page; return the milliseconds that took."""
        library = PostgresLibrary(self.pool, BACKEND, _AT_ONCE)
        asking = await library.read([verdict.library_id for verdict in verdicts])
        questions = {question.library_id: question for question in asking.questions}
        began = time.perf_counter()
        written = await self.writer.write(VerdictBatch(asking.order, questions, verdicts, []))
        took = (time.perf_counter() - began) * 1000
        assert len(written.rows) == len(verdicts)
        return took

    async def statements(self) -> int:
        """Return how many prepared statements the only session of the pool has run."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT coalesce(sum(generic_plans + custom_plans), 0) FROM pg_prepared_statements",
                prepare=False,
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    def updates(self) -> int:
        """Return how many UPDATE statements there were on the credits."""
        return int(read_number(self.db, "SELECT count(*) FROM public.updates"))


def figures(rounds: int = 5) -> list[Figure]:
    """Measure everything `rounds` times, in turn."""
    measured = Measured()
    with fresh_server() as dsn, prepared(dsn) as db:
        asyncio.run(_pages(dsn, db, measured, rounds))
        for number in range(rounds):
            sys.stderr.write(f"tracks: long page {number + 1} of {rounds}\n")
            _long_page(dsn, db, measured)
    return _as_figures(measured)


@contextmanager
def prepared(dsn: str) -> Iterator[Connection]:
    """Fill a backend on a server, and note UPDATE statements on its credits."""
    create_backend(dsn, BACKEND, with_triggers=False)
    catalogue(dsn, BACKEND, ROWS)
    migrate(dsn, BACKEND)
    with psycopg.connect(dsn, autocommit=True) as db:
        # Whatever LML may answer about a credit has its artist.
        names = sorted({credit.artist_name for row in range(50) for credit in credits_of(row, 200)})
        with db.cursor() as cursor:
            insert = sql.SQL("INSERT INTO {} (artist_name) VALUES (%s)").format(_ARTISTS)
            cursor.executemany(insert, [(name,) for name in names])
        db.execute(
            sql.SQL(
                "CREATE TABLE public.updates (at timestamptz);"
                " CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " INSERT INTO public.updates VALUES (now()); RETURN NULL; END $$;"
                " CREATE TRIGGER note AFTER UPDATE ON {}"
                " FOR EACH STATEMENT EXECUTE FUNCTION public.note()"
            ).format(_CREDITS)
        )
        yield db


async def _pages(dsn: str, db: Connection, measured: Measured, rounds: int) -> None:
    compilations = _ids(db, PAGE + 1, compilations=True)
    for place, row in enumerate(compilations):
        _insert_credits(db, row, CREDITS if place < PAGE else MOST_CREDITS)
    singles = _ids(db, SINGLES, compilations=False)
    db.execute("VACUUM ANALYZE")
    async with open_pool(Database(dsn, BACKEND, "bench"), 1) as pool:
        writer = PostgresVerdicts(pool, BACKEND, _AT_ONCE)
        bench = Bench(db, pool, writer, compilations[:PAGE], compilations[PAGE], singles)
        # The first pages fill caches and prepare what is sent.
        for confidence in (0.1, 0.2):
            await bench.write(_singles(bench, confidence))
            await bench.write(_compilations(bench.compilations, CREDITS, confidence))
        for number in in_turn("tracks", rounds):
            await _round(bench, measured, (number + 3) / (rounds + 4))


async def _round(bench: Bench, measured: Measured, confidence: float) -> None:
    measured.singles.append(await bench.write(_singles(bench, confidence)))
    before = await bench.statements()
    page = _compilations(bench.compilations, CREDITS, confidence)
    measured.changed.append(await bench.write(page))
    # Two statements more read the questions.
    measured.statements = max(measured.statements, await bench.statements() - before - 2)
    updates = bench.updates()
    measured.unchanged.append(await bench.write(page))
    measured.updates += bench.updates() - updates
    largest = _compilations([bench.largest], MOST_CREDITS, confidence)
    measured.largest.append(await bench.write(largest))


def _long_page(dsn: str, db: Connection, measured: Measured) -> None:
    """Have a daemon ask a page of 6 MB whose credits are all to be written."""
    rows = _ids(db, 2 * PAGE + 1, compilations=True)[PAGE + 1 :]
    db.execute("TRUNCATE listener.change, listener.ledger")
    db.execute(sql.SQL("DELETE FROM {} WHERE library_id = ANY (%s)").format(_CREDITS), (rows,))
    for row in rows:
        _insert_credits(db, row, LONG)
    overrides = {_legacy_id(db, row): (True, entries_for(row, LONG)) for row in rows}
    tracks = {"not_visited_share": 1, "overrides": overrides}
    # Nothing else is asked: what never was is left to a backfill in small shares.
    db.execute(
        sql.SQL(
            "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
            " next_ask_at) SELECT id, listener.question_digest(artist_name, album_title,"
            " legacy_release_id, coalesce(code_volume_letters LIKE 'Z%', false)), 0, 'unresolved',"
            " now(), now() + interval '7 d' FROM {}"
        ).format(LIBRARY)
    )
    with simulator_process(knowledge={"all_single": False}, permits=None) as lml:
        lml.set(tracks=tracks)
        with running_daemon(dsn, lml.url, LML_TIMEOUT="60s") as daemon:
            began = time.perf_counter()
            rename = sql.SQL("UPDATE {} SET album_title = album_title || ' II' WHERE id = ANY (%s)")
            db.execute(rename.format(LIBRARY), (rows,))
            wait_until(db, SETTLED, seconds=WAIT_SECONDS)
            measured.long_page.append((time.perf_counter() - began) * 1000)
            measured.rss.append(daemon.largest_rss / MEGABYTE)
    linked = sql.SQL(
        "SELECT count(*) FROM {} WHERE library_id = ANY (%s) AND track_artist_id IS NOT NULL"
    )
    found = db.execute(linked.format(_CREDITS), (rows,)).fetchone()
    assert found == (PAGE * LONG,), found


def _as_figures(measured: Measured) -> list[Figure]:
    ratio = median(measured.changed) / median(measured.singles)
    rss = max(measured.rss)
    return [
        Figure(
            name=f"page of {PAGE} compilations with {CREDITS} credits each, all changed",
            target=f"<= 10 x {SINGLES} single artists",
            measured=f"{ratio:.1f} x",
            met=ratio <= 10,
            detail=f"{median(measured.changed):,.0f} ms to {median(measured.singles):,.0f} ms",
            readings=[c / s for c, s in zip(measured.changed, measured.singles, strict=True)],
        ),
        Figure(
            name="statements that write it",
            target="<= 9",
            measured=str(measured.statements),
            met=measured.statements <= 9,
        ),
        Figure(
            name="the same page, unchanged",
            target="0 UPDATE statements",
            measured=str(measured.updates),
            met=measured.updates == 0,
            detail=f"{median(measured.unchanged):,.0f} ms",
        ),
        Figure(
            name=f"the largest release, {MOST_CREDITS:,} credits",
            target="works",
            measured=f"{median(measured.largest):,.0f} ms",
            met=True,
            readings=measured.largest,
        ),
        Figure(
            name=f"daemon with a page of 6 MB, {PAGE * LONG:,} credits",
            target="< 200 MB",
            measured=f"{rss:.0f} MB",
            met=rss < 200,
            detail=f"{median(measured.long_page):,.0f} ms from commit to settled",
            readings=measured.rss,
        ),
    ]


def _singles(bench: Bench, confidence: float) -> list[Verdict]:
    sources = ("discogs", "wikidata", "spotify")
    return [
        Verdict(
            row,
            Kind.SINGLE_ARTIST,
            Identity(
                "exact_match",
                confidence,
                f"Q{row}",
                None,
                None,
                tuple(Provenance(s, "exact_match", confidence, f"{s}-{row}") for s in sources),
            ),
        )
        for row in bench.singles
    ]


def _compilations(rows: Sequence[int], count: int, confidence: float) -> list[Verdict]:
    return [
        Verdict(
            row,
            Kind.COMPILATION,
            tracks=Tracks(
                gather(
                    Credit(
                        c.artist_name, c.track_title, c.track_position, c.artist_name, confidence
                    )
                    for c in credits_of(row, count)
                )
            ),
        )
        for row in rows
    ]


def _insert_credits(db: Connection, row: int, count: int) -> None:
    found = credits_of(row, count)
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, artist_name, track_title)"
            " SELECT %s, artist_name, track_title FROM unnest(%s::text[], %s::text[])"
            " AS c (artist_name, track_title)"
        ).format(_CREDITS),
        (row, [credit.artist_name for credit in found], [credit.track_title for credit in found]),
    )


def _ids(db: Connection, count: int, *, compilations: bool) -> list[int]:
    statement = sql.SQL(
        "SELECT id FROM {} WHERE code_volume_letters LIKE 'Z%%' = %s ORDER BY id LIMIT %s"
    ).format(LIBRARY)
    return [int(str(row[0])) for row in db.execute(statement, (compilations, count)).fetchall()]


def _legacy_id(db: Connection, row: int) -> int:
    statement = sql.SQL("SELECT legacy_release_id FROM {} WHERE id = %s").format(LIBRARY)
    return int(read_number(db, statement, (row,)))
