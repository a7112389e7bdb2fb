"""Rows that deserve a question are found, each for its reason, and at the cost of what is due."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

import pytest
from psycopg import sql

from listener.adapters.postgres import library as searches
from listener.adapters.postgres.connection import Database, Pool
from listener.adapters.postgres.library import PostgresDue, PostgresLibrary
from listener.adapters.postgres.runs import PostgresRuns
from listener.adapters.postgres.sessions import query, times_of
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.due import AskAgain, DueRow, Reason, RunKind, Scope
from listener.domain.retrying import ISOLATED, SUSPECT
from listener.domain.tally import Tally
from listener.domain.tracks import Tracks
from listener.domain.verdict import Kind
from tests.catalogue import add_identity, add_release, delete_release, set_column, table
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import ASK_AGAIN, Answers, Failures, nodes_of

LATELY, LONG_AGO = timedelta(days=6), timedelta(days=8)
EVERYTHING = Scope()
REASONS = {
    Kind.SINGLE_ARTIST: Reason.RESOLVED,
    Kind.COMPILATION: Reason.UNRESOLVED,
    Kind.UNRESOLVED: Reason.UNRESOLVED,
}

Found = dict[int, Reason]


@pytest.fixture
def due(pool: Pool) -> PostgresDue:
    """Search for due rows."""
    return PostgresDue(pool, BACKEND, ASK_AGAIN)


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at two ids a statement."""
    monkeypatch.setattr(searches, "_WINDOW", 2)


async def rows_of(search: AsyncIterator[Sequence[DueRow]]) -> list[DueRow]:
    return [row async for rows in search for row in rows]


async def by_time(due: PostgresDue, scope: Scope = EVERYTHING) -> Found:
    return {row.library_id: row.reason for row in await rows_of(due.by_time(scope))}


async def by_content(due: PostgresDue, scope: Scope = EVERYTHING) -> Found:
    return {row.library_id: row.reason for row in await rows_of(due.by_content(scope))}


async def failed(due: PostgresDue, scope: Scope = EVERYTHING) -> Found:
    return {row.library_id: row.reason for row in await rows_of(due.failed(scope))}


async def test_row_that_was_never_asked_is_due(unseen: Connection, due: PostgresDue) -> None:
    row = add_release(unseen)
    assert await by_content(due) == {row: Reason.NEVER}
    assert await by_time(due) == {}


async def test_identities_of_an_old_install_are_asked_about_once_they_are_stale(
    unseen: Connection, due: PostgresDue
) -> None:
    fresh, stale = add_release(unseen), add_release(unseen)
    add_identity(unseen, fresh, LATELY)
    add_identity(unseen, stale, LONG_AGO)
    assert await by_content(due) == {stale: Reason.NEVER}


async def test_row_that_was_just_answered_is_not_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    for kind in Kind:
        await answer(add_release(unseen), kind=kind)
    assert await by_content(due) == await by_time(due) == {}


@pytest.mark.parametrize("kind", Kind)
async def test_change_that_was_not_captured_is_due(
    unseen: Connection, due: PostgresDue, answer: Answers, kind: Kind
) -> None:
    changes: list[tuple[str, object, object]] = [
        ("artist_name", "Stereolab", "Broadcast"),
        ("album_title", "Dots and Loops", "Sound-Dust"),
        ("code_volume_letters", None, "Z-A"),
        ("code_volume_letters", "A", "Z-A"),
        ("code_volume_letters", "Z-A", "A"),
        ("legacy_release_id", 1000, 1001),
    ]
    rows = {add_release(unseen): change for change in changes}
    for row, (column, before, _) in rows.items():
        set_column(unseen, "library", row, column, before)
    await answer(*rows, kind=kind)
    for row, (column, _, after) in rows.items():
        set_column(unseen, "library", row, column, after)
    assert await by_content(due) == dict.fromkeys(rows, Reason.CHANGED)
    assert await by_time(due) == {}


async def test_change_outside_the_question_is_not_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    changes = {"plays": 7, "code_volume_letters": "A", "label": "Duophonic"}
    rows = {add_release(unseen): column for column in changes}
    await answer(*rows)
    for row, column in rows.items():
        set_column(unseen, "library", row, column, changes[column])
    assert await by_content(due) == {}


