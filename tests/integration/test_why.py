"""The story of one row, against rows made for it and against the searches themselves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from psycopg import sql

from listener.adapters.postgres.connection import Database, Pool
from listener.adapters.postgres.library import PostgresDue, PostgresLibrary
from listener.adapters.postgres.outbox import LaneTimes, PostgresLanes
from listener.adapters.postgres.sessions import Connection as Session
from listener.adapters.postgres.story import Release, Story, read_story
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.app.story import lines_of
from listener.domain.change import Stream
from listener.domain.due import AskAgain, Scope
from listener.domain.retrying import Failure, Retry
from listener.domain.tally import Skip
from listener.domain.tracks import Credit, Tracks, gather
from listener.domain.verdict import Identity, Kind, Provenance, Verdict, VerdictBatch
from tests.catalogue import add_release, delete_release, rename, set_column, table
from tests.conftest import BACKEND, Connection
from tests.database import look

# Different ones, so that a mix-up shows.
ASK_AGAIN = AskAgain(resolved=timedelta(days=7), unresolved=timedelta(days=3))


def story_of(dsn: str, row: int, *, include_null_canonical: bool = True) -> Story:
    return look(
        dsn, BACKEND, read_story, row, ASK_AGAIN, include_null_canonical=include_null_canonical
    )


def text_of(story: Story) -> str:
    return "\n".join(f"{label}: {line}" for label, line in lines_of(story))


def settle_all(db: Connection) -> None:
    db.execute("DELETE FROM listener.change")


def add_identity(db: Connection, row: int, method: str, notes: str | None, days: float = 0) -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, method, confidence, notes, last_verified_at)"
            " VALUES (%s, %s, 0.5, %s, now() - %s::interval)"
        ).format(table("library_identity")),
        (row, method, notes, timedelta(days=days)),
    )


def identity(method: str = "exact") -> Identity:
    evidence = (
        Provenance("discogs", method, 0.8, "d-1"),
        Provenance("wikidata", "link", 0.7, "Q9"),
    )
    return Identity(method, 0.9, "Q9", None, "apple-1", evidence)


async def answer(
    library: PostgresLibrary, verdicts: PostgresVerdicts, row: int, found: Identity | None
) -> None:
    asking = await library.read([row])
    kind = Kind.UNRESOLVED if found is None else Kind.SINGLE_ARTIST
    questions = {question.library_id: question for question in asking.questions}
    verdict = Verdict(row, kind, found)
    written = await verdicts.write(VerdictBatch(asking.order, questions, [verdict], []))
    assert written.rows == {row}


async def fail(
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
    row: int,
    wait: timedelta,
    *,
    parked: bool = False,
) -> None:
    asking = await library.read([row])
    (question,) = asking.questions
    retry = Retry(3, wait, parked)
    failure = Failure(row, question.digest, Skip.INVALID, "no kind", retry)
    await verdicts.fail(asking.order, [failure], [])


def test_missing_row_is_reported(db: Connection, dsn: str) -> None:
    row = add_release(db)
    delete_release(db, row)
    story = story_of(dsn, row)
    assert (story.release, story.answer, story.identity) == (None, None, None)
    assert story.next_asking is None
    assert story.changes.waiting == 1
    assert "next: nothing: no such row" in text_of(story)


def test_row_without_an_artist_name_is_never_asked(db: Connection, dsn: str) -> None:
    row = add_release(db, None, "Dots and Loops", "Za")
    settle_all(db)
    story = story_of(dsn, row)
    assert story.release == Release(None, "Dots and Loops", "Za")
    assert story.next_asking is None
    assert "next: nothing, until it has an artist name" in text_of(story)


async def test_changes_are_left_to_the_daemon_that_follows(
    db: Connection, dsn: str, database: Database
) -> None:
    row, other = add_release(db), add_release(db)
    rename(db, row, "Broadcast")
    rename(db, other, "Broadcast")
    first, last = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    for seq, at in ((1, first), (3, last)):
        db.execute("UPDATE listener.change SET changed_at = %s WHERE seq = %s", (at, seq))
    async with PostgresLanes(database, LaneTimes()).hold(Stream.LIBRARY):
        story = story_of(dsn, row)
    changes = story.changes
    assert (changes.waiting, changes.first_at, changes.last_at) == (2, first, last)
    assert (changes.holder, changes.holder_alive) == ("listener test", True)
    assert story.next_asking is None
    assert "2 in the outbox, the first recorded 2026-03-01 00:00:00 UTC" in text_of(story)
    assert "listener test follows the library" in text_of(story)
    assert "next: asked when its change is read" in text_of(story)
    assert "no daemon follows the library" in text_of(story_of(dsn, row))


async def test_answer_to_another_question_is_reported(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await answer(library, verdicts, row, None)
    settle_all(db)
    before = story_of(dsn, row)
    assert before.answer is not None
    assert (before.answer.outcome, before.answer.same_question) == ("unresolved", True)
    assert before.next_asking is not None
    assert not before.next_asking.due
    assert before.answer.answered_at is not None
    assert before.next_asking.due_at == before.answer.answered_at + timedelta(days=3)
    assert "the row has not changed since it was last asked about" in text_of(before)

    rename(db, row, "Broadcast")
    settle_all(db)
    after = story_of(dsn, row)
    assert after.answer is not None
    assert not after.answer.same_question
    assert after.next_asking is not None
    assert (after.next_asking.job, after.next_asking.reason) == ("audit", "changed")
    assert "due now: the row changed since LML was asked" in text_of(after)


async def test_failures_are_reported_with_what_comes_next(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    settle_all(db)
    await fail(library, verdicts, row, timedelta(hours=1))
    story = story_of(dsn, row)
    assert story.answer is not None
    assert (story.answer.outcome, story.answer.failures, story.answer.failure) == (
        None,
        3,
        "lml_invalid",
    )
    assert (story.answer.failure_detail, story.answer.parked) == ("no kind", False)
    assert story.next_asking is not None
    assert (story.next_asking.job, story.next_asking.reason) == ("retry", "failed")
    assert story.next_asking.due_at == story.answer.next_ask_at
    assert not story.next_asking.due
    assert story.next_asking.next_at is None
    assert "failures: 3 in a row" in text_of(story)
    assert re.search(r"next attempt .* \(in \d+ min\)", text_of(story))
    who = "the daemon that follows the library will ask, or a sweep"
    due = r"next: due .* \(in \d+ min\)"
    assert re.search(f"{due}: the last attempt failed; {who}", text_of(story))

    await fail(library, verdicts, row, timedelta(days=7), parked=True)
    parked = story_of(dsn, row)
    assert parked.answer is not None
    assert parked.answer.failed_at is not None
    assert parked.answer.parked
    assert parked.answer.next_ask_at == parked.answer.failed_at + timedelta(days=7)
    assert parked.next_asking is not None
    assert parked.next_asking.due_at == parked.answer.next_ask_at
    text = text_of(parked)
    assert f"parked until the row or LML changes, or until `listener requeue {row}`" in text
    assert re.search(r"next attempt .* \(in \d+ \w+\)", text)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    assert f"next: due now: the last attempt failed; {who}" in text_of(story_of(dsn, row))


async def test_answer_before_a_failure_does_not_count_as_that_to_the_last_question(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await answer(library, verdicts, row, None)
    assert "later attempts failed" not in text_of(story_of(dsn, row))
    rename(db, row, "Broadcast")
    await fail(library, verdicts, row, timedelta(hours=1))
    text = text_of(story_of(dsn, row))
    assert re.search(r"asked: last answered .+: unresolved\n", text)
    assert "later attempts failed, so this answer may be to an older question" in text
    assert "the row has not changed since it was last asked about" in text

    await answer(library, verdicts, row, None)
    assert "later attempts failed" not in text_of(story_of(dsn, row))


async def test_row_out_of_scope_is_shown_as_such(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    outside, inside = add_release(db), add_release(db)
    set_column(db, "library", inside, "canonical_entity_id", "entity")
    waiting = story_of(dsn, outside, include_null_canonical=False)
    assert "next: asked when its change is read" in text_of(waiting)
    settle_all(db)
    story = story_of(dsn, outside, include_null_canonical=False)
    assert story.next_asking is None
    assert "next: no search: out of scope" in text_of(story)
    assert "INCLUDE_NULL_CANONICAL is false" in text_of(story)
    for other in (story_of(dsn, inside, include_null_canonical=False), story_of(dsn, outside)):
        assert other.next_asking is not None
        assert "next: due now: LML was never asked about it" in text_of(other)


async def test_failed_row_is_searched_for_although_it_is_out_of_scope(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await fail(library, verdicts, row, timedelta(minutes=15))
    settle_all(db)
    text = text_of(story_of(dsn, row, include_null_canonical=False))
    assert re.search(r"next: .*the last attempt failed", text)


async def test_parked_row_out_of_scope_is_shown_with_what_would_help(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await fail(library, verdicts, row, timedelta(days=7), parked=True)
    settle_all(db)
    rename(db, row, "Broadcast")
    settle_all(db)
    # A search by content would find that it changed, were it in scope.
    changed = text_of(story_of(dsn, row, include_null_canonical=False))
    assert f"or until `listener requeue {row}`" in changed
    assert re.search(r"next: due .* \(in \d+ \w+\): the last attempt failed", changed)
    assert "next: due now: the row changed since" in text_of(story_of(dsn, row))
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    assert "next: due now: the last attempt failed" in text_of(story_of(dsn, row))


async def test_our_identity_is_distinguished_from_others(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, source, external_id, method, confidence, last_verified_at)"
            " VALUES (%s, 'bandcamp', 'b-1', 'manual', 1, now())"
        ).format(table("library_identity_source")),
        (row,),
    )
    await answer(library, verdicts, row, identity())
    story = story_of(dsn, row)
    assert story.identity is not None
    assert (story.identity.method, story.identity.ours, story.identity.kept) == (
        "exact",
        True,
        False,
    )
    assert (story.identity.wikidata_qid, story.identity.apple_music_id) == ("Q9", "apple-1")
    assert story.identity.confidence == pytest.approx(0.9, abs=1e-6)
    assert [(s.source, s.external_id, s.ours, s.kept) for s in story.sources] == [
        ("bandcamp", "b-1", False, True),
        ("discogs", "d-1", True, False),
        ("wikidata", "Q9", True, False),
    ]
    assert "written by us; wikidata Q9, apple music apple-1" in text_of(story)
    assert "person's work" not in text_of(story).split("bandcamp")[0]


@pytest.mark.parametrize("notes", [None, "consumer:lml-bulk"])
async def test_persons_identity_is_shown_as_kept(
    db: Connection,
    dsn: str,
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
    notes: str | None,
) -> None:
    row = add_release(db)
    settle_all(db)
    add_identity(db, row, "manual", notes, days=1)
    await answer(library, verdicts, row, identity())
    story = story_of(dsn, row)
    assert story.identity is not None
    # The writer left it, and the story says so.
    assert (story.identity.method, story.identity.wikidata_qid) == ("manual", None)
    assert (story.identity.kept, story.identity.ours) == (True, notes is not None)
    assert "a person's work: LML's verdict did not replace it" in text_of(story)
    assert story.next_asking is not None
    assert story.answer is not None
    assert story.answer.answered_at is not None
    assert story.next_asking.due_at == story.answer.answered_at + timedelta(days=7)


async def test_manual_of_lml_itself_is_not_a_persons_work(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await answer(library, verdicts, row, identity("manual"))
    story = story_of(dsn, row)
    assert story.identity is not None
    assert (story.identity.method, story.identity.kept) == ("manual", False)
    assert not any(source.kept for source in story.sources)
    assert "person's work" not in text_of(story)


async def test_compilation_shows_what_became_of_its_tracks(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db, "Various Artists", "A Sampler", "Z-A")
    settle_all(db)
    db.execute(
        sql.SQL("INSERT INTO {} (library_id, artist_name) VALUES (%s, 'Stereolab')").format(
            table("compilation_track_artist")
        ),
        (row,),
    )
    add_release(db, "Stereolab")
    asking = await library.read([row])
    keys = [
        Credit(name, None, None, resolved, 0.9)
        for name, resolved in (("Stereolab", "stereolab"), ("Low", "Low"), ("Can", None))
    ]
    questions = {question.library_id: question for question in asking.questions}
    found = Verdict(row, Kind.COMPILATION, tracks=Tracks(gather(keys)))
    await verdicts.write(VerdictBatch(asking.order, questions, [found], []))
    story = story_of(dsn, row)
    assert story.answer is not None
    assert story.answer.tracks == {
        "credits": 3,
        "linked": 1,
        "librarian": 0,
        "no_resolved_artist": 0,
        "no_catalog_artist": 0,
        "no_cta_match": 2,
    }
    text = text_of(story)
    assert ": visited compilation\n" in text
    assert "tracks: 1 of 3 credits linked to an artist; 2 match no row of the backend" in text
    assert "its identity needs to be verified again" in text


async def test_compilation_visited_without_credits_is_explained(
    db: Connection, dsn: str, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db, "Various Artists", "A Sampler", "Z-A")
    asking = await library.read([row])
    questions = {question.library_id: question for question in asking.questions}
    found = Verdict(row, Kind.COMPILATION, tracks=Tracks())
    await verdicts.write(VerdictBatch(asking.order, questions, [found], []))
    assert "tracks: LML visited them and found no credits" in text_of(story_of(dsn, row))


def test_terminal_control_characters_of_a_row_are_escaped(db: Connection, dsn: str) -> None:
    text = text_of(story_of(dsn, add_release(db, "Sigur Rós \x1b[2J\x9b5n", "()\r\nrow 1")))
    assert "Sigur Rós \\x1b[2J\\x9b5n" in text
    assert "()\\r\\nrow 1" in text


def make_every_kind(db: Connection) -> dict[int, str]:
    """Make rows in all the states that decide when they are due; returns them with a name."""
    outcomes = ((None, None), ("single_artist", 1), ("single_artist", 8), ("unresolved", 1))
    answers = (*outcomes, ("compilation", 4), ("visited_compilation", 4))
    trouble = ((0, 2), (0, -1), (2, 2), (2, -1), (8, 6), (8, -1))
    identities = (
        None,
        ("exact", "consumer:lml-bulk", 1),
        ("exact", None, 9),
        ("manual", None, 9),
        ("manual", "consumer:lml-bulk", 9),
    )
    kinds = product(answers, trouble, (True, False), identities, ([], ["identity"]))
    rows = {}
    for kind in kinds:
        (outcome, days), (failures, next_days), same, standing, manual = kind
        if outcome is None and not failures and next_days == 2:
            continue
        rows[row := add_release(db)] = repr(kind)
        db.execute(
            sql.SQL(
                "INSERT INTO listener.ledger (library_id, question, ask_order, outcome,"
                " answered_at, failures, parked, next_ask_at, lml_manual) SELECT id,"
                " CASE WHEN %s THEN listener.question_digest(artist_name, album_title,"
                " legacy_release_id, false) ELSE '' END, 1, %s, now() - %s::interval, %s, %s,"
                " now() + %s::interval, %s FROM {} WHERE id = %s"
            ).format(table("library")),
            (
                *(same, outcome, in_days(days), failures, failures == 8),
                *(timedelta(days=next_days), manual, row),
            ),
        )
        if standing is not None:
            add_identity(db, row, *standing)
    for standing in identities:
        rows[row := add_release(db)] = f"never asked, {standing}"
        if standing is not None:
            add_identity(db, row, *standing)
    settle_all(db)
    return rows


def in_days(days: float | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


async def searched(pool: Pool) -> dict[int, tuple[str, str]]:
    """Return what the searches find: job and reason of each row, the audit's last."""
    due = PostgresDue(pool, BACKEND, ASK_AGAIN)
    by_content = {
        r.library_id: ("audit", str(r.reason)) async for p in due.by_content(Scope()) for r in p
    }
    by_time = {
        r.library_id: ("sweep", str(r.reason)) async for p in due.by_time(Scope()) for r in p
    }
    failed = {r.library_id: ("retry", str(r.reason)) async for p in due.failed(Scope()) for r in p}
    assert not by_time.keys() & failed
    return by_content | by_time | failed


