"""What a verdict replaces is kept, what it contradicts is withdrawn, a person's work stays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from listener.adapters.postgres import sessions
from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.history import Restored, look_at_history, restore
from listener.adapters.postgres.installation import lagging_sequences
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.faults import StatementRefusedError, StoreRefusedError, StoreUnavailableError
from listener.domain.question import Asking
from listener.domain.verdict import Identity, Kind, Provenance, Verdict, VerdictBatch, Written
from tests.catalogue import (
    add_identity,
    add_release,
    delete_release,
    rename,
    rows_of,
    set_column,
    table,
)
from tests.conftest import BACKEND, Connection, as_role
from tests.database import look, on
from tests.integration.conftest import ASK_AGAIN, failure, until_it_waits_for_a_lock

OTHERS = [Kind.UNRESOLVED, Kind.COMPILATION]


def identity(wikidata: str = "Q1", *, method: str = "exact_match", more: float = 0) -> Identity:
    evidence = (Provenance("discogs", "exact_match", 0.8, "d-1"),)
    return Identity(method, 0.9 - more, wikidata, "spotify-1", None, evidence)


class Asked:
    """Has rows asked about again, and answered."""

    def __init__(
        self, db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
    ) -> None:
        self._db = db
        self._library = library
        self.verdicts = verdicts

    async def read(self, *rows: int) -> Asking:
        """Have these rows asked about, whether or not it is time."""
        self._db.execute("UPDATE listener.ledger SET next_ask_at = now()")
        return await self._library.read(rows)

    async def __call__(self, row: int, found: Identity | Kind) -> Written:
        """Ask about a row and write this answer."""
        return await self.write(await self.read(row), found)

    async def write(self, asking: Asking, found: Identity | Kind) -> Written:
        """Write this answer to all questions."""
        questions = {question.library_id: question for question in asking.questions}
        answers = [
            Verdict(row, found)
            if isinstance(found, Kind)
            else Verdict(row, Kind.SINGLE_ARTIST, found)
            for row in questions
        ]
        return await self.verdicts.write(VerdictBatch(asking.order, questions, answers, []))

    async def fail(self, row: int) -> None:
        """Ask about a row in vain."""
        asking = await self.read(row)
        await self.verdicts.fail(asking.order, [failure(asking.questions[0])], [])


@pytest.fixture
def asked(db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts) -> Asked:
    return Asked(db, library, verdicts)


def history(db: Connection) -> list[tuple[object, ...]]:
    return [
        (state["library_id"], state["wikidata_qid"], state["method"], state["superseded_reason"])
        for state in rows_of(db, "library_identity_history")
    ]


def standing(db: Connection) -> list[tuple[object, ...]]:
    return [(i["wikidata_qid"], i["method"], i["notes"]) for i in rows_of(db, "library_identity")]


OURS = "consumer:lml-bulk"


async def test_replaced_identity_is_kept_with_all_its_columns(db: Connection, asked: Asked) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    set_column(db, "library_identity", row, "discogs_release_id", 42)
    set_column(db, "library_identity", row, "agreement_sources", "discogs")
    (before,) = rows_of(db, "library_identity")
    assert await asked(row, identity("Q2")) == Written(frozenset((row,)))
    (kept,) = rows_of(db, "library_identity_history")
    for column in before.keys() - {"distinct_unresolved_sources"}:
        assert kept[column] == before[column], column
    assert kept["superseded_reason"] == "verdict_changed"
    assert standing(db) == [("Q2", "exact_match", OURS)]
    assert kept["superseded_at"] == rows_of(db, "library_identity")[0]["last_verified_at"]


@pytest.mark.parametrize(
    "found",
    [
        identity(method="llm"),
        replace(identity(), spotify_id=None),
        replace(identity(), apple_music_id="apple-1"),
        replace(identity(), wikidata_qid=None),
    ],
)
async def test_change_of_any_id_or_the_method_enters_the_history(
    db: Connection, asked: Asked, found: Identity
) -> None:
    row = add_release(db)
    await asked(row, identity())
    await asked(row, found)
    assert history(db) == [(row, "Q1", "exact_match", "verdict_changed")]


async def test_confidence_date_and_sources_alone_do_not_enter_the_history(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity())
    (before,) = rows_of(db, "library_identity")
    await asked(row, replace(identity(more=0.2), provenance=()))
    assert history(db) == []
    (after,) = rows_of(db, "library_identity")
    assert after["confidence"] == pytest.approx(0.7, abs=1e-6)
    assert after["last_verified_at"] > before["last_verified_at"]


async def test_renamed_row_with_another_identity_says_that_the_question_changed(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    await asked(row, identity("Q2"))
    assert history(db) == [(row, "Q1", "exact_match", "question_changed")]
    # What stands now answers the present question.
    await asked(row, identity("Q3"))
    assert history(db)[1:] == [(row, "Q2", "exact_match", "verdict_changed")]


async def test_renamed_row_with_the_same_identity_keeps_it(db: Connection, asked: Asked) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "The Stereolab")
    assert await asked(row, identity("Q1")) == Written(frozenset((row,)))
    assert history(db) == []
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)), unresolved_now=1)


@pytest.mark.parametrize("kind", OTHERS)
async def test_renamed_row_for_which_nothing_is_found_loses_its_identity(
    db: Connection, asked: Asked, kind: Kind
) -> None:
    row, other = add_release(db), add_release(db, "Nico")
    await asked(row, identity("Q1"))
    await asked(other, identity("Q7"))
    rename(db, row, "Broadcast")
    assert await asked(row, kind) == Written(frozenset((row,)), withdrawn=frozenset((row,)))
    assert history(db) == [(row, "Q1", "exact_match", "withdrawn")]
    assert [i["library_id"] for i in rows_of(db, "library_identity")] == [other]
    assert [s["library_id"] for s in rows_of(db, "library_identity_source")] == [other]
    # Nothing is left to withdraw, and the name that comes back is like a new one.
    assert await asked(row, kind) == Written(frozenset((row,)))
    rename(db, row, "Stereolab")
    assert await asked(row, identity("Q1")) == Written(frozenset((row,)))
    assert len(history(db)) == 1


async def test_failures_in_between_do_not_hide_that_the_question_changed(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    await asked.fail(row)
    rename(db, row, "Broadcast")
    await asked.fail(row)
    db.execute("UPDATE listener.ledger SET failures = 0")
    assert (await asked(row, Kind.UNRESOLVED)).withdrawn == {row}


async def test_reverted_rename_changes_nothing(db: Connection, asked: Asked) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    await asked.fail(row)
    rename(db, row, "Stereolab")
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)), unresolved_now=1)
    assert len(standing(db)) == 1


@pytest.mark.parametrize("kind", OTHERS)
async def test_same_question_without_an_answer_now_keeps_the_identity(
    db: Connection, asked: Asked, library: PostgresLibrary, kind: Kind
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    before = rows_of(db, "library_identity"), rows_of(db, "library_identity_source")
    assert await asked(row, kind) == Written(frozenset((row,)), unresolved_now=1)
    assert (rows_of(db, "library_identity"), rows_of(db, "library_identity_source")) == before
    assert history(db) == []
    assert (await library.read([row])).answered == {row}
    # The rename comes later: what stands still answers the first name.
    rename(db, row, "Broadcast")
    assert (await asked(row, kind)).withdrawn == {row}


async def test_withdrawal_can_be_switched_off_and_on_again(
    db: Connection, asked: Asked, pool: Pool
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    withdrawing = asked.verdicts
    asked.verdicts = PostgresVerdicts(pool, BACKEND, ASK_AGAIN, withdraw_on_change=False)
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)), unresolved_now=1)
    assert len(standing(db)) == 1
    asked.verdicts = withdrawing
    assert (await asked(row, Kind.UNRESOLVED)).withdrawn == {row}


@pytest.mark.parametrize(
    ("method", "notes"),
    [("manual", None), ("manual", OURS), ("manual", "seen"), ("exact_match", "seen by Jo")],
)
async def test_work_of_a_person_is_neither_overwritten_nor_withdrawn(
    db: Connection, asked: Asked, method: str, notes: str | None
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    set_column(db, "library_identity", row, "method", method)
    set_column(db, "library_identity", row, "notes", notes)
    before = rows_of(db, "library_identity")
    assert await asked(row, identity("Q2")) == Written(frozenset((row,)), kept=1)
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)))
    rename(db, row, "Broadcast")
    sources = rows_of(db, "library_identity_source")
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)), kept=1)
    assert rows_of(db, "library_identity_source") == sources
    assert await asked(row, identity("Q2")) == Written(frozenset((row,)), kept=1)
    assert rows_of(db, "library_identity") == before
    assert history(db) == []


async def test_source_with_notes_of_a_person_is_kept(db: Connection, asked: Asked) -> None:
    row = add_release(db)
    await asked(row, identity())
    db.execute(
        sql.SQL("UPDATE {} SET notes = 'by Jo', external_id = 'd-2'").format(
            table("library_identity_source")
        )
    )
    await asked(row, identity())
    await asked(row, replace(identity(), provenance=()))
    rename(db, row, "Broadcast")
    await asked(row, Kind.UNRESOLVED)
    (source,) = rows_of(db, "library_identity_source")
    assert (source["external_id"], source["notes"]) == ("d-2", "by Jo")


async def test_older_jobs_identity_is_replaced_but_not_withdrawn(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    add_identity(db, row, method="alias_match")
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)), unresolved_now=1)
    rename(db, row, "Broadcast")
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)), kept=1)
    assert standing(db) == [(None, "alias_match", None)]
    assert await asked(row, identity("Q2")) == Written(frozenset((row,)))
    assert history(db) == [(row, None, "alias_match", "question_changed")]
    assert standing(db) == [("Q2", "exact_match", OURS)]


RELEASE_LEVEL = {
    "discogs_master_id": 11,
    "discogs_release_id": 12,
    "musicbrainz_release_group_mbid": UUID(int=13),
    "musicbrainz_release_mbid": UUID(int=14),
    "musicbrainz_recording_mbid": UUID(int=15),
}


def release_level(state: dict[str, Any]) -> dict[str, object]:
    return {column: state[column] for column in RELEASE_LEVEL}


@pytest.mark.parametrize("found", ["Q1", "Q2"])
async def test_older_jobs_release_ids_do_not_survive_another_question(
    db: Connection, asked: Asked, found: str
) -> None:
    row = add_release(db)
    add_identity(db, row)
    for column, value in RELEASE_LEVEL.items():
        set_column(db, "library_identity", row, column, value)
    await asked(row, identity("Q1"))
    (state,) = rows_of(db, "library_identity")
    assert release_level(state) == RELEASE_LEVEL

    rename(db, row, "Broadcast")
    await asked(row, identity(found))

    (state,) = rows_of(db, "library_identity")
    assert (state["wikidata_qid"], state["notes"]) == (found, OURS)
    assert release_level(state) == dict.fromkeys(RELEASE_LEVEL)
    assert [reason for *_, reason in history(db)] == ["verdict_changed", "question_changed"]
    assert release_level(rows_of(db, "library_identity_history")[-1]) == RELEASE_LEVEL
    await asked(row, identity(found))
    assert len(history(db)) == 2


async def test_older_jobs_release_ids_survive_another_verdict(db: Connection, asked: Asked) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    set_column(db, "library_identity", row, "discogs_release_id", 12)
    await asked(row, identity("Q2"))
    (state,) = rows_of(db, "library_identity")
    assert (state["wikidata_qid"], state["discogs_release_id"]) == ("Q2", 12)


async def test_identity_that_lml_itself_called_manual_is_replaced_and_withdrawn(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1", method="manual"))
    await asked(row, identity("Q2", method="manual"))
    rename(db, row, "Broadcast")
    assert (await asked(row, Kind.UNRESOLVED)).withdrawn == {row}
    assert [state[1:] for state in history(db)] == [
        ("Q1", "manual", "verdict_changed"),
        ("Q2", "manual", "withdrawn"),
    ]


async def test_batch_of_all_kinds_at_once(
    db: Connection, asked: Asked, library: PostgresLibrary
) -> None:
    rows = [add_release(db, f"Artist {number}") for number in range(6)]
    new, same, other, renamed, gone, stays = rows
    for row in rows[1:]:
        await asked(row, identity("Q1"))
    for row in (renamed, gone):
        rename(db, row, "Broadcast")
    asking = await asked.read(*rows)
    found = {new: "Q1", same: "Q1", other: "Q2", renamed: "Q3"}
    answers = [
        Verdict(row, Kind.SINGLE_ARTIST, identity(found[row]))
        if row in found
        else Verdict(row, Kind.UNRESOLVED)
        for row in rows
    ]
    questions = {question.library_id: question for question in asking.questions}
    written = await asked.verdicts.write(VerdictBatch(asking.order, questions, answers, []))
    assert written == Written(
        frozenset(rows), withdrawn=frozenset((gone,)), kept=0, unresolved_now=1
    )
    assert [(state[0], state[3]) for state in history(db)] == [
        (other, "verdict_changed"),
        (renamed, "question_changed"),
        (gone, "withdrawn"),
    ]
    stand = {i["library_id"]: i["wikidata_qid"] for i in rows_of(db, "library_identity")}
    assert stand == {**found, stays: "Q1"}
    assert {s["library_id"] for s in rows_of(db, "library_identity_source")} == set(stand)


async def test_row_renamed_while_lml_thought_keeps_its_identity(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    asking = await asked.read(row)
    rename(db, row, "Nico")
    assert await asked.write(asking, Kind.UNRESOLVED) == Written(frozenset())
    assert (len(standing(db)), history(db)) == (1, [])
    # The same, answered late: the name came back, and the newer answer stands.
    await asked(row, identity("Q3"))
    rename(db, row, "Broadcast")
    assert await asked.write(asking, Kind.UNRESOLVED) == Written(frozenset())
    assert standing(db)[0][0] == "Q3"


async def test_answer_written_twice_leaves_one_history_entry(db: Connection, asked: Asked) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    asking = await asked.read(row)
    await asked.write(asking, identity("Q2"))
    assert await asked.write(asking, identity("Q2")) == Written(frozenset())
    assert len(history(db)) == 1


async def test_release_that_the_backend_deletes_is_not_waited_for(
    db: Connection, dsn: str, asked: Asked
) -> None:
    row, other = add_release(db), add_release(db)
    for each in (row, other):
        await asked(each, identity("Q1"))
        rename(db, each, "Broadcast")
    asking, again = await asked.read(row, other), await asked.read(other)
    with psycopg.connect(dsn) as backend:
        delete_release(backend, row)
        with pytest.raises(StatementRefusedError, match="lock timeout"):
            await asked.write(asking, Kind.UNRESOLVED)
        assert (await asked.write(again, Kind.UNRESOLVED)).withdrawn == {other}
    assert [state[0] for state in history(db)] == [other]
    assert (await asked.read(row)).gone == {row}


async def test_identity_that_the_backend_deleted_meanwhile_is_not_kept(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    asking = await asked.read(row)
    for name in ("library_identity_source", "library_identity"):
        db.execute(sql.SQL("DELETE FROM {}").format(table(name)))
    assert await asked.write(asking, Kind.UNRESOLVED) == Written(frozenset((row,)))
    assert history(db) == []


@pytest.fixture
def patient(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have locks waited for until the test has seen that they are."""
    name = sql.Identifier(db.info.dbname)
    db.execute(sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '75s'").format(name))
    monkeypatch.setattr(sessions, "_PATIENCE", timedelta(seconds=15))


async def write_while_somebody_writes(
    db: Connection,
    dsn: str,
    asked: Asked,
    rows: list[int],
    found: Identity | Kind,
    *,
    where: str = "library_identity",
    **change: str,
) -> Written:
    """Write an answer to all rows; before, the second one is changed and committed meanwhile."""
    asking = await asked.read(*rows)
    with psycopg.connect(dsn) as person:
        for column, value in change.items():
            set_column(person, where, rows[1], column, value)
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(asked.write(asking, found))
            await until_it_waits_for_a_lock(db)
            person.commit()
    return writing.result()


@pytest.mark.usefixtures("patient")
async def test_history_holds_the_identity_that_is_replaced(
    db: Connection, dsn: str, asked: Asked
) -> None:
    rows = [add_release(db) for _ in range(3)]
    for row in rows:
        await asked(row, identity("Q1"))
    written = await write_while_somebody_writes(
        db, dsn, asked, rows, identity("Q1"), wikidata_qid="Q42"
    )
    assert written == Written(frozenset(rows))
    assert history(db) == [(rows[1], "Q42", "exact_match", "verdict_changed")]
    written = await write_while_somebody_writes(
        db, dsn, asked, rows, identity("Q2"), wikidata_qid="Q43"
    )
    assert written == Written(frozenset(rows))
    assert [state[:2] for state in history(db)[1:]] == list(
        zip(rows, ("Q1", "Q43", "Q1"), strict=True)
    )
    assert {i[0] for i in standing(db)} == {"Q2"}


@pytest.mark.usefixtures("patient")
async def test_history_holds_the_identity_that_is_withdrawn(
    db: Connection, dsn: str, asked: Asked
) -> None:
    rows = [add_release(db) for _ in range(3)]
    for row in rows:
        await asked(row, identity("Q1"))
        rename(db, row, "Broadcast")
    written = await write_while_somebody_writes(
        db, dsn, asked, rows, Kind.UNRESOLVED, wikidata_qid="Q42"
    )
    assert written == Written(frozenset(rows), withdrawn=frozenset(rows))
    assert [state[:2] for state in history(db)] == list(zip(rows, ("Q1", "Q42", "Q1"), strict=True))
    assert standing(db) == []


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"external_id": "d-2"}, ("d-1", "exact_match", "consumer:lml-bulk")),
        ({"external_id": "d-2", "method": "manual"}, ("d-2", "manual", "consumer:lml-bulk")),
        ({"notes": "by Jo"}, ("d-1", "exact_match", "by Jo")),
    ],
)
async def test_evidence_that_changes_while_it_is_verified_is_replaced_unless_it_is_a_persons(
    db: Connection, dsn: str, asked: Asked, change: dict[str, str], left: tuple[str, str, str]
) -> None:
    rows = [add_release(db) for _ in range(3)]
    for row in rows:
        await asked(row, identity("Q1"))
    source = "library_identity_source"
    written = await write_while_somebody_writes(
        db, dsn, asked, rows, identity("Q1"), where=source, **change
    )
    assert written == Written(frozenset(rows))
    ours = ("d-1", "exact_match", "consumer:lml-bulk")
    assert [(s["external_id"], s["method"], s["notes"]) for s in rows_of(db, source)] == [
        ours,
        left,
        ours,
    ]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("found", [identity("Q2"), *OTHERS])