async def test_row_is_due_once_its_time_is_reached(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    expected = {}
    for kind, reason in REASONS.items():
        row, later = add_release(unseen), add_release(unseen)
        await answer(row, later, kind=kind)
        ask_at(unseen, row, -timedelta(seconds=1))
        expected[row] = reason
    assert await by_time(due) == expected
    assert await by_content(due) == {}


async def test_answer_that_is_too_old_is_due_whatever_was_planned(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    expected = {}
    for kind, reason in REASONS.items():
        old, young = add_release(unseen), add_release(unseen)
        await answer(old, young, kind=kind)
        answered_ago(unseen, old, LONG_AGO)
        answered_ago(unseen, young, LATELY)
        expected[old] = reason
    assert await by_content(due) == expected
    assert await by_time(due) == {}


async def test_each_outcome_has_its_own_threshold(
    pool: Pool, unseen: Connection, answer: Answers
) -> None:
    due = PostgresDue(pool, BACKEND, AskAgain(timedelta(days=2), timedelta(days=5)))
    single, visited, unresolved, compilation = (add_release(unseen) for _ in range(4))
    await answer(single)
    await answer(visited, kind=Kind.COMPILATION, tracks=Tracks())
    await answer(unresolved, kind=Kind.UNRESOLVED)
    await answer(compilation, kind=Kind.COMPILATION)
    for row in (single, visited, unresolved, compilation):
        answered_ago(unseen, row, timedelta(days=3))
    assert await by_content(due) == {single: Reason.RESOLVED, visited: Reason.RESOLVED}


async def test_unvisited_compilation_is_due_like_a_row_without_an_identity(
    pool: Pool, unseen: Connection, library: PostgresLibrary
) -> None:
    ask_again = AskAgain(timedelta(days=5), timedelta(days=2))
    verdicts = PostgresVerdicts(pool, BACKEND, ask_again)
    visited, compilation = (add_release(unseen) for _ in range(2))
    answer = Answers(library, verdicts)
    await answer(visited, kind=Kind.COMPILATION, tracks=Tracks())
    await answer(compilation, kind=Kind.COMPILATION)
    waits = unseen.execute(
        "SELECT next_ask_at - answered_at FROM listener.ledger ORDER BY library_id"
    ).fetchall()
    assert waits == [(timedelta(days=5),), (timedelta(days=2),)]
    unseen.execute("UPDATE listener.ledger SET next_ask_at = now()")
    assert await by_time(PostgresDue(pool, BACKEND, ask_again)) == {
        visited: Reason.RESOLVED,
        compilation: Reason.UNRESOLVED,
    }


async def test_recheck_finds_compilations_whenever_they_are_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    visited, not_visited, found_by_lml, single = (
        add_release(unseen, code_volume_letters=letters) for letters in ("Z-A", "Z", None, "Z-B")
    )
    plain, _never = add_release(unseen), add_release(unseen, code_volume_letters="Z-C")
    nameless = add_release(unseen, code_volume_letters="Z-D")
    await answer(visited, kind=Kind.COMPILATION, tracks=Tracks())
    await answer(not_visited, found_by_lml, kind=Kind.COMPILATION)
    await answer(single, plain, nameless)
    set_column(unseen, "library", nameless, "artist_name", None)
    assert await by_time(due) == {}
    assert await rows_of(due.compilations(EVERYTHING)) == [
        DueRow(visited, Reason.RESOLVED, compilation=True),
        DueRow(not_visited, Reason.UNRESOLVED, compilation=True),
        DueRow(found_by_lml, Reason.UNRESOLVED, compilation=False),
        DueRow(single, Reason.RESOLVED, compilation=True),
    ]
    shares = [
        await rows_of(due.compilations(Scope(partition=share, partitions=2))) for share in range(2)
    ]
    assert sorted(row.library_id for rows in shares for row in rows) == [
        visited,
        not_visited,
        found_by_lml,
        single,
    ]
    later = await rows_of(due.compilations(Scope(since_id=not_visited)))
    assert [row.library_id for row in later] == [not_visited, found_by_lml, single]


async def test_recheck_leaves_parked_rows_to_a_person(
    unseen: Connection, due: PostgresDue, answer: Answers, fail: Failures
) -> None:
    parked, failing = (add_release(unseen, code_volume_letters="Z") for _ in range(2))
    await answer(parked, failing, kind=Kind.COMPILATION, tracks=Tracks())
    unseen.execute("UPDATE listener.ledger SET next_ask_at = now()")
    await fail(parked, parked=True)
    await fail(failing)
    assert await rows_of(due.compilations(EVERYTHING)) == [
        DueRow(failing, Reason.FAILED, compilation=True)
    ]


async def test_recheck_asks_although_the_answer_still_holds(
    pool: Pool, unseen: Connection, library: PostgresLibrary, answer: Answers
) -> None:
    row = add_release(unseen, code_volume_letters="Z")
    await answer(row, kind=Kind.COMPILATION, tracks=Tracks())
    assert (await library.read([row])).answered == {row}
    at_once = PostgresLibrary(pool, BACKEND, AskAgain(timedelta(0), timedelta(0)))
    assert [question.library_id for question in (await at_once.read([row])).questions] == [row]


async def test_identity_that_was_set_back_by_hand_is_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row, other = add_release(unseen), add_release(unseen)
    await answer(row, other)
    verified_ago(unseen, row, LONG_AGO)
    assert await by_content(due) == {row: Reason.RESOLVED}


@pytest.mark.parametrize("kind", Kind)
async def test_row_that_received_another_rows_identity_is_asked_once_more(
    unseen: Connection,
    due: PostgresDue,
    library: PostgresLibrary,
    answer: Answers,
    kind: Kind,
) -> None:
    doubled, survivor, other = (add_release(unseen) for _ in range(3))
    await answer(doubled)
    await answer(survivor, other, kind=kind)
    assert await by_content(due) == {}

    move_identity(unseen, doubled, survivor)

    reason = Reason.RESOLVED if kind is Kind.SINGLE_ARTIST else Reason.UNRESOLVED
    assert await by_content(due) == {doubled: Reason.RESOLVED, survivor: reason}
    asking = await library.read([survivor, other])
    assert {question.library_id for question in asking.questions} == {survivor}
    delete_release(unseen, doubled)
    await answer(survivor, kind=kind)
    assert await by_content(due) == {}


async def test_identity_kept_although_nothing_is_found_is_no_contradiction(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row = add_release(unseen)
    await answer(row)
    ask_at(unseen, row, timedelta())
    await answer(row, kind=Kind.UNRESOLVED)
    assert await by_content(due) == {}


async def test_identity_moved_by_a_person_is_no_contradiction(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row, other = add_release(unseen), add_release(unseen)
    await answer(row, other, kind=Kind.UNRESOLVED)
    add_identity(unseen, row, LATELY, notes="music director")
    add_identity(unseen, other, LATELY)
    assert await by_content(due) == {}


@pytest.mark.parametrize("kind", Kind)
async def test_answer_dated_in_the_future_is_asked_again(
    unseen: Connection, due: PostgresDue, library: PostgresLibrary, answer: Answers, kind: Kind
) -> None:
    row, other = add_release(unseen), add_release(unseen)
    await answer(row, other, kind=kind)
    set_clock_ahead(unseen, row)
    assert await by_time(due) == {}
    assert await by_content(due) == {row: REASONS[kind]}
    asking = await library.read([row, other])
    assert {question.library_id for question in asking.questions} == {row}
    await answer(row, kind=kind)
    assert await by_content(due) == {}


async def test_failure_dated_in_the_future_is_tried_again(
    unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    row, other = add_release(unseen), add_release(unseen)
    await fail(row, other, parked=True)
    set_clock_ahead(unseen, row)
    assert await failed(due) == {}
    assert await by_content(due) == {row: Reason.FAILED}


async def test_identity_of_an_old_install_dated_in_the_future_is_asked_about(
    unseen: Connection, due: PostgresDue
) -> None:
    row, other = add_release(unseen), add_release(unseen)
    add_identity(unseen, row, timedelta(days=-365))
    add_identity(unseen, other, LATELY)
    assert await by_content(due) == {row: Reason.NEVER}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.usefixtures("short_windows")
async def test_release_that_gained_credits_since_it_was_asked_is_due(
    unseen: Connection, due: PostgresDue, library: PostgresLibrary, answer: Answers, kind: Kind
) -> None:
    row, other = add_release(unseen), add_release(unseen)
    for title in ("Come On", "Echo's Answer"):
        add_credit(unseen, other, title)
    await answer(row, other, kind=kind)
    assert await by_time(due) == {}

    for title in ("Come On", "Echo's Answer", "Tower of Our Tuning"):
        add_credit(unseen, row, title)

    found = await rows_of(due.by_time(EVERYTHING))
    assert found == [DueRow(row, REASONS[kind], compilation=True)]
    asking = await library.read([row, other])
    assert {question.library_id for question in asking.questions} == {row}
    await answer(row, kind=kind)
    assert await by_time(due) == {}


async def test_credit_that_comes_while_lml_thinks_does_not_count_as_asked(
    unseen: Connection, due: PostgresDue, library: PostgresLibrary, answer: Answers
) -> None:
    row = add_release(unseen)
    asking = await library.read([row])
    add_credit(unseen, row, "Come On")
    await answer.write(asking, Kind.COMPILATION)
    assert await by_time(due) == {row: Reason.UNRESOLVED}


@pytest.mark.parametrize(
    "scope", [Scope(since_id=2), Scope(partition=0, partitions=2), Scope(only=frozenset())]
)
async def test_release_that_gained_credits_is_left_out_of_other_scopes(
    unseen: Connection, due: PostgresDue, answer: Answers, scope: Scope
) -> None:
    row = add_release(unseen)
    assert row == 1
    await answer(row)
    add_credit(unseen, row, "Come On")
    assert await by_time(due, scope) == {}


async def test_release_that_gained_credits_but_failed_has_its_own_time(
    unseen: Connection, due: PostgresDue, answer: Answers, fail: Failures
) -> None:
    row = add_release(unseen)
    await answer(row)
    ask_at(unseen, row, timedelta())
    await fail(row)
    add_credit(unseen, row, "Come On")
    assert await by_time(due) == {}


async def test_identity_that_is_gone_is_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row, other = add_release(unseen), add_release(unseen)
    await answer(row, other)
    unseen.execute(
        sql.SQL("DELETE FROM {} WHERE library_id = %s").format(table("library_identity")), (row,)
    )
    assert await by_content(due) == {row: Reason.RESOLVED}


@pytest.mark.parametrize("kind", [Kind.UNRESOLVED, Kind.COMPILATION])
async def test_stale_identity_does_not_hasten_a_row_that_has_since_become_unresolved(
    unseen: Connection, due: PostgresDue, answer: Answers, kind: Kind
) -> None:
    row = add_release(unseen)
    add_identity(unseen, row, timedelta(days=400))
    await answer(row, kind=kind)
    assert await by_content(due) == await by_time(due) == {}
    answered_ago(unseen, row, LONG_AGO)
    assert await by_content(due) == {row: Reason.UNRESOLVED}


async def test_identity_kept_by_a_person_is_not_asked_about_over_and_over(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row = add_release(unseen)
    add_identity(unseen, row, timedelta(days=4000), method="manual")
    assert await by_content(due) == {row: Reason.NEVER}
    assert await answer(row) == {row}
    assert await by_content(due) == await by_time(due) == {}
    answered_ago(unseen, row, LONG_AGO)
    assert await by_content(due) == {row: Reason.RESOLVED}


async def test_identity_that_a_person_took_over_from_lml_is_kept_as_well(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row = add_release(unseen)
    await answer(row, method="manual")
    set_column(unseen, "library_identity", row, "notes", None)
    verified_ago(unseen, row, LONG_AGO)
    assert await by_content(due) == {}


async def test_identity_that_lml_calls_manual_ages_like_any_other(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row = add_release(unseen)
    await answer(row, method="manual")
    assert await by_content(due) == {}
    verified_ago(unseen, row, LONG_AGO)
    assert await by_content(due) == {row: Reason.RESOLVED}


async def test_failed_row_is_due_at_its_retry_time(
    unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    row, later = add_release(unseen), add_release(unseen)
    await fail(row, later)
    ask_at(unseen, row, -timedelta(seconds=1))
    assert await failed(due) == {row: Reason.FAILED}
    # That is a search of its own.
    assert await by_time(due) == await by_content(due) == {}


async def test_failure_hides_how_old_the_answer_before_it_is(
    unseen: Connection, due: PostgresDue, answer: Answers, fail: Failures
) -> None:
    row = add_release(unseen)
    await answer(row)
    answered_ago(unseen, row, LONG_AGO)
    await fail(row)
    assert await by_content(due) == await by_time(due) == await failed(due) == {}


async def test_parked_row_is_due_when_its_question_changes_or_at_its_retry_time(
    unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    row = add_release(unseen)
    await fail(row, parked=True)
    assert await by_content(due) == await by_time(due) == await failed(due) == {}
    set_column(unseen, "library", row, "album_title", "Sound-Dust")
    assert await by_content(due) == {row: Reason.CHANGED}
    ask_at(unseen, row, -timedelta(seconds=1))
    assert await failed(due) == {row: Reason.FAILED}
    # What both found would be asked twice.
    assert await by_content(due) == await by_time(due) == {}


async def test_failed_rows_that_cannot_be_asked_about_are_skipped(
    monkeypatch: pytest.MonkeyPatch, unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    monkeypatch.setattr(searches, "_BATCH", 2)
    gone, nameless, other_share, too_early = (add_release(unseen) for _ in range(4))
    row, second = add_release(unseen), add_release(unseen, code_volume_letters="Z")
    await fail(gone, nameless, other_share, too_early, row, second, after=-LATELY)
    delete_release(unseen, gone)
    set_column(unseen, "library", nameless, "artist_name", None)
    ask_at(unseen, too_early, timedelta(minutes=1))
    scope = Scope(since_id=row, include_null_canonical=False)
    assert await rows_of(due.failed(scope)) == [
        DueRow(row, Reason.FAILED, compilation=False),
        DueRow(second, Reason.FAILED, compilation=True),
    ]
    shares = [await failed(due, Scope(partition=part, partitions=2)) for part in range(2)]
    assert [set(share) for share in shares] == [
        {each for each in (other_share, row, second) if each % 2 == part} for part in range(2)
    ]
    assert set(await due.retries(10, suspicion=0)) == {other_share, row, second}
    assert await failed(due, Scope(only=frozenset((Reason.RESOLVED,)))) == {}


async def test_longest_due_failures_come_first_within_each_degree_of_suspicion(
    unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    rows = [add_release(unseen) for _ in range(7)]
    await fail(*rows[:3])
    await fail(*rows[3:5], suspicion=SUSPECT)
    await fail(*rows[5:], suspicion=ISOLATED)
    hours = (1, 3, 2, 5, 9, 7, 8)
    for row, ago in zip(rows, hours, strict=True):
        ask_at(unseen, row, -timedelta(hours=ago))
    assert await due.retries(10, suspicion=0) == [rows[1], rows[2], rows[0]]
    assert await due.retries(2, suspicion=0) == [rows[1], rows[2]]
    assert await due.retries(10, suspicion=SUSPECT) == [rows[4], rows[3]]
    assert await due.retries(1, suspicion=ISOLATED) == [rows[6]]
    assert list(await failed(due)) == [rows[each] for each in (4, 6, 5, 3, 1, 2, 0)]


async def test_search_includes_rows_that_failed_together_before_their_retry_time(
    monkeypatch: pytest.MonkeyPatch, unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    monkeypatch.setattr(searches, "_BATCH", 1)
    for suspicion, after in itertools.product((0, SUSPECT, ISOLATED), (-LATELY, LATELY)):
        row = add_release(unseen)
        await fail(row, suspicion=suspicion, after=after)
    # Each once: those that are due first, then the suspects that were never tried alone.
    found = [row.library_id for row in await rows_of(due.failed(EVERYTHING))]
    assert found == [1, 3, 5, 4]


async def test_row_that_fails_again_during_the_search_is_left_to_the_next(
    monkeypatch: pytest.MonkeyPatch, unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    monkeypatch.setattr(searches, "_BATCH", 1)
    rows = [add_release(unseen) for _ in range(3)]
    await fail(*rows, after=-LATELY)
    found = []
    async for batch in due.failed(EVERYTHING):
        found += [row.library_id for row in batch]
        await fail(rows[0], after=timedelta())
    assert found == rows


async def test_failures_are_retried_while_a_sweep_runs(
    database: Database, unseen: Connection, due: PostgresDue, fail: Failures
) -> None:
    rows = {suspicion: add_release(unseen) for suspicion in (0, SUSPECT, ISOLATED)}
    for suspicion, row in rows.items():
        await fail(row, after=-LATELY, suspicion=suspicion)
    for scope in (EVERYTHING, Scope(partition=0, partitions=2)):
        async with PostgresRuns(database).enter(RunKind.SWEEP, scope, "test", Tally()):
            for suspicion, row in rows.items():
                assert await due.retries(10, suspicion=suspicion) == [row]
            assert set(await failed(due)) == set(rows.values())


async def test_row_without_an_artist_name_is_not_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    never, answered = add_release(unseen, None), add_release(unseen)
    await answer(answered)
    ask_at(unseen, answered, -LONG_AGO)
    answered_ago(unseen, answered, LONG_AGO)
    set_column(unseen, "library", answered, "artist_name", None)
    assert await by_content(due) == await by_time(due) == {}
    set_column(unseen, "library", never, "artist_name", "Stereolab")
    assert await by_content(due) == {never: Reason.NEVER}


async def test_deleted_row_is_not_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    row = add_release(unseen)
    await answer(row)
    ask_at(unseen, row, -LONG_AGO)
    delete_release(unseen, row)
    assert await by_content(due) == await by_time(due) == {}


async def test_row_with_a_change_in_the_outbox_is_left_to_it(
    db: Connection, unseen: Connection, due: PostgresDue
) -> None:
    add_release(db)
    other = add_release(unseen)
    db.execute("INSERT INTO listener.change (stream, row_id) VALUES ('rotation', %s)", (other,))
    assert await by_content(due) == {other: Reason.NEVER}


class Ledger(Enum):
    """What the ledger says about a row."""

    NOTHING = auto()
    SINGLE_ARTIST = auto()
    SINGLE_ARTIST_SAYS_LML_MANUAL = auto()
    VISITED_COMPILATION = auto()
    COMPILATION = auto()
    UNRESOLVED = auto()
    FAILED = auto()
    FAILED_SINCE_SINGLE_ARTIST = auto()
    FAILED_SINCE_UNRESOLVED = auto()
    PARKED = auto()
    REQUEUED = auto()


FAILING = {
    Ledger.FAILED,
    Ledger.FAILED_SINCE_SINGLE_ARTIST,
    Ledger.FAILED_SINCE_UNRESOLVED,
    Ledger.PARKED,
}
OUTCOMES = {
    Ledger.SINGLE_ARTIST: "single_artist",
    Ledger.SINGLE_ARTIST_SAYS_LML_MANUAL: "single_artist",
    Ledger.FAILED_SINCE_SINGLE_ARTIST: "single_artist",
    Ledger.VISITED_COMPILATION: "visited_compilation",
    Ledger.COMPILATION: "compilation",
    Ledger.UNRESOLVED: "unresolved",
    Ledger.FAILED_SINCE_UNRESOLVED: "unresolved",
}


class Known(Enum):
    """What the identity table says about a row: when it was verified, and how."""

    NOTHING = None
    FRESH = (LATELY, "exact_match", "consumer:lml-bulk")
    STALE = (LONG_AGO, "exact_match", "consumer:lml-bulk")
    STALE_MANUAL = (LONG_AGO, "manual", None)
    STALE_MANUAL_BY_US = (LONG_AGO, "manual", "consumer:lml-bulk")


@dataclass(frozen=True, slots=True)
class State:
    """All that decides whether a row with an artist name is due."""

    ledger: Ledger
    age: timedelta
    time_came: bool
    identity: Known
    changed: bool
    waiting: bool

    @property
    def waits_its_time(self) -> bool:
        """Whether it failed at what it asks now, and is not to be tried again yet."""
        return self.ledger in FAILING and not self.time_came and not self.changed

    @property
    def known_from_before(self) -> bool:
        """Whether somebody resolved it before the listener was installed, not long ago."""
        return self.ledger is Ledger.NOTHING and self.identity is Known.FRESH

    @property
    def left_to_the_outbox(self) -> bool:
        """Whether a change will have it asked, and the ledger's time says nothing."""
        timed = self.ledger is not Ledger.NOTHING and self.time_came
        return self.waiting and not timed


async def test_rows_are_due_exactly_if_they_would_be_asked(pool: Pool, unseen: Connection) -> None:
    ask_again = AskAgain(resolved=timedelta(days=7), unresolved=timedelta(days=14))
    ages = [timedelta(), timedelta(days=10), timedelta(days=20)]
    states = _insert_states(
        unseen, itertools.product(Ledger, ages, [True, False], Known, [True, False], [True, False])
    )
    due, library = PostgresDue(pool, BACKEND, ask_again), PostgresLibrary(pool, BACKEND, ask_again)
    found = {row.library_id for row in await rows_of(due.by_time(EVERYTHING))}
    found |= {row.library_id for row in await rows_of(due.by_content(EVERYTHING))}
    found |= {row.library_id for row in await rows_of(due.failed(EVERYTHING))}
    asking = await library.read(list(states))
    asked = {question.library_id for question in asking.questions}
    only_if_changed = {
        row for row, state in states.items() if state.waits_its_time or state.known_from_before
    }
    assert only_if_changed <= asked
    left = {row for row, state in states.items() if state.left_to_the_outbox}
    exempt = only_if_changed | left
    differing = (asked - exempt) ^ found
    assert {row: states[row] for row in differing} == {}
    assert 0 < len(found) < len(asked) < len(states)


def _insert_states(db: Connection, combinations: Iterator[tuple[Any, ...]]) -> dict[int, State]:
    states = {number: State(*parts) for number, parts in enumerate(combinations, start=1)}
    _insert_library(db, len(states))
    with db.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                "INSERT INTO listener.ledger (library_id, question, ask_order, outcome,"
                " answered_at, next_ask_at, failures, parked, failed_at, failing_since,"
                " lml_manual) SELECT id, CASE WHEN %s"
                " THEN 'another' ELSE listener.question_digest(artist_name, album_title,"
                " legacy_release_id, false) END, 0, %s, now() - %s::interval,"
                " now() + %s::interval, %s, %s, now(), now(), %s FROM {} WHERE id = %s"
            ).format(table("library")),
            [_ledger_row(row, s) for row, s in states.items() if s.ledger is not Ledger.NOTHING],
        )
        cursor.executemany(
            sql.SQL(
                "INSERT INTO {} (library_id, last_verified_at, method, confidence, notes)"
                " VALUES (%s, now() - %s, %s, 1, %s)"
            ).format(table("library_identity")),
            [(row, *s.identity.value) for row, s in states.items() if s.identity.value],
        )
        cursor.executemany(
            "INSERT INTO listener.change (stream, row_id) VALUES ('library', %s)",
            [(row,) for row, state in states.items() if state.waiting],
        )
    return states


def _ledger_row(row: int, state: State) -> tuple[object, ...]:
    outcome = OUTCOMES.get(state.ledger)
    wait = timedelta(hours=-1 if state.time_came else 1)
    return (
        state.changed,
        outcome,
        state.age if outcome else None,
        wait,
        1 if state.ledger in FAILING else 0,
        state.ledger is Ledger.PARKED,
        ["identity"] if state.ledger is Ledger.SINGLE_ARTIST_SAYS_LML_MANUAL else [],
        row,
    )


@pytest.mark.parametrize("answered", [False, True])
async def test_scope_leaves_rows_out(
    unseen: Connection, due: PostgresDue, answer: Answers, answered: bool
) -> None:
    search = by_time if answered else by_content
    first, second, third = (add_release(unseen) for _ in range(3))
    set_column(unseen, "library", second, "canonical_entity_id", "entity")
    if answered:
        await answer(first, second, third)
        unseen.execute("UPDATE listener.ledger SET next_ask_at = now()")
    assert set(await search(due)) == {first, second, third}
    assert set(await search(due, Scope(include_null_canonical=False))) == {second}
    assert set(await search(due, Scope(since_id=second))) == {second, third}
    assert set(await search(due, Scope(since_id=third + 1))) == set()


async def test_row_that_failed_is_found_by_its_time_whatever_its_entity(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    failing, other = add_release(unseen), add_release(unseen)
    await answer(failing, other)
    unseen.execute(
        "UPDATE listener.ledger SET next_ask_at = now(), failures = (library_id = %s)::int",
        (failing,),
    )
    scope = Scope(include_null_canonical=False)
    assert await failed(due, scope) == {failing: Reason.FAILED}
    assert await by_time(due, scope) == await by_content(due, scope) == {}


async def test_rows_that_both_searches_could_find_are_found_only_by_time(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    never, stale, gone, changed = (add_release(unseen) for _ in range(4))
    await answer(stale, gone, changed)
    unseen.execute(
        sql.SQL("DELETE FROM {} WHERE library_id = %s").format(table("library_identity")), (gone,)
    )
    set_column(unseen, "library", changed, "artist_name", "Broadcast")
    answered_ago(unseen, stale, LONG_AGO)
    reasons = {stale: Reason.RESOLVED, gone: Reason.RESOLVED, changed: Reason.CHANGED}
    assert await by_content(due) == {never: Reason.NEVER} | reasons
    for row in reasons:
        ask_at(unseen, row, -LATELY)
    assert await by_time(due) == reasons
    assert await by_content(due) == {never: Reason.NEVER}


async def test_change_in_the_outbox_does_not_count_as_missed_although_the_row_is_due(
    unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    missed, waiting = add_release(unseen), add_release(unseen)
    await answer(missed, waiting)
    for row in (missed, waiting):
        set_column(unseen, "library", row, "artist_name", "Broadcast")
        ask_at(unseen, row, -LATELY)
    unseen.execute(
        "INSERT INTO listener.change (stream, row_id) VALUES ('library', %s)", (waiting,)
    )
    assert await by_time(due) == {missed: Reason.CHANGED, waiting: Reason.RESOLVED}


@pytest.mark.parametrize("search", [by_time, by_content])
async def test_only_some_reasons_are_looked_for(
    unseen: Connection,
    due: PostgresDue,
    answer: Answers,
    search: Callable[[PostgresDue, Scope], Any],
) -> None:
    single, unresolved, changed, _never = (add_release(unseen) for _ in range(4))
    await answer(single, changed)
    await answer(unresolved, kind=Kind.UNRESOLVED)
    set_column(unseen, "library", changed, "artist_name", "Broadcast")
    for row in (single, unresolved):
        answered_ago(unseen, row, LONG_AGO)
        if search is by_time:
            ask_at(unseen, row, -LATELY)
    everything = await search(due, EVERYTHING)
    assert len(everything) == (2 if search is by_time else 4)
    for reason in Reason:
        wanted = {row: why for row, why in everything.items() if why is reason}
        assert await search(due, Scope(only=frozenset((reason,)))) == wanted


@pytest.mark.parametrize("answered", [False, True])
async def test_shares_are_disjoint_and_complete(
    unseen: Connection, due: PostgresDue, answer: Answers, answered: bool
) -> None:
    rows = [add_release(unseen) for _ in range(10)]
    if answered:
        await answer(*rows)
        unseen.execute("UPDATE listener.ledger SET next_ask_at = now()")
    search = by_time if answered else by_content
    shares = [set(await search(due, Scope(partition=part, partitions=3))) for part in range(3)]
    assert sorted(row for share in shares for row in share) == rows
    assert all(len(share) in {3, 4} for share in shares)


async def test_longest_due_come_first_across_batches(
    monkeypatch: pytest.MonkeyPatch, unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    monkeypatch.setattr(searches, "_BATCH", 3)
    rows = [add_release(unseen) for _ in range(9)]
    await answer(*rows)
    # Two at each time, so that batches end between rows of the same time, too.
    hours = {row: (number * 7) % 5 for number, row in enumerate(rows)}
    unseen.execute("BEGIN")
    for row, ago in hours.items():
        ask_at(unseen, row, -timedelta(hours=ago))
    unseen.execute("COMMIT")
    batches = [[row.library_id for row in batch] async for batch in due.by_time(EVERYTHING)]
    # The last one are those that gained credits.
    assert [len(batch) for batch in batches] == [3, 3, 3, 0, 0]
    assert [row for batch in batches for row in batch] == sorted(
        rows, key=lambda row: (-hours[row], row)
    )


@pytest.mark.parametrize("search", [by_time, by_content])
async def test_search_continues_after_a_batch_of_rows_out_of_scope(
    monkeypatch: pytest.MonkeyPatch,
    unseen: Connection,
    due: PostgresDue,
    answer: Answers,
    search: Callable[[PostgresDue], Any],
) -> None:
    monkeypatch.setattr(searches, "_BATCH", 2)
    monkeypatch.setattr(searches, "_WINDOW", 2)
    nameless = [add_release(unseen) for _ in range(4)]
    last = add_release(unseen)
    await answer(*nameless, last)
    answered_ago(unseen, last, LONG_AGO)
    if search is by_time:
        for row in (*nameless, last):
            ask_at(unseen, row, -LONG_AGO)
    for row in nameless:
        set_column(unseen, "library", row, "artist_name", None)
    assert await search(due) == {last: Reason.RESOLVED}


async def test_every_row_is_looked_at_in_windows(
    monkeypatch: pytest.MonkeyPatch, unseen: Connection, due: PostgresDue
) -> None:
    monkeypatch.setattr(searches, "_WINDOW", 3)
    rows = [add_release(unseen) for _ in range(12)]
    for row in (rows[0], rows[4], rows[5], rows[11]):
        delete_release(unseen, row)
    windows = [[row.library_id for row in found] async for found in due.by_content(EVERYTHING)]
    assert windows == [rows[1:4], rows[6:9], rows[9:11], []]


async def test_row_that_becomes_due_during_the_search_is_left_to_the_next(
    monkeypatch: pytest.MonkeyPatch, unseen: Connection, due: PostgresDue, answer: Answers
) -> None:
    monkeypatch.setattr(searches, "_BATCH", 1)
    first, second, third = (add_release(unseen) for _ in range(3))
    await answer(first, second, third)
    for row in (first, second):
        ask_at(unseen, row, -LATELY)
    found = []
    async for batch in due.by_time(EVERYTHING):
        found += [row.library_id for row in batch]
        # What was asked meanwhile and failed, for one.
        for row in (first, third):
            ask_at(unseen, row, timedelta())
    assert found == [first, second]


@pytest.mark.parametrize("answered", [False, True])
async def test_due_row_shows_whether_our_tables_call_it_a_compilation(
    unseen: Connection, due: PostgresDue, answer: Answers, answered: bool
) -> None:
    compilations = {
        add_release(unseen, code_volume_letters="Z-A"): True,
        add_release(unseen, code_volume_letters="Z"): True,
        add_release(unseen, code_volume_letters="A"): False,
        add_release(unseen, code_volume_letters="AZ"): False,
        add_release(unseen, code_volume_letters=None): False,
        (listed := add_release(unseen, code_volume_letters=None)): True,
    }
    unseen.execute(
        sql.SQL("INSERT INTO {} (library_id, artist_name) VALUES (%s, 'Nico')").format(
            table("compilation_track_artist")
        ),
        (listed,),
    )
    if answered:
        await answer(*compilations)
        unseen.execute("UPDATE listener.ledger SET next_ask_at = now()")
    search = due.by_time if answered else due.by_content
    found = {row.library_id: row.compilation for row in await rows_of(search(EVERYTHING))}
    assert found == compilations


LIBRARY_SIZE = 20_000
WINDOW = 2500
ANALYZED = ["never", "while empty", "now"]


@pytest.mark.parametrize("analyzed", ANALYZED)
async def test_cost_of_the_search_by_time_depends_only_on_due_rows(
    pool: Pool, unseen: Connection, analyzed: str
) -> None:
    _fill(unseen, analyzed)
    batch = {
        "until": datetime.now(tz=UTC),
        "after_time": "-infinity",
        "after_id": 0,
        "limit": 100,
    }
    nodes = await _plan(pool, "find_due_by_time", _scope_parameters() | batch)
    assert "ledger_next_ask" in {node.get("Index Name") for node in nodes}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    scanned = {table: max(reads) for table, reads in _reads(nodes).items()}
    assert scanned == {"ledger": 50, "library": 50}


@pytest.mark.parametrize("analyzed", ANALYZED)
async def test_cost_of_the_search_for_failures_depends_only_on_failures(
    pool: Pool, unseen: Connection, analyzed: str
) -> None:
    _fill_ledger(unseen, analyzed, rows=60_000, failing=30)
    batch: dict[str, Any] = {
        "least_suspect": 0,
        "most_suspect": 0,
        "until": datetime.now(tz=UTC),
        "after_time": "-infinity",
        "after_id": 0,
        "limit": 500,
    }
    nodes = await _plan(pool, "find_failed", _scope_parameters() | batch)
    assert "ledger_failing" in {node.get("Index Name") for node in nodes}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    # A third of those that failed are due, and half of these are no suspects.
    assert _reads(nodes) == {"ledger": [10], "library": [5]}


@pytest.mark.parametrize("analyzed", ANALYZED)
async def test_search_for_new_credits_reads_its_window(
    pool: Pool, unseen: Connection, analyzed: str
) -> None:
    if analyzed == "while empty":
        unseen.execute("VACUUM ANALYZE")
    _insert_library(unseen, 1_000)
    unseen.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, artist_name, track_title) SELECT 1 + i / 50, 'Can', i"
            " FROM generate_series(1, 40000) AS i"
        ).format(table("compilation_track_artist"))
    )
    unseen.execute(
        sql.SQL(
            "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
            " next_ask_at, last_credit) SELECT id, '', 0, 'compilation', now(), now() +"
            " interval '1 h', 50 * id - 1 - id % 2 FROM {}"
        ).format(table("library"))
    )
    if analyzed == "now":
        unseen.execute("ANALYZE")
    window = {"after": 10_000, "window": WINDOW}
    nodes = await _plan(pool, "find_credited", _scope_parameters() | window)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert max(map(_rows_read, nodes)) <= WINDOW
    # Each release of the window, and of those that are due all credits.
    assert max(_reads(nodes)["ledger"]) <= 2 * (WINDOW // 50 + 2)


@pytest.mark.parametrize("analyzed", ANALYZED)
async def test_search_by_content_reads_each_table_within_its_window(
    pool: Pool, unseen: Connection, analyzed: str
) -> None:
    _fill(unseen, analyzed)
    nodes = await _plan(pool, "find_due_by_content", _content_parameters(after=10_000))
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    reads = _reads(nodes)
    assert max(reads["library"] + reads["ledger"] + reads["library_identity"]) == WINDOW
    for node in nodes:
        # The first look at library finds the window's end, and is bounded by a LIMIT instead.
        if node.get("Relation Name") in reads and node.get("Alias") != "l":
            condition = node.get("Index Cond") or node["Recheck Cond"]
            assert "> $" in condition
            assert "<= " in condition


@pytest.mark.parametrize("outbox", ["analyzed", "analyzed while drained"])
async def test_search_by_content_stays_linear_however_much_waits_in_the_outbox(
    pool: Pool, unseen: Connection, outbox: str
) -> None:
    _fill(unseen, "now", answered_from=WINDOW)
    if outbox == "analyzed while drained":
        _insert_changes(unseen, "rotation", 20_000)
        unseen.execute(
            "DELETE FROM listener.change WHERE seq < (SELECT max(seq) FROM listener.change)"
        )
        unseen.execute("VACUUM ANALYZE listener.change")
    _insert_changes(unseen, "library", 5_000)
    if outbox == "analyzed":
        unseen.execute("ANALYZE listener.change")
    nodes = await _plan(pool, "find_due_by_content", _content_parameters(after=0))
    assert max(map(_rows_read, nodes)) <= 5_000


def _insert_library(db: Connection, rows: int) -> None:
    db.execute(sql.SQL("INSERT INTO {} (artist_name) VALUES ('x')").format(table("artists")))
    db.execute(
        sql.SQL(
            "INSERT INTO {} (artist_id, artist_name, album_title)"
            " SELECT 1, 'Artist ' || i, 'Album ' || i FROM generate_series(1, %s) AS i"
        ).format(table("library")),
        (rows,),
    )


def _fill(db: Connection, analyzed: str, *, answered_from: int = 0) -> None:
    """Fill the library; of the answered rows 50 are due, and every 100th row was never asked."""
    if analyzed == "while empty":
        db.execute("VACUUM ANALYZE")
    _insert_library(db, LIBRARY_SIZE)
    db.execute(
        sql.SQL(
            "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
            " next_ask_at) SELECT id, listener.question_digest(artist_name, album_title,"
            " legacy_release_id, false), 0, CASE id %% 2 WHEN 0 THEN 'single_artist' ELSE"
            " 'unresolved' END, now(), now() + CASE id %% 400 WHEN 1 THEN '-1 h' ELSE '1 h' END"
            " ::interval FROM {} WHERE id %% 100 <> 0 AND id > %s"
        ).format(table("library")),
        (answered_from,),
    )
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, last_verified_at, method, confidence)"
            " SELECT library_id, now(), 'exact_match', 1 FROM listener.ledger"
            " WHERE outcome = 'single_artist'"
        ).format(table("library_identity"))
    )
    if analyzed == "now":
        db.execute("ANALYZE")


def _fill_ledger(db: Connection, analyzed: str, *, rows: int, failing: int) -> None:
    """Fill library and ledger; a few rows failed, a third of them due, half of them suspects."""
    if analyzed == "while empty":
        db.execute("VACUUM ANALYZE")
    _insert_library(db, rows)
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
        " next_ask_at, failures, suspicion) SELECT i, '', 0, 'unresolved', now(), now() +"
        " CASE WHEN i <= %(failing)s AND i %% 3 <> 0 THEN '1 h' ELSE '-1 h' END::interval,"
        " (i <= %(failing)s)::int, (i <= %(failing)s)::int * (i %% 2)"
        " FROM generate_series(1, %(rows)s) AS i",
        {"rows": rows, "failing": failing},
    )
    if analyzed == "now":
        db.execute("ANALYZE")


def _insert_changes(db: Connection, stream: str, rows: int) -> None:
    db.execute(
        "INSERT INTO listener.change (stream, row_id)"
        " SELECT %s, i FROM generate_series(%s, 1, -1) AS i",
        (stream, rows),
    )


def _scope_parameters() -> dict[str, Any]:
    return {"since_id": 0, "partition": 0, "partitions": 1, "include_null_canonical": True}


def _content_parameters(after: int) -> dict[str, Any]:
    window = {"after": after, "window": WINDOW}
    return _scope_parameters() | times_of(ASK_AGAIN) | window


_TYPES = {bool: "boolean", int: "bigint", timedelta: "interval"}


async def _plan(pool: Pool, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a statement as the listener does; return the nodes of its plan."""
    names = list(parameters)
    text = query(name, BACKEND).decode()
    text = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", text)
    types = ", ".join(_TYPES.get(type(parameters[name]), "timestamptz") for name in names)
    async with pool.connection() as connection:
        # Only by its name does a statement get the plan that the session's settings ask for:
        # parameters that EXPLAIN itself is given count as constants.
        await connection.execute(
            f"PREPARE searched ({types}) AS {text.replace('%%', '%')}".encode()
        )
        values = sql.SQL(", ").join(map(sql.Literal, parameters.values()))
        cursor = await connection.execute(
            sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE searched ({})").format(values)
        )
        row = await cursor.fetchone()
    assert row is not None
    return list(nodes_of(row[0][0]["Plan"]))


def _rows_read(node: dict[str, Any]) -> int:
    removed: float = sum(v for name, v in node.items() if name.startswith("Rows Removed by"))
    rows, loops = float(node["Actual Rows"]), int(node["Actual Loops"])
    return round((rows + removed) * loops)


def _reads(nodes: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Return how many rows of each table were read, for each time that it is scanned."""
    reads: dict[str, list[int]] = {}
    for node in nodes:
        name = node.get("Relation Name")
        if name in {"library", "ledger", "library_identity"}:
            reads.setdefault(name, []).append(_rows_read(node))
    return reads


def ask_at(db: Connection, row: int, wait: timedelta) -> None:
    db.execute(
        "UPDATE listener.ledger SET next_ask_at = now() + %s WHERE library_id = %s", (wait, row)
    )


def answered_ago(db: Connection, row: int, ago: timedelta) -> None:
    db.execute(
        "UPDATE listener.ledger SET answered_at = now() - %s WHERE library_id = %s", (ago, row)
    )


def verified_ago(db: Connection, row: int, ago: timedelta) -> None:
    db.execute(
        sql.SQL("UPDATE {} SET last_verified_at = now() - %s WHERE library_id = %s").format(
            table("library_identity")
        ),
        (ago, row),
    )


def move_identity(db: Connection, row: int, survivor: int) -> None:
    """Repoint the identity of a release to another one, as the backend does with doubles."""
    for statement in (
        "DELETE FROM {} WHERE library_id = %(to)s",
        "UPDATE {} SET library_id = %(to)s WHERE library_id = %(from)s",
    ):
        db.execute(
            sql.SQL(statement).format(table("library_identity")), {"from": row, "to": survivor}
        )


def set_clock_ahead(db: Connection, row: int) -> None:
    """Have a row look as if it had been asked a year from now."""
    db.execute(
        "UPDATE listener.ledger SET answered_at = answered_at + interval '1 year',"
        " next_ask_at = next_ask_at + interval '1 year', failed_at = failed_at + interval '1 year'"
        " WHERE library_id = %s",
        (row,),
    )
    verified_ago(db, row, timedelta(days=-365))
    db.execute(
        sql.SQL(
            "UPDATE listener.ledger AS g SET identity_verified_at = i.last_verified_at"
            " FROM {} AS i WHERE i.library_id = g.library_id AND g.library_id = %s"
        ).format(table("library_identity")),
        (row,),
    )


def add_credit(db: Connection, row: int, title: str) -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, artist_name, track_title) VALUES (%s, 'X', %s)"
        ).format(table("compilation_track_artist")),
        (row, title),
    )
