"""Compilations are known down to the track: by the daemon, and by a recheck."""

from __future__ import annotations

import pytest
from psycopg import sql

from listener.simulator import Knowledge, Simulator
from listener.simulator.tracks import Tracks as Fields
from listener.simulator.tracks import TrackStore, credits_of, entries_for
from tests.acceptance.conftest import Commands, Start, eventually
from tests.catalogue import add_release, outbox_size, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(90)

CREDITS = 12


@pytest.fixture
def store(simulator: Simulator) -> dict[int, Fields]:
    """Let LML answer by what it knows, and have visited what is put in here."""
    simulator.knowledge = Knowledge(single_artist_share=1)
    overrides: dict[int, Fields] = {}
    simulator.tracks = TrackStore(not_visited_share=1, overrides=overrides)
    return overrides


def add_compilation(db: Connection, store: dict[int, Fields], *, visited: bool = True) -> int:
    """Add a release with its credits and their artists in one transaction, as the backend does."""
    with db.transaction():
        row = add_release(db, "Various Artists", "A Sampler", "Z-A")
        (legacy,) = db.execute(
            sql.SQL("SELECT legacy_release_id FROM {} WHERE id = %s").format(table("library")),
            (row,),
        ).fetchall()[0]
        assert isinstance(legacy, int)
        credited = credits_of(legacy, CREDITS)
        for name in {credit.artist_name for credit in credited}:
            db.execute(
                sql.SQL(
                    "INSERT INTO {0} (artist_name) SELECT %(name)s::varchar"
                    " WHERE NOT EXISTS (SELECT FROM {0} WHERE artist_name = %(name)s)"
                ).format(table("artists")),
                {"name": name},
            )
        with db.cursor() as cursor:
            cursor.executemany(
                sql.SQL(
                    "INSERT INTO {} (library_id, artist_name, track_title) VALUES (%s, %s, %s)"
                ).format(table("compilation_track_artist")),
                [(row, credit.artist_name, credit.track_title) for credit in credited],
            )
        if visited:
            store[legacy] = Fields(attempted=True, entries=entries_for(legacy, CREDITS))
    return row


def linked(db: Connection, row: int) -> int:
    """Return how many credits point to the artist of their own name, by our hand."""
    return len(
        db.execute(
            sql.SQL(
                "SELECT FROM {} AS c JOIN {} AS a ON a.id = c.track_artist_id"
                " WHERE c.library_id = %s AND a.artist_name = c.artist_name"
                " AND c.track_artist_link_method = 'lml_backfill'"
            ).format(table("compilation_track_artist"), table("artists")),
            (row,),
        ).fetchall()
    )


def outcomes(db: Connection) -> dict[object, object]:
    return dict(db.execute("SELECT library_id, outcome FROM listener.ledger").fetchall())  # type: ignore[arg-type]


def test_compilation_that_is_added_has_its_tracks_linked(
    db: Connection, start: Start, simulator: Simulator, store: dict[int, Fields]
) -> None:
    daemon = start().following()
    compilation = add_compilation(db, store)
    single = add_release(db, "Stereolab")
    eventually(lambda: outbox_size(db) == 0)
    assert linked(db, compilation) == CREDITS
    assert outcomes(db)[compilation] == "visited_compilation"
    with_tracks = {
        question.library_id: call.with_tracks
        for call in simulator.calls.recent("bulk")
        for question in call.questions
    }
    assert with_tracks == {compilation: True, single: False}
    assert daemon.stop() == 0
    (report,) = [event for event in daemon.events if event.get("event") == "stopped"]
    assert report["rows_resolved_compilation"] == 1
    assert report["compilation_track_rows_written"] == CREDITS


def test_credits_that_come_after_the_verdict_are_linked_by_the_next_sweep(
    db: Connection, start: Start, store: dict[int, Fields]
) -> None:
    donor = add_compilation(db, store)
    start(SWEEP_INTERVAL="1s").following()
    eventually(lambda: outbox_size(db) == 0)
    release = add_release(db, "Various Artists", "Another Sampler", "Z-B")
    other = add_release(db, "Stereolab", "Dots and Loops")
    eventually(lambda: {release, other} <= outcomes(db).keys())
    for row in (release, other):
        # LML knows about the others what it knows about the one.
        (legacy,) = db.execute(
            sql.SQL("SELECT legacy_release_id FROM {} WHERE id = %s").format(table("library")),
            (row,),
        ).fetchall()[0]
        assert isinstance(legacy, int)
        store[legacy] = next(iter(store.values()))
        db.execute(
            sql.SQL(
                "INSERT INTO {0} (library_id, artist_name, track_title)"
                " SELECT %s, artist_name, track_title FROM {0} WHERE library_id = %s"
            ).format(table("compilation_track_artist")),
            (row, donor),
        )
    eventually(lambda: linked(db, release) == CREDITS)
    eventually(lambda: nothing_gained(db))