async def test_person_who_writes_a_moment_earlier_wins(
    db: Connection, dsn: str, asked: Asked, found: Identity | Kind
) -> None:
    rows = [add_release(db) for _ in range(3)]
    for row in rows:
        await asked(row, identity("Q1"))
        rename(db, row, "Broadcast")
    written = await write_while_somebody_writes(
        db, dsn, asked, rows, found, method="manual", notes="by Jo"
    )
    assert (written.rows, written.kept) == (frozenset(rows), 1)
    assert [state[0] for state in history(db)] == [rows[0], rows[2]]
    kept = [i for i in rows_of(db, "library_identity") if i["library_id"] == rows[1]]
    assert [(i["wikidata_qid"], i["notes"]) for i in kept] == [("Q1", "by Jo")]


SPOILT = {
    "DROP TABLE {history}": "table library_identity_history does not exist",
    "ALTER TABLE {history} DROP COLUMN method": "no column method",
    "ALTER TABLE {history} ADD station text NOT NULL": "a value of unknown meaning for station",
    "ALTER TABLE {history} ALTER wikidata_qid TYPE bytea USING NULL": "unknown type for wikidata",
    "ALTER TABLE {history} ALTER superseded_reason TYPE int USING 0": "type for superseded_reason",
}


@pytest.mark.parametrize("spoil", SPOILT)
async def test_verdicts_are_written_without_a_usable_history(
    db: Connection, dsn: str, asked: Asked, spoil: str
) -> None:
    db.execute(sql.SQL(spoil).format(history=table("library_identity_history")))
    obstacle = look(dsn, BACKEND, look_at_history).obstacle
    assert obstacle is not None
    assert SPOILT[spoil] in obstacle
    row = add_release(db)
    await asked(row, identity("Q1"))
    await asked(row, identity("Q2"))
    assert standing(db)[0][0] == "Q2"
    rename(db, row, "Broadcast")
    assert (await asked(row, Kind.UNRESOLVED)).withdrawn == {row}
    assert standing(db) == []


