"""What LML says about the credits of a compilation lands on our rows of them, or is counted."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from listener.adapters.postgres.connection import Database, Pool, open_pool, open_session
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.sessions import query
from listener.adapters.postgres.tracks import PostgresTracks, change_columns
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.due import AskAgain
from listener.domain.faults import StatementRefusedError
from listener.domain.question import Asking
from listener.domain.tracks import Credit, TrackCount, Tracks, gather
from listener.domain.verdict import Identity, Kind, Verdict, VerdictBatch, Written
from tests.catalogue import add_release, delete_release, outbox_size, rename, table
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import ASK_AGAIN

N = TrackCount


class Row(NamedTuple):
    """A row of compilation_track_artist, but for its id and release."""

    artist_name: str
    track_title: str | None
    track_position: str | None
    artist: str | None
    confidence: float | None
    method: str | None


def add_artist(db: Connection, name: str) -> int:
    statement = sql.SQL("INSERT INTO {} (artist_name) VALUES (%s) RETURNING id")
    row = db.execute(statement.format(table("artists")), (name,)).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def add_credit(
    db: Connection,
    library_id: int,
    artist_name: str,
    track_title: str | None,
    *,
    position: str | None = None,
    artist_id: int | None = None,
    confidence: float | None = None,
    method: str | None = None,
) -> None:
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, artist_name, track_title, track_position,"
            " track_artist_id, track_artist_link_confidence, track_artist_link_method)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)"
        ).format(table("compilation_track_artist")),
        (library_id, artist_name, track_title, position, artist_id, confidence, method),
    )


def credits_of(db: Connection, library_id: int) -> list[Row]:
    statement = sql.SQL(
        "SELECT c.artist_name, c.track_title, c.track_position, a.artist_name,"
        " round(c.track_artist_link_confidence::numeric, 6)::float8, c.track_artist_link_method"
        " FROM {} AS c LEFT JOIN {} AS a ON a.id = c.track_artist_id"
        " WHERE c.library_id = %s ORDER BY c.id"
    ).format(table("compilation_track_artist"), table("artists"))
    return [Row(*row) for row in db.execute(statement, (library_id,))]  # type: ignore[arg-type]


def found(
    artist_name: str,
    title: str | None = "Title",
    *,
    position: str | None = None,
    resolved: str | None = "same",
    confidence: float | None = 0.9,
) -> Credit:
    name = artist_name if resolved == "same" else resolved
    return Credit(artist_name, title, position, name, confidence)


def visited(library_id: int, *entries: Credit) -> Verdict:
    return Verdict(library_id, Kind.COMPILATION, tracks=Tracks(gather(entries)))


def page(
    asking: Asking, *verdicts: Verdict, entries: Sequence[tuple[int, int]] = ()
) -> VerdictBatch:
    questions = {question.library_id: question for question in asking.questions}
    return VerdictBatch(asking.order, questions, verdicts, entries)


@pytest.fixture
def release(db: Connection) -> int:
    """Add a compilation without credits."""
    return add_release(db, "Various Artists", "A Sampler", "Z-A")


class Writing:
    """Has one release answered, whether or not the last answer still holds."""

    def __init__(
        self, db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts
    ) -> None:
        self._db = db
        self._library = library
        self._verdicts = verdicts

    async def __call__(self, release: int, *entries: Credit) -> dict[TrackCount, int]:
        """Return what became of the credits, without what did not occur."""
        written = await self.page(visited(release, *entries))
        assert written.rows == {release}
        return {count: number for count, number in written.tracks[release].items() if number}

    async def page(self, *verdicts: Verdict) -> Written:
        self._db.execute("UPDATE listener.ledger SET next_ask_at = now()")
        asking = await self._library.read([verdict.library_id for verdict in verdicts])
        return await self._verdicts.write(page(asking, *verdicts))


@pytest.fixture
def write(db: Connection, library: PostgresLibrary, verdicts: PostgresVerdicts) -> Writing:
    """Have a release answered."""
    return Writing(db, library, verdicts)


def watch_updates(db: Connection) -> None:
    """Note every UPDATE statement on the credits, also one that changes nothing."""
    db.execute(
        sql.SQL(
            "CREATE TABLE public.updates (at timestamptz);"
            " CREATE FUNCTION public.note_update() RETURNS trigger LANGUAGE plpgsql AS $$"
            " BEGIN INSERT INTO public.updates VALUES (now()); RETURN NULL; END $$;"
            " CREATE TRIGGER note_update AFTER UPDATE ON {}"
            " FOR EACH STATEMENT EXECUTE FUNCTION public.note_update();"
        ).format(table("compilation_track_artist"))
    )


def updates(db: Connection) -> int:
    row = db.execute("SELECT count(*) FROM public.updates").fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


async def test_credit_is_linked_to_its_artist(db: Connection, release: int, write: Writing) -> None:
    add_artist(db, "Broadcast")
    add_credit(db, release, "Broadcast", "Come On Let's Go")
    add_credit(db, release, "Broadcast", "Unlit Trail")
    counts = await write(release, found("Broadcast", "Come On Let's Go", position="A1"))
    assert counts == {N.ROWS_WRITTEN: 1, N.POSITIONS_WRITTEN: 1}
    first, second = credits_of(db, release)
    assert first == (
        "Broadcast",
        "Come On Let's Go",
        "A1",
        "Broadcast",
        0.9,
        "lml_backfill",
    )
    assert second == ("Broadcast", "Unlit Trail", None, None, None, None)


async def test_ledger_knows_that_a_compilation_was_visited_and_what_came_of_it(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Broadcast")
    add_credit(db, release, "Broadcast", "1")
    add_credit(db, release, "Nobody", "2")
    add_credit(db, release, "Nico", "3")
    await write(
        release,
        found("Broadcast", "1"),
        found("Nobody", "2"),
        found("Nico", "3", resolved=None, confidence=None),
        found("Not Ours", "4"),
    )
    (row,) = db.execute("SELECT outcome, tracks FROM listener.ledger").fetchall()
    assert row == (
        "visited_compilation",
        {
            "credits": 4,
            "linked": 1,
            "librarian": 0,
            "no_resolved_artist": 1,
            "no_catalog_artist": 1,
            "no_cta_match": 1,
        },
    )
    await write.page(visited(release))
    assert db.execute("SELECT outcome, tracks FROM listener.ledger").fetchall() == [
        ("visited_compilation", None)
    ]


async def test_ledger_records_each_release_of_a_batch_separately(
    db: Connection, write: Writing
) -> None:
    releases = [add_release(db, "Various Artists", f"Vol. {n}", "Z-A") for n in range(1, 4)]
    for release in releases:
        add_credit(db, release, "Low", "1")
    await write.page(
        *(visited(row, *(found("Low", str(n)) for n in range(row))) for row in reversed(releases))
    )
    noted = db.execute(
        "SELECT library_id, (tracks ->> 'credits')::int, (tracks ->> 'no_cta_match')::int"
        " FROM listener.ledger ORDER BY library_id"
    ).fetchall()
    assert noted == [(row, row, row - (row > 1)) for row in releases]


async def test_batch_without_any_change_issues_no_update(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Broadcast")
    add_credit(db, release, "Broadcast", "1")
    add_credit(db, release, "Broadcast", None)
    # Not exact in four bytes: compared as it is stored.
    entries = [found("Broadcast", "1", position="A1", confidence=0.8), found("Broadcast", None)]
    assert await write(release, *entries) == {N.ROWS_WRITTEN: 2, N.POSITIONS_WRITTEN: 1}
    watch_updates(db)
    before = credits_of(db, release)
    assert await write(release, *entries) == {N.ROWS_UNCHANGED: 2}
    assert await write(release, found("Elsewhere"), found("Broadcast", "1", resolved=None)) == {
        N.ROWS_NO_MATCH: 1
    }
    assert (updates(db), credits_of(db, release)) == (0, before)
    assert await write(release, found("Broadcast", "1", confidence=0.7)) == {N.ROWS_WRITTEN: 1}
    assert updates(db) == 1


async def test_null_title_matches_only_a_null_title(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Broadcast")
    add_credit(db, release, "Broadcast", None)
    add_credit(db, release, "Broadcast", "Title")
    assert await write(release, found("Broadcast", None)) == {N.ROWS_WRITTEN: 1}
    assert [row.artist for row in credits_of(db, release)] == ["Broadcast", None]
    assert await write(release, found("Broadcast", "")) == {N.ROWS_NO_MATCH: 1}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Sigur Rós", "Sigur Rós"),
        ("Sigur Rós", "SIGUR ROS"),
        ("Sigur Ros", "Sigur Rós"),
        (unicodedata.normalize("NFD", "Björk Guðmundsdóttir"), "Björk Guðmundsdóttir"),
        ("Björk", unicodedata.normalize("NFD", "björk")),
    ],
)
async def test_artist_is_found_by_the_folded_name(
    db: Connection, release: int, write: Writing, ours: str, theirs: str
) -> None:
    artist = add_artist(db, ours)
    add_credit(db, release, "as credited", "Title")
    assert await write(release, found("as credited", resolved=theirs)) == {N.ROWS_WRITTEN: 1}
    statement = sql.SQL("SELECT track_artist_id FROM {}").format(table("compilation_track_artist"))
    assert db.execute(statement).fetchall() == [(artist,)]


async def test_credits_are_matched_as_they_are_spelled(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Björk")
    add_credit(db, release, unicodedata.normalize("NFD", "Björk"), "Title")
    counts = await write(release, found(unicodedata.normalize("NFC", "Björk")))
    assert counts == {N.ROWS_NO_MATCH: 1}
    counts = await write(release, found(unicodedata.normalize("NFD", "Björk")))
    assert counts == {N.ROWS_WRITTEN: 1}


async def test_missing_or_ambiguous_artist_is_not_linked(
    db: Connection, release: int, write: Writing
) -> None:
    for name in ("Nico", "NICO", "Low"):
        add_artist(db, name)
    add_credit(db, release, "Nico", "Title")
    add_credit(db, release, "Can", "Title")
    add_credit(db, release, "Low", "Title")
    counts = await write(release, found("Nico", position="A1"), found("Can"), found("Low"))
    assert counts == {N.ROWS_NO_ARTIST: 2, N.ROWS_WRITTEN: 1, N.POSITIONS_WRITTEN: 1}
    assert credits_of(db, release)[:2] == [
        ("Nico", "Title", "A1", None, 0.9, "lml_backfill"),
        ("Can", "Title", None, None, 0.9, "lml_backfill"),
    ]
    watch_updates(db)
    again = await write(release, found("Nico", position="A1"), found("Can"), found("Low"))
    assert again == {N.ROWS_NO_ARTIST: 2, N.ROWS_UNCHANGED: 1}
    assert updates(db) == 0
    add_artist(db, "Can")
    counts = await write(release, found("Nico", position="A1"), found("Can"), found("Low"))
    assert counts == {N.ROWS_NO_ARTIST: 1, N.ROWS_UNCHANGED: 1, N.ROWS_WRITTEN: 1}
    assert credits_of(db, release)[1] == ("Can", "Title", None, "Can", 0.9, "lml_backfill")


async def test_link_is_removed_when_its_artist_is_no_longer_found(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Nico")
    add_credit(db, release, "Nico", "Title")
    await write(release, found("Nico"))
    add_artist(db, "nico")
    assert await write(release, found("Nico", position="A1", confidence=0.5)) == {
        N.ROWS_NO_ARTIST: 1,
        N.POSITIONS_WRITTEN: 1,
    }
    (row,) = credits_of(db, release)
    assert row == ("Nico", "Title", "A1", None, 0.5, "lml_backfill")


async def test_librarians_rows_are_never_touched(
    db: Connection, release: int, write: Writing
) -> None:
    chosen = add_artist(db, "Nico (2)")
    add_artist(db, "Nico")
    add_credit(db, release, "Nico", "1", artist_id=chosen, confidence=1, method="librarian")
    # A librarian may have said that it is nobody of ours.
    add_credit(db, release, "Nico", "2", method="librarian")
    before = credits_of(db, release)
    watch_updates(db)
    counts = await write(release, found("Nico", "1", position="A1"), found("Nico", "2"))
    assert counts == {N.ROWS_LIBRARIAN: 2}
    assert credits_of(db, release) == before
    assert updates(db) == 0


async def test_entry_without_an_artist_writes_nothing(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Nico")
    add_credit(db, release, "Nico", "Title")
    watch_updates(db)
    assert await write(release, found("Nico", position="A1", resolved=None, confidence=1)) == {}
    assert updates(db) == 0


async def test_position_is_filled_only_if_missing_and_unambiguous(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Low")
    for number in range(1, 6):
        add_credit(db, release, "Low", str(number), position="B9" if number == 2 else None)
    counts = await write(
        release,
        found("Low", "1", position="A1"),
        found("Low", "1", position="A1", confidence=0.1),
        found("Low", "2", position="A2"),
        found("Low", "3", position="A3"),
        found("Low", "3", position="C3"),
        found("Low", "4", position="4" * 21),
        found("Low", "5", position="5" * 20),
    )
    assert counts == {
        N.ROWS_WRITTEN: 5,
        N.POSITIONS_WRITTEN: 2,
        N.POSITIONS_AMBIGUOUS: 1,
    }
    positions = [row.track_position for row in credits_of(db, release)]
    assert positions == ["A1", "B9", None, None, "5" * 20]


async def test_confidence_may_be_unknown(db: Connection, release: int, write: Writing) -> None:
    add_artist(db, "Low")
    add_credit(db, release, "Low", "Title")
    assert await write(release, found("Low", confidence=None)) == {N.ROWS_WRITTEN: 1}
    assert credits_of(db, release)[0][3:] == ("Low", None, "lml_backfill")
    assert await write(release, found("Low", confidence=None)) == {N.ROWS_UNCHANGED: 1}


async def test_link_of_unknown_origin_becomes_ours(
    db: Connection, release: int, write: Writing
) -> None:
    artist = add_artist(db, "Low")
    add_credit(db, release, "Low", "Title", artist_id=artist, confidence=0.9)
    assert await write(release, found("Low")) == {N.ROWS_WRITTEN: 1}
    assert credits_of(db, release)[0].method == "lml_backfill"


async def test_batch_of_many_releases_writes_each_to_its_own_rows(
    db: Connection, write: Writing
) -> None:
    releases = [add_release(db, "Various Artists", f"Vol. {n}", "Z-A") for n in range(5)]
    for release in releases:
        add_artist(db, f"Artist {release}")
        add_credit(db, release, "Same", "Title")
    written = await write.page(
        *(visited(row, found("Same", resolved=f"Artist {row}")) for row in reversed(releases))
    )
    assert written.tracks == {row: Counter({N.ROWS_WRITTEN: 1}) for row in releases}
    assert [credits_of(db, row)[0].artist for row in releases] == [f"Artist {r}" for r in releases]


async def test_release_renamed_between_asking_and_writing_keeps_its_credits(
    db: Connection, release: int, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    other = add_release(db, "Various Artists", "Another", "Z-B")
    add_artist(db, "Low")
    for row in (release, other):
        add_credit(db, row, "Low", "Title")
    asking = await library.read([release, other])
    rename(db, release, "Various")
    answers = [visited(row, found("Low")) for row in (release, other)]
    waiting = outbox_size(db)
    written = await verdicts.write(page(asking, *answers))
    assert written.rows == {other}
    assert written.tracks == {other: {N.ROWS_WRITTEN: 1}}
    assert credits_of(db, release)[0].artist is None
    assert outbox_size(db) == waiting


async def test_release_deleted_between_asking_and_writing_is_skipped(
    db: Connection, release: int, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    add_artist(db, "Low")
    add_credit(db, release, "Low", "Title")
    asking = await library.read([release])
    delete_release(db, release)
    assert await verdicts.write(page(asking, visited(release, found("Low")))) == Written(
        frozenset()
    )


async def test_older_answer_never_overwrites_the_tracks_of_a_newer_one(
    db: Connection, release: int, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    for name in ("Low", "Nico"):
        add_artist(db, name)
    add_credit(db, release, "credited", "Title")
    older, newer = await library.read([release]), await library.read([release])
    await verdicts.write(page(newer, visited(release, found("credited", resolved="Low"))))
    late = await verdicts.write(page(older, visited(release, found("credited", resolved="Nico"))))
    assert late == Written(frozenset())
    assert credits_of(db, release)[0].artist == "Low"


async def test_batch_with_a_locked_credit_fails_soon_and_writes_nothing(
    dsn: str,
    db: Connection,
    release: int,
    library: PostgresLibrary,
    verdicts: PostgresVerdicts,
) -> None:
    add_artist(db, "Low")
    add_credit(db, release, "Low", "Title")
    asking = await library.read([release])
    with psycopg.connect(dsn) as librarian:
        lock = sql.SQL("SELECT FROM {} FOR UPDATE").format(table("compilation_track_artist"))
        librarian.execute(lock)
        with pytest.raises(StatementRefusedError, match="lock timeout"):
            await verdicts.write(page(asking, visited(release, found("Low"))))
    assert db.execute("SELECT FROM listener.ledger").fetchall() == []
    assert (await verdicts.write(page(asking, visited(release, found("Low"))))).rows == {release}


async def test_tracks_take_three_statements_at_most_and_none_without_entries(
    db: Connection, release: int, database: Database
) -> None:
    add_artist(db, "Low")
    for number in range(20):
        add_credit(db, release, "Low", str(number))
    async with open_pool(database, size=1) as pool:
        library, verdicts = (
            PostgresLibrary(pool, BACKEND, AskAgain(timedelta(0), timedelta(0))),
            PostgresVerdicts(pool, BACKEND, ASK_AGAIN),
        )

        async def statements(confidence: float | None) -> int:
            """Return how many it takes to write a page, none of which runs for the first time."""
            counts = []
            for each in (0.01, 0.02, confidence):
                entries = [found("Low", str(n), confidence=each) for n in range(20)]
                answer = visited(release, *(entries if each is not None else ()))
                asking = await library.read([release])
                before = await _statements(pool)
                assert (await verdicts.write(page(asking, answer))).rows == {release}
                counts.append(await _statements(pool) - before)
            return counts[-1]

        without = await statements(None)
        assert await statements(0.5) - without == 3
        assert await statements(0.02) - without == 2
        assert without == len(("accept", "verify", "hold", "keep", "replace", "sources", "settle"))


async def _statements(pool: Pool) -> int:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT coalesce(sum(generic_plans + custom_plans), 0) FROM pg_prepared_statements",
            prepare=False,
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


class Hurried(PostgresTracks):
    """Lets the backend in between the two statements."""

    def __init__(self, between: Callable[[], object]) -> None:
        super().__init__(BACKEND)
        self._between = between

    async def _change(
        self, connection: psycopg.AsyncConnection[Any], changes: Sequence[Any]
    ) -> list[Any]:
        self._between()
        return await super()._change(connection, changes)


def enter_as_visited(db: Connection, release: int) -> None:
    """Enter the release in the ledger, as an answer that was just accepted."""
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, outcome, answered_at,"
        " next_ask_at) VALUES (%s, '', 1, 'visited_compilation', now(), now())",
        (release,),
    )


@pytest.mark.parametrize("what", ["librarian", "renamed", "deleted"])
async def test_row_changed_between_the_look_and_the_write_is_left_alone(
    db: Connection, release: int, database: Database, what: str
) -> None:
    add_artist(db, "Low")
    add_credit(db, release, "Low", "Title")
    add_credit(db, release, "Low", "Other")
    enter_as_visited(db, release)
    changes = {
        "librarian": "UPDATE {} SET track_artist_link_method = 'librarian'",
        "renamed": "UPDATE {} SET artist_name = 'High'",
        "deleted": "DELETE FROM {}",
    }
    change = sql.SQL(changes[what] + " WHERE track_title = 'Title'").format(
        table("compilation_track_artist")
    )

    answers = page(Asking(1), visited(release, found("Low", position="A1"), found("Low", "Other")))
    connection = await open_session(database)
    async with connection:
        counts = await Hurried(lambda: db.execute(change)).write(connection, answers)
    assert counts[release][N.ROWS_WRITTEN] == 1
    assert counts[release][N.POSITIONS_WRITTEN] == 0
    rows = {row.track_title: row.artist for row in credits_of(db, release)}
    assert rows.pop("Other") == "Low"
    assert set(rows.values()) <= {None}


async def test_position_that_a_person_sets_between_the_look_and_the_write_is_kept(
    db: Connection, release: int, database: Database
) -> None:
    add_artist(db, "Low")
    add_credit(db, release, "Low", "Title")
    enter_as_visited(db, release)
    placing = sql.SQL("UPDATE {} SET track_position = 'B9'").format(
        table("compilation_track_artist")
    )
    answers = page(Asking(1), visited(release, found("Low", position="A1")))
    async with await open_session(database) as connection:
        counts = await Hurried(lambda: db.execute(placing)).write(connection, answers)
    assert counts == {release: {N.ROWS_WRITTEN: 1}}
    (row,) = credits_of(db, release)
    assert (row.track_position, row.artist) == ("B9", "Low")


async def test_visited_compilation_holds_as_long_as_an_identity(
    db: Connection, release: int, library: PostgresLibrary, verdicts: PostgresVerdicts
) -> None:
    other = add_release(db, "Various Artists", "Another", "Z-B")
    asking = await library.read([release, other])
    await verdicts.write(page(asking, visited(release), Verdict(other, Kind.COMPILATION)))
    assert db.execute("SELECT outcome FROM listener.ledger ORDER BY library_id").fetchall() == [
        ("visited_compilation",),
        ("compilation",),
    ]
    assert (await library.read([release, other])).answered == {release, other}


def single(library_id: int) -> Verdict:
    return Verdict(
        library_id, Kind.SINGLE_ARTIST, Identity("exact_match", 0.9, "Q1", None, None, ())
    )


async def test_batch_of_all_kinds_is_written_together(
    db: Connection, release: int, write: Writing
) -> None:
    add_artist(db, "Low")
    add_credit(db, release, "Low", "Title")
    others = [add_release(db) for _ in range(2)]
    written = await write.page(
        single(others[0]), visited(release, found("Low")), Verdict(others[1], Kind.UNRESOLVED)
    )
    assert written.rows == {release, *others}
    assert credits_of(db, release)[0].artist == "Low"
    assert db.execute("SELECT FROM listener.change").fetchall() != []


KEYS, CREDITS = 500, 20_000


@pytest.mark.parametrize("known_to_be_empty", [False, True])
@pytest.mark.parametrize("analyzed", [False, True])
async def test_rows_are_reached_by_key_although_planned_on_empty_tables(
    db: Connection, release: int, database: Database, analyzed: bool, known_to_be_empty: bool
) -> None:
    if known_to_be_empty:
        db.execute("VACUUM ANALYZE")
    answers = page(
        Asking(1), visited(release, *(found(f"Artist {n}", f"Title {n}") for n in range(KEYS)))
    )
    tracks, connection = PostgresTracks(BACKEND), await open_session(database)
    async with connection:
        # Often enough for both statements to be prepared.
        for _ in range(3):
            await tracks.write(connection, answers)
            await connection.execute(*_no_change())
        _fill(db, release)
        if analyzed:
            db.execute("ANALYZE")
        async with connection.transaction():
            counts = await tracks.write(connection, answers)
            read = await _rows_read(connection)
    assert counts == {release: {N.ROWS_WRITTEN: KEYS}}
    # To look, to lock, to write; and once to see that the artist is there.
    assert read["compilation_track_artist"] <= 4 * KEYS
    assert read["artists"] <= 3 * KEYS
    assert read["ledger"] <= 5


def _no_change() -> tuple[bytes, dict[str, Any]]:
    return query("write_tracks", BACKEND), change_columns([])


def _fill(db: Connection, release: int) -> None:
    other = add_release(db, "Various Artists", "Another", "Z-B")
    names = (table("compilation_track_artist"), table("artists"))
    db.execute(
        sql.SQL(
            "INSERT INTO {} (library_id, artist_name, track_title)"
            " SELECT r, 'Artist ' || n, 'Title ' || n"
            " FROM unnest(%s::int[]) AS r, generate_series(0, %s) AS n"
        ).format(names[0]),
        ([other, release], CREDITS),
    )
    db.execute(
        sql.SQL(
            "INSERT INTO {} (artist_name) SELECT 'Artist ' || n FROM generate_series(0, %s) AS n"
        ).format(names[1]),
        (CREDITS,),
    )
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, next_ask_at)"
        " SELECT n, '', 1, now() FROM generate_series(1, %s) AS n",
        (CREDITS,),
    )


async def _rows_read(connection: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    cursor = await connection.execute(
        "SELECT relname, seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE idx_tup_fetch IS NOT NULL"
    )
    return {name: int(rows) for name, rows in await cursor.fetchall()}
