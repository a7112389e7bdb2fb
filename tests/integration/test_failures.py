"""Rows that could not be answered are remembered, until an answer or another question comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.rows import dict_row

from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.pacing import Backoff
from listener.domain.parking import Failure, Patience
from listener.domain.question import Asking
from listener.domain.tally import Skip
from listener.domain.verdict import Kind
from tests.catalogue import add_release, count, rename
from tests.conftest import Connection
from tests.integration.conftest import Answers

HOUR = timedelta(hours=1)
PATIENCE = Patience(3, Backoff(first=HOUR, most=2 * HOUR))


def failures(asking: Asking, patience: Patience = PATIENCE) -> list[Failure]:
    return [patience.failure(question, Skip.INVALID, "odd") for question in asking.questions]


def ledger(db: Connection) -> list[dict[str, Any]]:
    # The times are told apart from now(): psycopg has no value for infinity.
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT library_id, question, ask_order, outcome, answered_at, failures, failure,"
            " failure_detail, failed_at, next_ask_at = 'infinity' AS parked,"
            " nullif(next_ask_at, 'infinity') - failed_at AS wait"
            " FROM listener.ledger ORDER BY library_id"
        ).fetchall()


def waiting(db: Connection) -> list[tuple[object, object]]:
    rows = db.execute("SELECT stream, row_id FROM listener.change ORDER BY seq").fetchall()
    return [(row[0], row[1]) for row in rows]


def entries(db: Connection) -> list[tuple[int, int]]:
    rows = db.execute("SELECT seq, row_id FROM listener.change ORDER BY seq").fetchall()
    return [(int(str(seq)), int(str(row))) for seq, row in rows]


async def test_first_failure_of_a_row_that_was_never_asked(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    asking = await library.read([row])
    await verdicts.fail(asking.order, failures(asking), [])
    (entry,) = ledger(db)
    assert (entry["library_id"], entry["question"]) == (row, asking.questions[0].digest)
    assert entry["ask_order"] == asking.order
    assert entry["outcome"] is entry["answered_at"] is None
    assert (entry["failures"], entry["failure"]) == (1, "lml_invalid")
    assert entry["failure_detail"] == "odd"
    assert abs(entry["failed_at"] - datetime.now(tz=UTC)) < timedelta(minutes=1)
    assert (entry["wait"], entry["parked"]) == (HOUR, False)


async def test_failures_in_a_row_are_counted_until_the_row_is_parked(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    seen = []
    for _ in range(4):
        asking = await library.read([row])
        await verdicts.fail(asking.order, failures(asking), [])
        (entry,) = ledger(db)
        seen.append((entry["failures"], entry["wait"], entry["parked"]))
        assert entry["ask_order"] == asking.order
    assert seen == [(1, HOUR, False), (2, 2 * HOUR, False), (3, None, True), (4, None, True)]


async def test_failure_keeps_the_answer_before_it(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, answer: Answers
) -> None:
    row = add_release(db)
    await answer(row)
    (answered,) = ledger(db)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    asking = await library.read([row])
    await verdicts.fail(asking.order, failures(asking), [])
    (entry,) = ledger(db)
    assert entry["outcome"] == "single_artist"
    assert entry["answered_at"] == answered["answered_at"]
    assert (entry["failures"], entry["wait"]) == (1, HOUR)
    assert count(db, "library_identity") == 1


async def test_failures_settle_the_changes_given_and_no_others(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    parked, tried, other = add_release(db, "a"), add_release(db, "b"), add_release(db, "c")
    rename(db, parked, "d")
    batch = entries(db)
    rename(db, parked, "e")
    db.execute("INSERT INTO listener.change (stream, row_id) VALUES ('rotation', %s)", (parked,))
    asking = await library.read([parked, tried])
    first, second = sorted(asking.questions, key=lambda question: question.library_id)
    at_once = Patience(1)
    failed = [
        at_once.failure(first, Skip.INVALID, "odd"),
        PATIENCE.failure(second, Skip.MISMATCH, ""),
    ]
    await verdicts.fail(asking.order, failed, [entry for entry in batch if entry[1] == parked])
    assert [(entry["library_id"], entry["parked"]) for entry in ledger(db)] == [
        (parked, True),
        (tried, False),
    ]
    # Of the parked row, only what was read with it is settled.
    assert waiting(db) == [
        ("library", tried),
        ("library", other),
        ("library", parked),
        ("rotation", parked),
    ]


@pytest.mark.parametrize("kind", Kind)
async def test_answer_clears_failures(
    db: Connection,
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
    answer: Answers,
    kind: Kind,
) -> None:
    row = add_release(db)
    asking = await library.read([row])
    await verdicts.fail(asking.order, failures(asking, Patience(1)), [])
    assert await answer(row, kind=kind) == {row}
    (entry,) = ledger(db)
    assert (entry["outcome"], entry["failures"], entry["parked"]) == (kind, 0, False)
    assert entry["failure"] is entry["failure_detail"] is entry["failed_at"] is None
    assert (await library.read([row])).answered == {row}


async def test_late_failure_does_not_touch_a_newer_answer(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, answer: Answers
) -> None:
    row = add_release(db)
    late = await library.read([row])
    await answer(row)
    before, changes = ledger(db), waiting(db)
    await verdicts.fail(late.order, failures(late, Patience(1)), entries(db))
    assert ledger(db) == before
    assert waiting(db) == changes
    assert (await library.read([row])).answered == {row}


async def test_late_failure_does_not_touch_a_newer_one(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    late, newer = await library.read([row]), await library.read([row])
    await verdicts.fail(newer.order, failures(newer), [])
    before = ledger(db)
    await verdicts.fail(late.order, failures(late, Patience(1)), entries(db))
    assert ledger(db) == before
    assert waiting(db) == [("library", row)]


async def test_late_answer_does_not_touch_a_newer_failure(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, answer: Answers
) -> None:
    row = add_release(db)
    late, newer = await library.read([row]), await library.read([row])
    await verdicts.fail(newer.order, failures(newer), [])
    before = ledger(db)
    assert await answer.write(late) == frozenset()
    assert ledger(db) == before
    assert count(db, "library_identity") == 0


async def test_changed_question_starts_counting_anew(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    asking = await library.read([row])
    await verdicts.fail(asking.order, failures(asking, Patience(1)), [])
    assert (await library.read([row])).questions[0].failures == 1
    rename(db, row, "Broadcast")
    asking = await library.read([row])
    assert asking.questions[0].failures == 0
    await verdicts.fail(asking.order, failures(asking), [])
    (entry,) = ledger(db)
    assert (entry["failures"], entry["wait"]) == (1, HOUR)
    assert entry["question"] == asking.questions[0].digest


async def test_failed_row_is_asked_whenever_it_comes_up(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, answer: Answers
) -> None:
    row = add_release(db)
    await answer(row)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    asking = await library.read([row])
    await verdicts.fail(asking.order, failures(asking), [])
    assert [question.library_id for question in (await library.read([row])).questions] == [row]