@pytest.mark.parametrize(
    "widen",
    [
        "ALTER TABLE {history} ADD station text",
        "ALTER TABLE {history} ADD station text NOT NULL DEFAULT 'WXYC'",
        "ALTER TABLE {history} ALTER superseded_reason TYPE varchar(40)",
    ],
)
async def test_wider_history_is_written(db: Connection, asked: Asked, widen: str) -> None:
    db.execute(sql.SQL(widen).format(history=table("library_identity_history")))
    row = add_release(db)
    await asked(row, identity("Q1"))
    await asked(row, identity("Q2"))
    assert len(history(db)) == 1


async def test_backend_may_widen_its_tables_while_the_daemon_works(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    for name in ("library_identity", "library_identity_history"):
        db.execute(sql.SQL("ALTER TABLE {} ADD tidal_id text").format(table(name)))
    await asked(row, identity("Q2"))
    db.execute(sql.SQL("ALTER TABLE {} DROP tidal_id").format(table("library_identity")))
    rename(db, row, "Broadcast")
    await asked(row, Kind.UNRESOLVED)
    assert [state[1] for state in history(db)] == ["Q1", "Q2"]


async def test_history_dropped_while_the_daemon_works_stops_no_verdict(
    db: Connection, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    db.execute(sql.SQL("DROP TABLE {}").format(table("library_identity_history")))
    with pytest.raises(StoreRefusedError, match="does not exist"):
        await asked(row, identity("Q2"))
    assert (await asked(row, identity("Q2"))).rows == {row}
    assert standing(db)[0][0] == "Q2"


@pytest.mark.parametrize(
    ("revoke", "lacking"),
    [
        ("INSERT ON {history}", "INSERT on the table"),
        ("ALL ON SEQUENCE {sequence}", "USAGE on its sequence library_identity_history_"),
    ],
)
async def test_verdicts_are_written_without_a_right_on_the_history(
    db: Connection, database: Database, role: str, revoke: str, lacking: str
) -> None:
    row = add_release(db)
    dsn = as_role(database.dsn, role)
    async with open_pool(replace(database, dsn=dsn), size=2) as pool:
        asked = Asked(
            db,
            PostgresLibrary(pool, BACKEND, ASK_AGAIN),
            PostgresVerdicts(pool, BACKEND, ASK_AGAIN),
        )
        await asked(row, identity("Q1"))
        names = {
            "history": table("library_identity_history"),
            "sequence": table("library_identity_history_history_id_seq"),
        }
        db.execute(sql.SQL(f"REVOKE {revoke} FROM {role}").format(**names))
        with pytest.raises(StoreRefusedError, match="permission denied"):
            await asked(row, identity("Q2"))
        assert (await asked(row, identity("Q2"))).rows == {row}
    with psycopg.connect(dsn, autocommit=True) as connection:
        seen = on(connection, look_at_history, BACKEND)
    assert lacking in str(seen.obstacle)
    assert seen.readable


def put_back(dsn: str, row: int, state: int) -> Restored:
    return look(dsn, BACKEND, restore, row, state)


def last_state(db: Connection) -> int:
    number = rows_of(db, "library_identity_history")[-1]["history_id"]
    assert isinstance(number, int)
    return number


async def test_restored_identity_stands_with_all_its_columns_and_stays(
    db: Connection, dsn: str, asked: Asked
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    set_column(db, "library_identity", row, "discogs_release_id", 42)
    set_column(db, "library_identity", row, "agreement_sources", "discogs")
    await asked(row, identity("Q2"))
    set_column(db, "library_identity", row, "discogs_release_id", None)
    db.execute("DELETE FROM listener.change")
    state = last_state(db)
    assert put_back(dsn, row, state) is Restored.DONE
    (main,) = rows_of(db, "library_identity")
    assert (main["wikidata_qid"], main["discogs_release_id"]) == ("Q1", 42)
    assert (main["method"], main["notes"]) == ("manual", f"restored from history {state}")
    assert main["agreement_sources"] == "discogs"
    assert main["confidence"] == pytest.approx(0.9, abs=1e-6)
    assert history(db)[1:] == [(row, "Q2", "exact_match", "restored")]
    assert db.execute("SELECT FROM listener.change").fetchall() == []

    assert put_back(dsn, row, state) is Restored.STOOD_ALREADY
    assert len(history(db)) == 2
    assert await asked(row, identity("Q3")) == Written(frozenset((row,)), kept=1)
    rename(db, row, "Broadcast")
    assert await asked(row, Kind.UNRESOLVED) == Written(frozenset((row,)), kept=1)
    assert rows_of(db, "library_identity") == [main]
    assert len(history(db)) == 2


async def test_withdrawn_identity_can_be_restored(db: Connection, dsn: str, asked: Asked) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    await asked(row, Kind.UNRESOLVED)
    assert put_back(dsn, row, last_state(db)) is Restored.DONE
    assert [i[:2] for i in standing(db)] == [("Q1", "manual")]
    assert len(history(db)) == 1


async def test_nothing_is_restored_to_another_row_or_to_none(
    db: Connection, dsn: str, asked: Asked
) -> None:
    row, other = add_release(db), add_release(db)
    for found in ("Q1", "Q2"):
        await asked(row, identity(found))
    state = last_state(db)
    before = standing(db)
    assert put_back(dsn, other, state) is Restored.MEANWHILE
    assert put_back(dsn, row, state + 1) is Restored.MEANWHILE
    assert standing(db) == before
    delete_release(db, row)
    assert put_back(dsn, row, state) is Restored.MEANWHILE
    assert (standing(db), len(history(db))) == ([], 1)


async def test_identity_that_changes_while_one_is_restored_is_kept(
    db: Connection, dsn: str, asked: Asked
) -> None:
    row = add_release(db)
    for found in ("Q1", "Q2"):
        await asked(row, identity(found))
    with psycopg.connect(dsn) as person:
        set_column(person, "library_identity", row, "wikidata_qid", "Q42")
        async with asyncio.TaskGroup() as tasks:
            restoring = tasks.create_task(asyncio.to_thread(put_back, dsn, row, last_state(db)))
            await until_it_waits_for_a_lock(db, "listener-test")
            person.commit()
    assert restoring.result() is Restored.DONE
    assert [state[1:] for state in history(db)] == [
        ("Q1", "exact_match", "verdict_changed"),
        ("Q42", "exact_match", "restored"),
    ]
    assert standing(db)[0][:2] == ("Q1", "manual")


async def test_identity_that_comes_while_one_is_restored_is_not_replaced(
    db: Connection, dsn: str, asked: Asked
) -> None:
    """There was nothing to keep, and nobody decided that the new identity must go."""
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    await asked(row, Kind.UNRESOLVED)
    with psycopg.connect(dsn) as job:
        add_identity(job, row)
        async with asyncio.TaskGroup() as tasks:
            restoring = tasks.create_task(asyncio.to_thread(put_back, dsn, row, last_state(db)))
            await until_it_waits_for_a_lock(db, "listener-test")
            job.commit()
    assert restoring.result() is Restored.MEANWHILE
    assert standing(db) == [(None, "exact_match", None)]
    assert put_back(dsn, row, last_state(db)) is Restored.DONE
    assert [state[3] for state in history(db)] == ["withdrawn", "restored"]


async def test_identity_that_goes_while_one_is_restored_is_not_kept(
    db: Connection, dsn: str, asked: Asked
) -> None:
    row = add_release(db)
    for found in ("Q1", "Q2"):
        await asked(row, identity(found))
    with psycopg.connect(dsn) as job:
        for name in ("library_identity_source", "library_identity"):
            job.execute(sql.SQL("DELETE FROM {}").format(table(name)))
        async with asyncio.TaskGroup() as tasks:
            restoring = tasks.create_task(asyncio.to_thread(put_back, dsn, row, last_state(db)))
            await until_it_waits_for_a_lock(db, "listener-test")
            job.commit()
    assert restoring.result() is Restored.DONE
    assert [state[3] for state in history(db)] == ["verdict_changed"]
    assert standing(db)[0][:2] == ("Q1", "manual")


async def test_identity_that_comes_between_the_look_and_the_restore_stays(
    db: Connection, dsn: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = add_release(db)
    await asked(row, identity("Q1"))
    rename(db, row, "Broadcast")
    await asked(row, Kind.UNRESOLVED)

    def hurried(name: str, backend: str) -> bytes:
        if name == "restore_identity":
            add_identity(db, row)
        return sessions.query(name, backend)

    monkeypatch.setattr("listener.adapters.postgres.history.query", hurried)
    assert put_back(dsn, row, last_state(db)) is Restored.MEANWHILE
    assert standing(db) == [(None, "exact_match", None)]
    assert [state[3] for state in history(db)] == ["withdrawn"]


async def test_restore_does_not_wait_for_a_lock_for_long(
    db: Connection, dsn: str, asked: Asked
) -> None:
    row = add_release(db)
    for found in ("Q1", "Q2"):
        await asked(row, identity(found))
    with psycopg.connect(dsn) as backend:
        set_column(backend, "library_identity", row, "notes", "x")
        with pytest.raises(StoreUnavailableError, match="nothing was changed"):
            put_back(dsn, row, last_state(db))
    assert len(history(db)) == 1


@pytest.mark.parametrize(
    "settings",
    ["-c enable_nestloop=off", "-c random_page_cost=1000", "-c seq_page_cost=0.01"],
)
def test_history_is_found_usable_whatever_the_planner_is_set_to(dsn: str, settings: str) -> None:
    with psycopg.connect(dsn, options=settings) as connection:
        assert on(connection, look_at_history, BACKEND).obstacle is None


@pytest.mark.parametrize("join", ["nestloop", "hashjoin", "mergejoin"])
@pytest.mark.parametrize("by_key", [True, False])
def test_sequences_are_checked_under_any_plan(db: Connection, join: str, by_key: bool) -> None:
    """PostgreSQL raises if asked for sequence rights on anything but a sequence."""
    for each in ("nestloop", "hashjoin", "mergejoin"):
        db.execute(f"SET enable_{each} = {'on' if each == join else 'off'}")
    for each in ("indexscan", "bitmapscan"):
        db.execute(f"SET enable_{each} = {'on' if by_key else 'off'}")
    assert on(db, lagging_sequences, BACKEND) == []
