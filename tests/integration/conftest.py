"""Adapters on a fresh database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.due import AskAgain
from listener.domain.question import Asking, Question
from listener.domain.retrying import Failure, Retry
from listener.domain.tally import Skip
from listener.domain.tracks import Tracks
from listener.domain.verdict import Identity, Kind, Verdict, VerdictBatch
from tests.conftest import BACKEND, Connection

ASK_AGAIN = AskAgain(resolved=timedelta(days=7), unresolved=timedelta(days=7))


async def until(fact: Callable[[], object], seconds: float = 10) -> None:
    """Wait until a fact holds; fail if it does not in time."""
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.005)


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the node that a plan, as EXPLAIN returns it, begins with, and those below it."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes_of(part)


async def until_it_waits_for_a_lock(db: Connection, who: str = "listener test") -> None:
    """Wait until a session of this name waits for a lock."""
    waiting = (
        "SELECT FROM pg_stat_activity WHERE application_name = %s"
        " AND datname = current_database() AND wait_event_type = 'Lock'"
    )
    await until(lambda: db.execute(waiting, (who,)).rowcount)


@pytest.fixture
def database(dsn: str) -> Database:
    """Where the adapters of a test work."""
    return Database(dsn=dsn, backend=BACKEND, holder="listener test")


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """Yield connections with the daemon's own session settings."""
    async with open_pool(database, size=4) as opened:
        yield opened


@pytest.fixture
def library(pool: Pool) -> PostgresLibrary:
    """Read questions."""
    return PostgresLibrary(pool, BACKEND, ASK_AGAIN)


@pytest.fixture
def outbox(pool: Pool) -> PostgresOutbox:
    """Look at changes."""
    return PostgresOutbox(pool, BACKEND)


@pytest.fixture
def verdicts(pool: Pool) -> PostgresVerdicts:
    """Write verdicts."""
    return PostgresVerdicts(pool, BACKEND, ASK_AGAIN)


@pytest.fixture
def unseen(dsn: str) -> Iterator[Connection]:
    """Yield a writer whose changes no trigger captures."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


class Answers:
    """Has rows asked about and answered, as the daemon would."""

    def __init__(self, library: PostgresLibrary, verdicts: PostgresVerdicts) -> None:
        self._library = library
        self._verdicts = verdicts

    async def __call__(
        self,
        *row_ids: int,
        kind: Kind = Kind.SINGLE_ARTIST,
        method: str = "exact_match",
        tracks: Tracks | None = None,
    ) -> frozenset[int]:
        """Answer the same to every row that is to be asked; return the rows written."""
        return await self.write(await self._library.read(row_ids), kind, method, tracks)

    async def write(
        self,
        asking: Asking,
        kind: Kind = Kind.SINGLE_ARTIST,
        method: str = "exact_match",
        tracks: Tracks | None = None,
    ) -> frozenset[int]:
        """Answer the same to every question; return the rows written."""
        found = Identity(method, 0.9, "Q1", None, None, ())
        identity = found if kind is Kind.SINGLE_ARTIST else None
        questions = {question.library_id: question for question in asking.questions}
        answers = [Verdict(row, kind, identity, tracks=tracks) for row in questions]
        written = await self._verdicts.write(VerdictBatch(asking.order, questions, answers, []))
        return written.rows


@pytest.fixture
def answer(library: PostgresLibrary, verdicts: PostgresVerdicts) -> Answers:
    """Have rows answered."""
    return Answers(library, verdicts)


def failure(
    question: Question,
    *,
    after: timedelta = timedelta(hours=1),
    parked: bool = False,
    suspicion: int = 0,
    detail: str = "odd",
) -> Failure:
    """Return one more failure of a question, to be tried again `after` that."""
    failures = question.failing.failures + 1 if question.failing else 1
    retry = Retry(failures, after, parked)
    return Failure(question.library_id, question.digest, Skip.INVALID, detail, retry, suspicion)


class Failures:
    """Has rows asked about in vain, as the daemon would."""

    def __init__(self, library: PostgresLibrary, verdicts: PostgresVerdicts) -> None:
        self._library = library
        self._verdicts = verdicts

    async def __call__(
        self,
        *row_ids: int,
        after: timedelta = timedelta(hours=1),
        parked: bool = False,
        suspicion: int = 0,
        entries: Sequence[tuple[int, int]] = (),
    ) -> frozenset[int]:
        """Have each row fail once more; return the rows entered in the ledger."""
        asking = await self._library.read(row_ids)
        failures = [
            failure(question, after=after, parked=parked, suspicion=suspicion)
            for question in asking.questions
        ]
        return await self._verdicts.fail(asking.order, failures, entries)


@pytest.fixture
def fail(library: PostgresLibrary, verdicts: PostgresVerdicts) -> Failures:
    """Have rows fail."""
    return Failures(library, verdicts)
