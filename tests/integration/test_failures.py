"""Rows that could not be answered are remembered, until an answer or another question comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from listener.adapters.postgres.connection import Pool
from listener.adapters.postgres.library import PostgresDue, PostgresLibrary
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.faults import StatementRefusedError
from listener.domain.question import Asking
from listener.domain.retrying import ISOLATED, SUSPECT, Failure
from listener.domain.verdict import Kind
from tests.catalogue import add_release, changes, count, entries, rename
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import ASK_AGAIN, Answers, Failures, failure

HOUR, WEEK = timedelta(hours=1), timedelta(days=7)


def failures(asking: Asking) -> list[Failure]:
    return [failure(question) for question in asking.questions]


def ledger(db: Connection) -> list[dict[str, Any]]:
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT library_id, question, ask_order, outcome, answered_at, failures, failure,"
            " failure_detail, failed_at, failing_since, suspicion, parked,"
            " next_ask_at - failed_at AS wait"
            " FROM listener.ledger ORDER BY library_id"
        ).fetchall()


def only(db: Connection) -> dict[str, Any]:
    (entry,) = ledger(db)
    return entry


def let_pass(db: Connection, interval: str) -> None:
    """Let time go by for everything that failed."""
    db.execute(
        "UPDATE listener.ledger SET failing_since = failing_since - %(by)s::interval,"
        " failed_at = failed_at - %(by)s::interval,"
        " next_ask_at = next_ask_at - %(by)s::interval",
        {"by": interval},
    )


async def test_first_failure_of_a_row_that_was_never_asked(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    asking = await library.read([row])
    assert await verdicts.fail(asking.order, failures(asking), []) == {row}
    entry = only(db)
    assert (entry["library_id"], entry["question"]) == (row, asking.questions[0].digest)
    assert entry["ask_order"] == asking.order
    assert entry["outcome"] is entry["answered_at"] is None
    assert (entry["failures"], entry["failure"]) == (1, "lml_invalid")
    assert entry["failure_detail"] == "odd"
    assert abs(entry["failed_at"] - datetime.now(tz=UTC)) < timedelta(minutes=1)
    assert entry["failing_since"] == entry["failed_at"]
    assert (entry["wait"], entry["suspicion"], entry["parked"]) == (HOUR, 0, False)


async def test_failures_of_one_question_are_counted_since_the_first(
    db: Connection, library: PostgresLibrary, fail: Failures
) -> None:
    row = add_release(db)
    await fail(row, suspicion=SUSPECT)
    let_pass(db, "5 h")
    since = only(db)["failing_since"]
    for number, suspicion in ((2, SUSPECT), (3, ISOLATED)):
        assert await fail(row, suspicion=suspicion) == {row}
        entry = only(db)
        assert (entry["failures"], entry["suspicion"]) == (number, suspicion)
        assert entry["failing_since"] == since
        assert entry["failed_at"] - since >= timedelta(hours=5)
    (question,) = (await library.read([row])).questions
    assert question.failing is not None
    assert (question.failing.failures, question.suspicion) == (3, ISOLATED)
    assert timedelta(hours=5) <= question.failing.lasting < timedelta(hours=5, minutes=1)
    assert timedelta(0) <= question.failing.ago < timedelta(minutes=1)
    assert not question.failing.parked


async def test_failure_whose_ledger_row_is_locked_is_refused_and_the_others_can_be_recorded(
    dsn: str,
    db: Connection,
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
    fail: Failures,
) -> None:
    locked, other = add_release(db), add_release(db)
    await fail(locked)
    asking = await library.read([locked, other])
    mine, others = failures(asking)
    with psycopg.connect(dsn) as session:
        session.execute("SELECT FROM listener.ledger WHERE library_id = %s FOR UPDATE", (locked,))
        with pytest.raises(StatementRefusedError, match="lock timeout"):
            await verdicts.fail(asking.order, [mine, others], [])
        assert await verdicts.fail(asking.order, [others], []) == {other}
    assert await verdicts.fail(asking.order, [mine], []) == {locked}


async def test_parked_row_is_marked_and_still_has_a_retry_time(
    db: Connection, library: PostgresLibrary, fail: Failures
) -> None:
    row = add_release(db)
    await fail(row)
    await fail(row, after=WEEK, parked=True)
    entry = only(db)
    assert (entry["failures"], entry["wait"], entry["parked"]) == (2, WEEK, True)
    (question,) = (await library.read([row])).questions
    assert question.failing is not None
    assert question.failing.parked
    await fail(row)
    assert not only(db)["parked"]


async def test_question_that_never_failed_knows_of_no_failures(
    db: Connection, library: PostgresLibrary, answer: Answers
) -> None:
    never, answered = add_release(db), add_release(db)
    await answer(answered)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    questions = (await library.read([never, answered])).questions
    assert [question.failing for question in questions] == [None, None]
    assert [question.suspicion for question in questions] == [0, 0]


async def test_failure_keeps_the_answer_before_it(
    db: Connection, answer: Answers, fail: Failures
) -> None:
    row = add_release(db)
    await answer(row)
    answered = only(db)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    await fail(row)
    entry = only(db)
    assert entry["outcome"] == "single_artist"
    assert entry["answered_at"] == answered["answered_at"]
    assert (entry["failures"], entry["wait"]) == (1, HOUR)
    assert entry["failing_since"] == entry["failed_at"]
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
    failed = [failure(first, after=WEEK, parked=True), failure(second)]
    # The one of a row that did not fail is not ours to settle.
    assert await verdicts.fail(asking.order, failed, batch) == {parked, tried}
    assert [(entry["library_id"], entry["parked"]) for entry in ledger(db)] == [
        (parked, True),
        (tried, False),
    ]
    # Of the rows that failed, only what was read with them is settled.
    assert changes(db) == [("library", other), ("library", parked), ("rotation", parked)]


@pytest.mark.parametrize("kind", Kind)
async def test_answer_clears_failures(
    db: Connection, library: PostgresLibrary, answer: Answers, fail: Failures, kind: Kind
) -> None:
    row = add_release(db)
    await fail(row, after=WEEK, parked=True, suspicion=ISOLATED)
    assert await answer(row, kind=kind) == {row}
    entry = only(db)
    assert (entry["outcome"], entry["failures"]) == (kind, 0)
    assert (entry["suspicion"], entry["parked"]) == (0, False)
    assert entry["failure"] is entry["failure_detail"] is None
    assert entry["failed_at"] is entry["failing_since"] is None
    assert (await library.read([row])).answered == {row}


async def test_late_failure_does_not_touch_a_newer_answer(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, answer: Answers
) -> None:
    row, other = add_release(db), add_release(db)
    late = await library.read([row, other])
    await answer(row)
    before = only(db)
    assert await verdicts.fail(late.order, failures(late), entries(db)) == {other}
    assert ledger(db)[0] == before
    assert changes(db) == [("library", row)]
    assert (await library.read([row])).answered == {row}


async def test_late_failure_does_not_touch_a_newer_one(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    late, newer = await library.read([row]), await library.read([row])
    await verdicts.fail(newer.order, failures(newer), [])
    before = ledger(db)
    assert await verdicts.fail(late.order, failures(late), entries(db)) == frozenset()
    assert ledger(db) == before
    assert changes(db) == [("library", row)]


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


async def test_failure_period_begins_now_if_earlier_failures_were_answered(
    db: Connection,
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
    answer: Answers,
    fail: Failures,
) -> None:
    row = add_release(db)
    await fail(row)
    answered, failed = await library.read([row]), await library.read([row])
    assert await answer.write(answered) == {row}
    assert await verdicts.fail(failed.order, failures(failed), []) == {row}
    entry = only(db)
    assert (entry["failures"], entry["failing_since"]) == (2, entry["failed_at"])
    (question,) = (await library.read([row])).questions
    assert question.failing is not None
    assert question.failing.lasting < timedelta(minutes=1)


async def test_changed_question_starts_counting_from_one(
    db: Connection, library: PostgresLibrary, fail: Failures
) -> None:
    row = add_release(db)
    await fail(row, after=WEEK, parked=True, suspicion=ISOLATED)
    let_pass(db, "5 h")
    (question,) = (await library.read([row])).questions
    assert question.failing is not None
    assert (question.failing.failures, question.suspicion) == (1, ISOLATED)
    rename(db, row, "Broadcast")
    asking = await library.read([row])
    assert [(q.failing, q.suspicion) for q in asking.questions] == [(None, 0)]
    await fail(row)
    entry = only(db)
    assert (entry["failures"], entry["wait"]) == (1, HOUR)
    assert (entry["suspicion"], entry["parked"]) == (0, False)
    assert entry["failing_since"] == entry["failed_at"]
    assert entry["question"] == asking.questions[0].digest


async def test_failed_row_is_asked_whenever_it_comes_up(
    db: Connection, library: PostgresLibrary, answer: Answers, fail: Failures
) -> None:
    row = add_release(db)
    await answer(row)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    await fail(row)
    assert [question.library_id for question in (await library.read([row])).questions] == [row]


async def test_new_release_of_lml_makes_every_failed_row_due(
    db: Connection, pool: Pool, library: PostgresLibrary, answer: Answers, fail: Failures
) -> None:
    failed, parked, due, answered = (add_release(db) for _ in range(4))
    await fail(failed, suspicion=SUSPECT)
    await fail(parked, after=WEEK, parked=True, suspicion=ISOLATED)
    await fail(due, after=-HOUR)
    await answer(answered)
    before = ledger(db)
    at = times(db)
    note = PostgresDue(pool, BACKEND, ASK_AGAIN).note_release
    # The first one that is noted: nobody knows which one it was that failed.
    assert await note("1.0 abc") == 0
    assert await note("1.0 abc") == 0
    assert (ledger(db), times(db)) == (before, at)
    assert await note("1.0 def") == 2
    after = {entry["library_id"]: entry for entry in ledger(db)}
    assert not any(entry["parked"] for entry in after.values())
    # How often it failed, and how suspect it is, stays known.
    assert [after[row]["failures"] for row in (failed, parked, due, answered)] == [1, 1, 1, 0]
    assert [after[row]["suspicion"] for row in (failed, parked)] == [SUSPECT, ISOLATED]
    assert due_now(db) == {failed, parked, due}
    assert {row: when for row, when in times(db).items() if row in {due, answered}} == {
        row: when for row, when in at.items() if row in {due, answered}
    }
    assert await note("1.0 def") == 0
    (question,) = (await library.read([parked])).questions
    assert question.failing is not None
    assert (question.failing.failures, question.suspicion, question.failing.parked) == (
        1,
        ISOLATED,
        False,
    )
    assert db.execute("SELECT stream, lml_release FROM listener.lane ORDER BY 1").fetchall() == [
        ("library", "1.0 def"),
        ("rotation", None),
    ]


async def test_row_parked_for_good_by_an_older_version_becomes_due_again(
    db: Connection, pool: Pool, fail: Failures
) -> None:
    row = add_release(db)
    await fail(row)
    db.execute("UPDATE listener.ledger SET next_ask_at = 'infinity'")
    assert await PostgresDue(pool, BACKEND, ASK_AGAIN).note_release("1.0 abc") == 1
    assert due_now(db) == {row}


def times(db: Connection) -> dict[object, object]:
    rows = db.execute("SELECT library_id, next_ask_at FROM listener.ledger").fetchall()
    return {row[0]: row[1] for row in rows}


def due_now(db: Connection) -> set[object]:
    rows = db.execute("SELECT library_id FROM listener.ledger WHERE next_ask_at <= now()")
    return {row[0] for row in rows.fetchall()}
