"""Verdicts land on the question they answer, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses

import psycopg
import pytest
from psycopg import sql

from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.change import Stream
from listener.domain.faults import StatementRefusedError, StoreRefusedError
from listener.domain.question import Asking
from listener.domain.verdict import Identity, Kind, Provenance, Verdict, VerdictBatch
from tests.catalogue import add_release, count, delete_release, outbox_size, rename, rows_of, table
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import failure


def identity(*sources: str, method: str = "exact_match", wikidata: str = "Q1") -> Identity:
    return Identity(
        method=method,
        confidence=0.9,
        wikidata_qid=wikidata,
        spotify_id="spotify-1",
        apple_music_id=None,
        provenance=tuple(Provenance(source, method, 0.8, f"{source}-id") for source in sources),
    )


def page(
    asking: Asking, *verdicts: Verdict, entries: list[tuple[int, int]] | None = None
) -> VerdictBatch:
    questions = {question.library_id: question for question in asking.questions}
    return VerdictBatch(asking.order, questions, verdicts, entries or [])


def single(library_id: int, *sources: str, **changes: str) -> Verdict:
    return Verdict(library_id, Kind.SINGLE_ARTIST, identity(*sources, **changes))


async def test_single_artist_is_written_as_readers_expect(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    asking = await library.read([row])
    assert (await verdicts.write(page(asking, single(row, "discogs", "wikidata")))).rows == {row}

    (main,) = rows_of(db, "library_identity")
    assert (main["library_id"], main["wikidata_qid"], main["spotify_id"]) == (
        row,
        "Q1",
        "spotify-1",
    )
    assert main["apple_music_id"] is None
    assert main["discogs_release_id"] is None
    assert (main["method"], main["notes"]) == ("exact_match", "consumer:lml-bulk")
    assert main["confidence"] == pytest.approx(0.9, abs=1e-6)
    assert main["agreement_sources"] is None
    sources = rows_of(db, "library_identity_source")
    assert [(s["source"], s["external_id"]) for s in sources] == [
        ("discogs", "discogs-id"),
        ("wikidata", "wikidata-id"),
    ]
    assert {s["last_verified_at"] for s in sources} == {main["last_verified_at"]}
    assert {s["notes"] for s in sources} == {"consumer:lml-bulk"}
    assert db.execute("SELECT outcome FROM listener.ledger").fetchall() == [("single_artist",)]


@pytest.mark.parametrize("kind", [Kind.UNRESOLVED, Kind.COMPILATION])
async def test_other_verdicts_are_remembered_only_in_the_ledger(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, kind: Kind
) -> None:
    row = add_release(db)
    asking = await library.read([row])
    assert (await verdicts.write(page(asking, Verdict(row, kind)))).rows == {row}
    assert count(db, "library_identity") == count(db, "library_identity_source") == 0
    assert db.execute("SELECT library_id, outcome FROM listener.ledger").fetchall() == [(row, kind)]


async def test_changes_are_settled_with_the_verdict(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, outbox: PostgresOutbox
) -> None:
    row, other = add_release(db), add_release(db, "Broadcast")
    look = await outbox.look(Stream.LIBRARY, after=0, held=[], limit=10)
    entries = [(change.seq, change.row_id) for change in look.changes]
    asking = await library.read([row, other])
    await verdicts.write(page(asking, single(row, "discogs"), entries=entries))
    left = db.execute("SELECT row_id FROM listener.change").fetchall()
    assert left == [(other,)]


async def test_row_renamed_while_asked_is_not_written(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    asking = await library.read([row])
    rename(db, row, "Broadcast")
    before = outbox_size(db)
    entries = [(seq, row) for seq in range(1, 10)]
    written = await verdicts.write(page(asking, single(row, "discogs"), entries=entries))
    assert written.rows == frozenset()
    assert count(db, "library_identity") == 0
    assert outbox_size(db) == before
    assert db.execute("SELECT FROM listener.ledger").fetchall() == []


async def test_row_deleted_while_asked_is_not_written(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    gone, stays = add_release(db), add_release(db)
    asking = await library.read([gone, stays])
    delete_release(db, gone)
    written = await verdicts.write(page(asking, single(gone, "discogs"), single(stays, "discogs")))
    assert written.rows == {stays}
    assert [row["library_id"] for row in rows_of(db, "library_identity")] == [stays]


async def test_row_being_deleted_is_not_waited_for(
    dsn: str, db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    gone, stays = add_release(db), add_release(db)
    asking = await library.read([gone, stays])
    with psycopg.connect(dsn) as backend:
        delete_release(backend, gone)
        written = await verdicts.write(
            page(asking, single(gone, "discogs"), single(stays, "discogs"))
        )
    assert written.rows == {stays}
    assert [row["library_id"] for row in rows_of(db, "library_identity")] == [stays]


async def test_older_question_never_overwrites_a_newer_answer(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    older, newer = await library.read([row]), await library.read([row])
    assert (await verdicts.write(page(newer, single(row, "discogs", wikidata="Q2")))).rows == {row}
    assert (
        await verdicts.write(page(older, single(row, "discogs", wikidata="Q1")))
    ).rows == frozenset()
    assert rows_of(db, "library_identity")[0]["wikidata_qid"] == "Q2"


async def test_order_decides_even_if_the_old_name_came_back(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db, "Stereolab")
    frozen = await library.read([row])
    rename(db, row, "Broadcast")
    await verdicts.write(page(await library.read([row]), single(row, "discogs", wikidata="Q2")))
    rename(db, row, "Stereolab")
    await verdicts.write(page(await library.read([row]), single(row, "discogs", wikidata="Q3")))
    assert (
        await verdicts.write(page(frozen, single(row, "discogs", wikidata="Q1")))
    ).rows == frozenset()
    assert rows_of(db, "library_identity")[0]["wikidata_qid"] == "Q3"


async def test_our_withdrawn_sources_are_removed(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs", "wikidata")))
    _insert_source(db, row, "bandcamp", notes="by hand")
    _ask_again(db)
    await verdicts.write(page(await library.read([row]), single(row, "spotify", "discogs")))
    sources = [source["source"] for source in rows_of(db, "library_identity_source")]
    assert sources == ["bandcamp", "discogs", "spotify"]


async def test_older_jobs_source_stays_although_lml_does_not_name_it(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    _insert_source(db, row, "bandcamp", notes=None)
    _ask_again(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    sources = [source["source"] for source in rows_of(db, "library_identity_source")]
    assert sources == ["bandcamp", "discogs"]


async def test_unchanged_verdict_moves_only_the_date(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    before = rows_of(db, "library_identity") + rows_of(db, "library_identity_source")
    _ask_again(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    after = rows_of(db, "library_identity") + rows_of(db, "library_identity_source")
    for old, new in zip(before, after, strict=True):
        assert new["last_verified_at"] > old["last_verified_at"]
        assert {**new, "last_verified_at": 0} == {**old, "last_verified_at": 0}


async def test_manual_identity_is_kept(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs", "wikidata")))
    db.execute(
        sql.SQL("UPDATE {} SET method = 'manual', wikidata_qid = 'Q42'").format(
            table("library_identity")
        )
    )
    db.execute(
        sql.SQL(
            "UPDATE {} SET method = 'manual', external_id = 'by hand' WHERE source = 'wikidata'"
        ).format(table("library_identity_source"))
    )
    _ask_again(db)
    assert (await verdicts.write(page(await library.read([row]), single(row, "discogs")))).rows == {
        row
    }
    assert rows_of(db, "library_identity")[0]["wikidata_qid"] == "Q42"
    sources = {s["source"]: s["external_id"] for s in rows_of(db, "library_identity_source")}
    assert sources == {"discogs": "discogs-id", "wikidata": "by hand"}


async def test_identity_that_lml_itself_calls_manual_is_kept_up_to_date(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    manual = single(row, "discogs", method="manual", wikidata="Q1")
    await verdicts.write(page(await library.read([row]), manual))
    _ask_again(db)
    await verdicts.write(page(await library.read([row]), single(row, "wikidata", wikidata="Q2")))
    (main,) = rows_of(db, "library_identity")
    assert (main["method"], main["wikidata_qid"]) == ("exact_match", "Q2")
    assert [s["source"] for s in rows_of(db, "library_identity_source")] == ["wikidata"]


async def test_persons_manual_identity_is_kept_although_lml_once_answered_manual(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    for verdict in (single(row, "discogs", method="manual"), single(row, "discogs", "wikidata")):
        _ask_again(db)
        await verdicts.write(page(await library.read([row]), verdict))
    for name in ("library_identity", "library_identity_source"):
        db.execute(sql.SQL("UPDATE {} SET method = 'manual'").format(table(name)))
    before = [rows_of(db, name) for name in ("library_identity", "library_identity_source")]
    _ask_again(db)
    written = await verdicts.write(page(await library.read([row]), single(row, wikidata="Q2")))
    assert (written.rows, written.kept) == (frozenset({row}), 1)
    assert [rows_of(db, name) for name in ("library_identity", "library_identity_source")] == before


@pytest.mark.parametrize(
    "code",
    ["P0001", "44000", "54000", "09000", "WX001", "55000", "42501", "57014", "53400", "57P05"],
)
async def test_row_that_the_database_rejects_is_distinguished_from_a_database_that_is_down(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, code: str
) -> None:
    row = add_release(db)
    db.execute(
        sql.SQL(
            "CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE 'Secret Artist' USING ERRCODE = {}; END$$;"
            " CREATE TRIGGER refusing BEFORE INSERT ON {} FOR EACH ROW"
            " EXECUTE FUNCTION pg_temp.refuse()"
        ).format(code, table("library_identity"))
    )
    with pytest.raises(StatementRefusedError) as refused:
        await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    # What it says may quote the row.
    assert str(refused.value) == f"a rule of the database's own ({code})"
    assert db.execute("SELECT FROM listener.ledger").fetchall() == []
    db.execute(sql.SQL("DROP TRIGGER refusing ON {}").format(table("library_identity")))
    verdict = single(row, "discogs")
    assert (await verdicts.write(page(await library.read([row]), verdict))).rows == {row}


# What a backend or its administrator does to the tables that a verdict is written to, and what the
# database says then.
BREAKAGES = {
    "key": (
        "ALTER TABLE {backend}.library_identity DROP CONSTRAINT library_identity_pkey CASCADE",
        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    ),
    "key of ours": (
        "ALTER TABLE listener.ledger DROP CONSTRAINT ledger_pkey",
        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    ),
    "default": (
        "ALTER TABLE listener.ledger ALTER suspicion DROP DEFAULT",
        'null value in column "suspicion" of relation "ledger" violates not-null constraint',
    ),
    "sequence": (
        "DROP SEQUENCE listener.ask_order",
        'relation "listener.ask_order" does not exist',
    ),
    "column": (
        "ALTER TABLE {backend}.library_identity RENAME notes TO remarks",
        "column i.notes does not exist",
    ),
    "column wanted": (
        "ALTER TABLE {backend}.library_identity ADD wanted int NOT NULL",
        'null value in column "wanted" of relation "library_identity" violates not-null constraint',
    ),
    "function": (
        "ALTER FUNCTION listener.is_kept RENAME TO kept",
        "function listener.is_kept(text, text, boolean) does not exist",
    ),
    "view": (
        """ALTER TABLE {backend}.library_identity_source RENAME TO sources;
        CREATE VIEW {backend}.library_identity_source AS
        SELECT DISTINCT * FROM {backend}.sources""",
        'cannot delete from view "library_identity_source"',
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
async def test_statement_that_the_schema_no_longer_allows_is_blamed_on_no_row(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, name: str
) -> None:
    statements, said = BREAKAGES[name]
    # A context of parameters is not that of a trigger.
    db.execute(
        sql.SQL("ALTER DATABASE {} SET log_parameter_max_length_on_error = -1").format(
            sql.Identifier(db.info.dbname)
        )
    )
    row = add_release(db)
    db.execute(sql.SQL(statements).format(backend=sql.Identifier(BACKEND)))
    with pytest.raises(StoreRefusedError) as refused:
        await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    assert str(refused.value) == said


async def test_missing_value_that_only_some_verdicts_have_is_blamed_on_rows(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    bare, full = add_release(db), add_release(db)
    table_of = table("library_identity")
    db.execute(sql.SQL("ALTER TABLE {} ALTER apple_music_id SET NOT NULL").format(table_of))
    asking = await library.read([bare, full])
    found = Verdict(
        full, Kind.SINGLE_ARTIST, dataclasses.replace(identity("discogs"), apple_music_id="1")
    )
    with pytest.raises(StatementRefusedError, match="apple_music_id"):
        await verdicts.write(page(asking, single(bare), found))
    assert (await verdicts.write(page(asking, found))).rows == {full}


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("PERFORM listener.nothing(NEW.library_id)", "function listener.nothing(integer)"),
        ("SET ROLE pg_monitor; PERFORM FROM listener.ledger", "permission denied for schema"),
        ("NEW.nobody := 1", 'record "new" has no field "nobody"'),
        ("UPDATE listener.seen SET row = 1", 'cannot update view "seen"'),
    ],
)
async def test_failing_trigger_is_blamed_on_its_rows(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts, does: str, said: str
) -> None:
    row, other = add_release(db), add_release(db)
    db.execute(
        sql.SQL(
            "CREATE VIEW listener.seen AS SELECT DISTINCT 1 AS row;"
            " CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN IF NEW.library_id = {} THEN {}; END IF; RETURN NEW; END$$;"
            " CREATE TRIGGER failing BEFORE INSERT ON {} FOR EACH ROW"
            " EXECUTE FUNCTION pg_temp.fail()"
        ).format(row, sql.SQL(does), table("library_identity"))
    )
    asking = await library.read([row, other])
    with pytest.raises(StatementRefusedError) as refused:
        await verdicts.write(page(asking, single(row, "discogs"), single(other, "discogs")))
    assert said in str(refused.value)
    assert (await verdicts.write(page(asking, single(other, "discogs")))).rows == {other}


async def test_locked_identity_is_not_waited_for_long(
    dsn: str, db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    _ask_again(db)
    asking = await library.read([row])
    with psycopg.connect(dsn) as backend:
        backend.execute(sql.SQL("UPDATE {} SET notes = 'x'").format(table("library_identity")))
        with pytest.raises(StatementRefusedError, match="lock timeout"):
            await verdicts.write(page(asking, single(row, "wikidata")))
    assert [s["source"] for s in rows_of(db, "library_identity_source")] == ["discogs"]


@pytest.mark.parametrize("known", [True, False])
async def test_writes_continue_at_once_after_a_lock_timeout(
    dsn: str,
    db: Connection,
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
    known: bool,
) -> None:
    releases = [add_release(db) for _ in range(8)]

    async def write(row: int) -> frozenset[int]:
        return (await verdicts.write(page(asking, single(row, "discogs")))).rows

    asking = await library.read(releases)
    if known:
        # Else the connections get to know the statements only while they cannot be run.
        assert all(await asyncio.gather(*(write(row) for row in releases[:4])))
    with psycopg.connect(dsn) as backend:
        backend.execute(
            sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table("library_identity"))
        )
        refused = await asyncio.gather(*map(write, releases[4:]), return_exceptions=True)
    assert all(isinstance(error, StatementRefusedError) for error in refused), refused
    assert {str(error) for error in refused} == {"canceling statement due to lock timeout"}
    for row in releases[4:]:
        assert await write(row) == {row}


async def test_new_row_that_another_session_keeps_locked_is_reported(
    dsn: str,
    db: Connection,
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
    outbox: PostgresOutbox,
) -> None:
    locked, free, unresolved, known = (add_release(db) for _ in range(4))
    await verdicts.write(page(await library.read([known]), single(known, "discogs")))
    _ask_again(db)
    look = await outbox.look(Stream.LIBRARY, after=0, held=[], limit=10)
    entries = [(change.seq, change.row_id) for change in look.changes]
    asking = await library.read([locked, free, unresolved, known])
    answers = [
        single(locked, "discogs"),
        single(free, "discogs"),
        Verdict(unresolved, Kind.UNRESOLVED),
        single(known, "discogs"),
    ]
    with psycopg.connect(dsn) as backend:
        backend.execute(sql.SQL("SELECT FROM {} FOR UPDATE").format(table("library")))
        written = await verdicts.write(page(asking, *answers[2:], answers[0], entries=entries))
        # Nothing that a deletion could run into is written of these two.
        assert written.rows == {unresolved, known}
        assert written.locked == {locked}
    with psycopg.connect(dsn) as backend:
        delete_release(backend, locked)
        written = await verdicts.write(page(asking, *answers[:2], entries=entries))
        assert written.rows == {free}
        assert written.locked == {locked}
        backend.rollback()
    # Whatever of its changes there is waits on.
    assert {row for (row,) in db.execute("SELECT row_id FROM listener.change")} == {locked}
    written = await verdicts.write(page(asking, answers[0], entries=entries))
    assert written.rows == {locked}
    assert not written.locked


async def test_outdated_row_does_not_count_as_locked(
    dsn: str, db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    changed, deleted, answered, failed, locked = releases = [add_release(db) for _ in range(5)]
    asking = await library.read(releases)
    rename(db, changed, "Broadcast")
    delete_release(db, deleted)
    newer = await library.read([answered, failed])
    await verdicts.write(page(newer, Verdict(answered, Kind.UNRESOLVED)))
    (question,) = (each for each in newer.questions if each.library_id == failed)
    await verdicts.fail(newer.order, [failure(question)], [])
    with psycopg.connect(dsn) as backend:
        backend.execute(sql.SQL("SELECT FROM {} FOR UPDATE").format(table("library")))
        answers = [single(row, "discogs") for row in releases]
        written = await verdicts.write(page(asking, *answers))
    assert not written.rows
    assert written.locked == {locked}
    assert count(db, "library_identity") == 0


async def test_refused_batch_leaves_nothing(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row, other = add_release(db), add_release(db)
    db.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT no_bandcamp CHECK (source <> 'bandcamp')").format(
            table("library_identity_source")
        )
    )
    asking = await library.read([row, other])
    with pytest.raises(StatementRefusedError) as refused:
        await verdicts.write(page(asking, single(row, "discogs"), single(other, "bandcamp")))
    assert "bandcamp-id" not in str(refused.value)
    assert count(db, "library_identity") == 0
    assert db.execute("SELECT FROM listener.ledger").fetchall() == []
    assert (await verdicts.write(page(asking, single(row, "discogs")))).rows == {row}


async def test_answered_question_is_not_asked_again_until_it_is_stale(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    assert (await library.read([row])).answered == {row}
    rename(db, row, "Broadcast")
    assert [q.artist_name for q in (await library.read([row])).questions] == ["Broadcast"]
    rename(db, row, "Stereolab")
    _ask_again(db)
    assert len((await library.read([row])).questions) == 1


async def test_answered_question_without_its_identity_is_asked_again(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db)
    await verdicts.write(page(await library.read([row]), single(row, "discogs")))
    for name in ("library_identity_source", "library_identity"):
        db.execute(sql.SQL("DELETE FROM {}").format(table(name)))
    assert [question.library_id for question in (await library.read([row])).questions] == [row]


async def test_rows_are_sorted_by_what_to_do_with_them(
    db: Connection, library: PostgresLibrary
) -> None:
    named, nameless = add_release(db, "Nico"), add_release(db, None)
    asking = await library.read([named, nameless, 999_999])
    (question,) = asking.questions
    assert (question.library_id, question.artist_name) == (named, "Nico")
    assert asking.nameless == {nameless}
    assert asking.gone == {999_999}


async def test_question_differs_in_each_of_its_parts(
    db: Connection, library: PostgresLibrary
) -> None:
    releases = [
        add_release(db, "Nico", "Chelsea Girl"),
        add_release(db, "Nico", "Desertshore"),
        add_release(db, "Nic", "oDesertshore"),
        add_release(db, "Nico", "Chelsea Girl", "Z-A"),
    ]
    db.execute(sql.SQL("UPDATE {} SET legacy_release_id = id").format(table("library")))
    asking = await library.read(releases)
    assert len({question.digest for question in asking.questions}) == len(releases)


async def test_batch_of_strange_texts_arrives_unchanged(
    db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    row = add_release(db, 'Sigur Rós "{,}" \\ \t漢字 🎵', "x" * 128)
    asking = await library.read([row])
    odd = dataclasses.replace(identity("discogs"), wikidata_qid='{"a,b"}', spotify_id="NULL")
    await verdicts.write(page(asking, Verdict(row, Kind.SINGLE_ARTIST, odd)))
    (main,) = rows_of(db, "library_identity")
    assert (main["wikidata_qid"], main["spotify_id"]) == ('{"a,b"}', "NULL")


def _ask_again(db: Connection) -> None:
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")


def _insert_source(db: Connection, row: int, source: str, notes: str | None) -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, source, external_id, method, confidence,"
            " last_verified_at, notes) VALUES (%s, %s, 'x', 'exact_match', 1, now(), %s)"
        ).format(table("library_identity_source")),
        (row, source, notes),
    )