def stories(dsn: str, rows: dict[int, str]) -> dict[int, Story]:
    async def read(connection: Session, backend: str) -> dict[int, Story]:
        return {row: await read_story(connection, backend, row, ASK_AGAIN) for row in rows}

    return look(dsn, BACKEND, read)


async def test_why_reports_due_exactly_what_the_searches_find(
    db: Connection, dsn: str, pool: Pool
) -> None:
    rows = make_every_kind(db)
    found = await searched(pool)
    due = {
        row: (story.next_asking.job, story.next_asking.reason)
        for row, story in stories(dsn, rows).items()
        if story.next_asking is not None and story.next_asking.due
    }
    assert {rows[row]: due.get(row) for row in rows} == {rows[row]: found.get(row) for row in rows}
    assert 0 < len(found) < len(rows)


@pytest.mark.timeout(60)
async def test_shown_time_is_when_a_search_first_finds_the_row(
    db: Connection, dsn: str, pool: Pool
) -> None:
    rows = make_every_kind(db)
    waiting = {
        row: story.next_asking.due_at - story.at
        for row, story in stories(dsn, rows).items()
        if story.next_asking is not None and not story.next_asking.due
    }
    assert waiting
    minute = timedelta(minutes=1)
    age(db, {row: left - minute for row, left in waiting.items()})
    early = await searched(pool)
    assert [rows[row] for row in waiting if row in early] == []
    age(db, dict.fromkeys(waiting, 2 * minute))
    late = await searched(pool)
    assert [rows[row] for row in waiting if row not in late] == []


def age(db: Connection, rows: dict[int, timedelta]) -> None:
    """Let time go by for these rows."""
    statements = (
        sql.SQL(
            "UPDATE listener.ledger SET answered_at = answered_at - %(by)s,"
            " next_ask_at = next_ask_at - %(by)s WHERE library_id = %(row)s"
        ),
        sql.SQL(
            "UPDATE {} SET last_verified_at = last_verified_at - %(by)s WHERE library_id = %(row)s"
        ).format(table("library_identity")),
    )
    with db.cursor() as cursor:
        for statement in statements:
            cursor.executemany(statement, [{"by": by, "row": row} for row, by in rows.items()])
