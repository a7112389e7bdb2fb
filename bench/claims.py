"""What a claim costs when hundreds of claims have gone before it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg

from bench.harness import Figure, fresh_server, in_turn, median, migrate, show
from bench.process import BACKEND
from listener.adapters.postgres.connection import Database, open_pool
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.demo.postgres import create_backend
from listener.domain.change import LowWaterMark, Stream

BACKLOG, BATCH = 200_000, 500
CLAIMS = BACKLOG // BATCH
AT_EACH_END = 10

Connection = psycopg.Connection[tuple[object, ...]]


def figures(rounds: int = 5) -> list[Figure]:
    """Measure the claims of a whole backlog, alone and beside an open transaction."""
    with fresh_server() as dsn:
        create_backend(dsn, BACKEND, with_triggers=False)
        migrate(dsn, BACKEND)
        with psycopg.connect(dsn, autocommit=True) as db:
            # Dead entries stay, as they do between two vacuums.
            db.execute("ALTER TABLE listener.change SET (autovacuum_enabled = false)")
            ratios: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
            for _ in in_turn("claims", rounds):
                for pinned in (False, True):
                    _fill(db)
                    with _open_transaction(dsn, pinned=pinned):
                        ratios[pinned].append(asyncio.run(_claim_everything(dsn)))
    return [
        _figure("claim 400 of a backlog of 200,000 / claim 1", ratios[False]),
        _figure("the same beside a transaction that stays open", ratios[True]),
    ]


def _fill(db: Connection) -> None:
    db.execute("TRUNCATE listener.change")
    db.execute(
        "INSERT INTO listener.change (stream, row_id)"
        " SELECT 'library', n FROM generate_series(1, %s) AS n",
        (BACKLOG,),
    )
    db.execute("VACUUM ANALYZE listener.change")
    db.execute("CHECKPOINT")


@contextmanager
def _open_transaction(dsn: str, *, pinned: bool) -> Iterator[None]:
    """Keep a transaction open that has a snapshot and has written: the worst of both."""
    with psycopg.connect(dsn) as connection:
        if pinned:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("CREATE TEMP TABLE written AS SELECT count(*) FROM listener.change")
        yield
        connection.rollback()


async def _claim_everything(dsn: str) -> tuple[float, float]:
    """Return the median seconds of a claim at the beginning and at the end of the backlog."""
    loop = asyncio.get_running_loop()
    database = Database(dsn=dsn, backend=BACKEND, holder="listener bench")
    horizon, times, claimed = LowWaterMark(timedelta(seconds=1)), [], 0
    async with open_pool(database, size=1) as pool:
        outbox = PostgresOutbox(pool, BACKEND)
        # The first statements of a session are planned and prepared; that is not what is measured.
        await outbox.look(Stream.LIBRARY, after=0, held=[], limit=1, mark=True)
        await outbox.look(Stream.LIBRARY, after=0, held=[], limit=1)
        while claimed < BACKLOG:
            began = time.perf_counter()
            after = horizon.start(loop.time())
            mark = horizon.mark_due(loop.time())
            look = await outbox.look(Stream.LIBRARY, after=after, held=[], limit=BATCH, mark=mark)
            times.append(time.perf_counter() - began)
            seqs = [change.seq for change in look.changes]
            horizon.looked(after, seqs, look.snapshot, complete=look.complete)
            await outbox.settle(Stream.LIBRARY, [(c.seq, c.row_id) for c in look.changes])
            claimed += len(seqs)
    return median(times[:AT_EACH_END]), median(times[CLAIMS - AT_EACH_END : CLAIMS])


def _figure(name: str, readings: list[tuple[float, float]]) -> Figure:
    ratio = median([last / first for first, last in readings])
    first, last = (median(list(column)) * 1000 for column in zip(*readings, strict=True))
    return Figure(
        name,
        "<= 1.50",
        f"{ratio:.2f}",
        ratio <= 1.5,
        f"{first:.2f} ms first, {last:.2f} ms last",
        [last / first for first, last in readings],
    )


if __name__ == "__main__":
    show(figures(), "claims")
