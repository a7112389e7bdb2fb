"""Rows that are parked are listed, and put back by a person."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from listener.adapters.postgres.connection import Pool
from listener.adapters.postgres.library import PostgresDue, PostgresLibrary
from listener.adapters.postgres.sessions import Connection as Session
from listener.adapters.postgres.status import read_status
from listener.adapters.postgres.worklists import ParkedRow, list_parked, requeue_parked
from listener.domain.due import Reason, Scope
from listener.domain.faults import StoreUnavailableError
from listener.domain.retrying import ISOLATED
from listener.domain.verdict import Kind
from tests.catalogue import add_release, changes, delete_release, outbox_size
from tests.conftest import BACKEND, Connection
from tests.database import look
from tests.integration.conftest import ASK_AGAIN, Answers, Failures, until_it_waits_for_a_lock

HOUR = timedelta(hours=1)


class Parking:
    """Has rows fail for the last time, as the daemon would."""

    def __init__(self, fail: Failures) -> None:
        self._fail = fail

    async def __call__(self, *row_ids: int) -> None:
        """Park the rows."""
        await self._fail(*row_ids, after=7 * 24 * HOUR, parked=True, suspicion=ISOLATED)


@pytest.fixture
def park(fail: Failures) -> Parking:
    """Have rows parked."""
    return Parking(fail)


def listed(dsn: str) -> list[ParkedRow]:
    return look(dsn, BACKEND, list_parked)


def requeue(
    dsn: str, rows: Collection[int] | None, lock_timeout: str | None = None
) -> frozenset[int]:
    async def putting_back(connection: Session, backend: str) -> frozenset[int]:
        if lock_timeout is not None:
            await connection.execute(
                "SELECT set_config('lock_timeout', %s, false)", (lock_timeout,)
            )
        return await requeue_parked(connection, backend, rows)

    return look(dsn, BACKEND, putting_back)


def ledger(db: Connection) -> dict[int, dict[str, Any]]:
    with db.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT library_id, outcome, answered_at, failures, failure, failure_detail,"
            " failed_at, failing_since, suspicion, next_ask_at <= now() AS due, parked"
            " FROM listener.ledger ORDER BY library_id"
        ).fetchall()
    return {row.pop("library_id"): row for row in rows}


async def test_parked_rows_are_listed_the_longest_parked_first(
    unseen: Connection, dsn: str, park: Parking, fail: Failures, answer: Answers
) -> None:
    late, early, failing, answered, gone = (add_release(unseen) for _ in range(5))
    await park(late, early, gone)
    await fail(failing)
    await answer(answered)
    first, last = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    for row, at in ((early, first), (late, last)):
        unseen.execute("UPDATE listener.ledger SET failed_at = %s WHERE library_id = %s", (at, row))
    delete_release(unseen, gone)
    assert listed(dsn) == [
        ParkedRow(early, "lml_invalid", "odd", 1, first),
        ParkedRow(late, "lml_invalid", "odd", 1, last),
    ]


async def test_requeued_rows_become_changes_and_the_others_stay_parked(
    unseen: Connection, dsn: str, park: Parking, fail: Failures, answer: Answers
) -> None:
    row, second, left, failing, answered, never, gone = (add_release(unseen) for _ in range(7))
    await park(row, second, left, gone)
    await fail(failing)
    await answer(answered)
    delete_release(unseen, gone)
    before = ledger(unseen)
    wanted = [second, row, failing, answered, never, gone, gone + 1]
    assert requeue(dsn, wanted) == {row, second}
    after = ledger(unseen)
    put_back = {
        "outcome": None,
        "answered_at": None,
        "failures": 0,
        "failure": None,
        "failure_detail": None,
        "failed_at": None,
        "failing_since": None,
        "suspicion": 0,
        "due": True,
        "parked": False,
    }
    assert after == before | {row: put_back, second: put_back}
    assert sorted(changes(unseen), key=str) == [("library", row), ("library", second)]
    assert requeue(dsn, wanted) == frozenset()
    assert outbox_size(unseen) == 2


async def test_all_rows_are_requeued(unseen: Connection, dsn: str, park: Parking) -> None:
    rows = [add_release(unseen) for _ in range(20)]
    await park(*rows)
    assert requeue(dsn, None) == set(rows)
    assert listed(dsn) == []
    assert outbox_size(unseen) == 20
    assert requeue(dsn, None) == frozenset()


async def test_requeued_row_gets_all_its_attempts_although_it_was_answered_before(
    unseen: Connection, dsn: str, park: Parking, library: PostgresLibrary, answer: Answers
) -> None:
    row = add_release(unseen)
    await answer(row)
    unseen.execute("UPDATE listener.ledger SET next_ask_at = now()")
    await park(row)
    requeue(dsn, [row])
    assert ledger(unseen)[row]["outcome"] == "single_artist"
    (question,) = (await library.read([row])).questions
    assert (question.library_id, question.failing) == (row, None)
    assert await answer(row, kind=Kind.UNRESOLVED) == {row}
    assert (await library.read([row])).answered == {row}


async def test_requeued_row_that_was_never_answered_counts_as_never_asked(
    unseen: Connection, dsn: str, park: Parking, pool: Pool, library: PostgresLibrary
) -> None:
    row = add_release(unseen)
    await park(row)
    requeue(dsn, [row])
    assert [question.library_id for question in (await library.read([row])).questions] == [row]
    coverage = look(dsn, BACKEND, read_status).coverage
    assert (coverage.never, coverage.asked) == (1, 0)
    unseen.execute("DELETE FROM listener.change")
    due = PostgresDue(pool, BACKEND, ASK_AGAIN).by_time(Scope())
    assert [found.reason async for page in due for found in page] == [Reason.NEVER]


async def test_requeueing_wakes_the_daemon_only_if_it_did_anything(
    unseen: Connection, dsn: str, park: Parking
) -> None:
    rows = [add_release(unseen) for _ in range(3)]
    await park(*rows)
    unseen.execute("LISTEN listener_library")
    requeue(dsn, [rows[-1] + 1])
    assert list(unseen.notifies(timeout=0)) == []
    requeue(dsn, rows)
    (wakeup,) = unseen.notifies(timeout=5, stop_after=1)
    assert (wakeup.channel, wakeup.payload) == ("listener_library", "")
    assert list(unseen.notifies(timeout=0)) == []


async def test_row_that_is_answered_meanwhile_is_not_requeued(
    unseen: Connection, dsn: str, park: Parking
) -> None:
    answered, row = add_release(unseen), add_release(unseen)
    await park(answered, row)
    with psycopg.connect(dsn) as other:
        other.execute(
            "UPDATE listener.ledger SET failures = 0, outcome = 'unresolved',"
            " next_ask_at = now() + interval '1 day' WHERE library_id = %s",
            (answered,),
        )
        async with asyncio.TaskGroup() as tasks:
            requeuing = tasks.create_task(asyncio.to_thread(requeue, dsn, None))
            await until_it_waits_for_a_lock(unseen, "listener-test")
            other.commit()
    assert requeuing.result() == {row}
    assert ledger(unseen)[answered]["outcome"] == "unresolved"
    assert changes(unseen) == [("library", row)]


async def test_rows_that_stay_locked_are_not_waited_for(
    unseen: Connection, dsn: str, park: Parking
) -> None:
    row, locked = add_release(unseen), add_release(unseen)
    await park(row, locked)
    with psycopg.connect(dsn) as other:
        other.execute("SELECT FROM listener.ledger WHERE library_id = %s FOR UPDATE", (locked,))
        with pytest.raises(StoreUnavailableError, match="locked"):
            requeue(dsn, None, lock_timeout="20ms")
    assert len(listed(dsn)) == 2
    assert outbox_size(unseen) == 0