def nothing_gained(db: Connection) -> bool:
    """Return whether the last question about each release saw all of its credits."""
    return not db.execute(
        sql.SQL(
            "SELECT FROM {} AS c JOIN listener.ledger AS g USING (library_id)"
            " WHERE c.id > g.last_credit"
        ).format(table("compilation_track_artist"))
    ).fetchall()


def test_batch_that_fails_only_with_tracks_is_asked_without_and_again_later(
    db: Connection, listener: Commands, simulator: Simulator, store: dict[int, Fields]
) -> None:
    rows = [add_compilation(db, store) for _ in range(3)]
    simulator.faults.add("status", status=500, body="text", with_tracks=True)
    first = listener.run("sweep", "--json", LML_ATTEMPTS="2")
    assert first.code == 0, first.stderr
    assert first.report["rows_skipped"]["compilation"] == 3
    assert [call.with_tracks for call in simulator.calls.recent("bulk")] == [True, True, False]
    assert set(outcomes(db).values()) == {"compilation"}
    simulator.faults.clear()
    assert listener.run("sweep", "--json").report["scanned"] == 0
    db.execute(
        "UPDATE listener.ledger SET answered_at = now() - interval '8 d', next_ask_at = now()"
    )
    again = listener.run("sweep", "--json").report
    assert (again["rows_resolved_compilation"], again["scanned"]) == (3, 3)
    assert [linked(db, row) for row in rows] == [CREDITS] * 3


def test_recheck_asks_about_compilations_whose_answers_still_hold(
    db: Connection, listener: Commands, simulator: Simulator, store: dict[int, Fields]
) -> None:
    visited, not_visited = (add_compilation(db, store, visited=each) for each in (True, False))
    add_release(db, "Stereolab")
    never = listener.run("sweep", "--recheck", "--json")
    assert (never.code, never.report["scanned"]) == (0, 0)
    first = listener.run("sweep", "--json").report
    skipped = sum(first["rows_skipped"].values())
    found = first["rows_resolved"] + first["rows_resolved_compilation"] + first["rows_unresolved"]
    assert first["scanned"] == found + skipped == 3
    assert (first["rows_resolved_compilation"], first["rows_skipped"]["compilation"]) == (1, 1)
    simulator.tracks = TrackStore(not_visited_share=0, empty_share=1, overrides=store)
    simulator.calls.reset()
    dry = listener.run("sweep", "--recheck", "--dry-run").report
    assert (dry["would_resolve_compilation"], dry["scanned"]) == (2, 2)
    assert outcomes(db)[not_visited] == "compilation"
    second = listener.run("sweep", "--recheck", "--json").report
    assert (second["rows_resolved_compilation"], second["scanned"]) == (2, 2)
    assert second["compilation_track_rows_skipped_unchanged"] == CREDITS
    assert second["compilation_track_rows_written"] == 0
    assert {row: outcomes(db)[row] for row in (visited, not_visited)} == dict.fromkeys(
        (visited, not_visited), "visited_compilation"
    )
    kinds = db.execute("SELECT kind FROM listener.run ORDER BY run_id DESC LIMIT 1").fetchall()
    assert kinds == [("recheck",)]


def test_unwanted_tracks_are_not_requested(
    db: Connection, listener: Commands, simulator: Simulator, store: dict[int, Fields]
) -> None:
    row = add_compilation(db, store)
    report = listener.run("sweep", "--json", INCLUDE_TRACKS="OFF").report
    assert (report["scanned"], report["rows_skipped"]["compilation"]) == (1, 1)
    assert not any(call.with_tracks for call in simulator.calls.recent("bulk"))
    assert linked(db, row) == 0


def test_diverging_spelling_is_reported(
    db: Connection, listener: Commands, store: dict[int, Fields]
) -> None:
    row = add_compilation(db, store)
    db.execute(
        sql.SQL("UPDATE {} SET artist_name = 'the ' || artist_name").format(
            table("compilation_track_artist")
        )
    )
    done = listener.run("sweep", "--json")
    assert done.report["compilation_track_rows_skipped_no_cta_match"] == CREDITS
    assert "many credits from LML match no row" in done.stderr
    assert f'"rows": [{row}]' in done.stderr
    assert credits_of(1, 1)[0].artist_name not in done.stderr
