"""A committed change becomes an identity row, whatever happens to the daemon."""

from __future__ import annotations

import json
import signal
import time
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from listener.demo.catalogue import albums_tsv, fill
from listener.simulator import Knowledge, Latency, Simulator, verdict_for
from tests.acceptance.conftest import Commands, Start, asked, capture_again, eventually
from tests.catalogue import add_release, count, delete_release, outbox_size, rename, table
from tests.conftest import BACKEND, Connection, with_database

pytestmark = pytest.mark.timeout(90)

# Real names of real albums, where they lie beside the checkout; not a part of the project.
ROOT = Path(__file__).parents[2]
ALBUMS = ROOT.parent / "shared" / "data" / "albums.tsv"

# Every row that can be asked has an answer to just what it would be asked now.
_UNANSWERED = sql.SQL(
    "SELECT l.id FROM {} AS l LEFT JOIN listener.ledger AS g ON g.library_id = l.id"
    " WHERE l.artist_name IS NOT NULL AND (g.failures > 0 OR g.question IS DISTINCT FROM"
    " listener.question_digest("
    "l.artist_name, l.album_title, l.legacy_release_id,"
    " coalesce(l.code_volume_letters LIKE 'Z%', false)))"
)


def unanswered(db: Connection) -> list[object]:
    return [row[0] for row in db.execute(_UNANSWERED.format(table("library"))).fetchall()]


def settled(db: Connection) -> bool:
    return outbox_size(db) == 0


def all_answered(db: Connection) -> bool:
    return settled(db) and not unanswered(db)


def sessions(db: Connection) -> dict[object, object]:
    """Return what each session of a daemon waits for, by its pid."""
    rows = db.execute(
        "SELECT pid, wait_event_type FROM pg_stat_activity"
        " WHERE application_name LIKE 'listener %' AND datname = current_database()"
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def end_sessions(db: Connection) -> None:
    """Cut every connection of a daemon."""
    for pid in sessions(db):
        db.execute("SELECT pg_terminate_backend(%s)", (pid,))


def add_releases(db: Connection, number: int, artist: str = "Artist") -> None:
    add_release(db, artist)
    db.execute(
        sql.SQL(
            "INSERT INTO {library} (artist_id, artist_name, album_title)"
            " SELECT min(a.id), %s || ' ' || n, 'Album ' || n FROM {artists} AS a,"
            " generate_series(1, %s) AS n GROUP BY n"
        ).format(library=table("library"), artists=table("artists")),
        (artist, number - 1),
    )


def test_insert_becomes_an_identity(db: Connection, start: Start) -> None:
    daemon = start().following()
    row = add_release(db, "Stereolab")
    eventually(lambda: count(db, "library_identity") == 1)
    sources = db.execute(
        sql.SQL("SELECT DISTINCT library_id FROM {}").format(table("library_identity_source"))
    ).fetchall()
    assert sources == [(row,)]
    assert settled(db)
    assert daemon.stop() == 0
    assert daemon.logged("stopped", rows_resolved=1, scanned=1) == 1


def test_changes_from_before_the_start_are_answered(db: Connection, start: Start) -> None:
    add_releases(db, 700)
    start()
    eventually(lambda: count(db, "library_identity") == 700)
    assert settled(db)


@pytest.mark.skipif(not ALBUMS.exists(), reason="the file of real albums is not here")
def test_real_albums_are_answered_end_to_end(
    owner_dsn: str, db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.knowledge = Knowledge()
    albums = list(albums_tsv(ALBUMS))
    assert fill(owner_dsn, BACKEND, albums) == len(albums) > 4000
    start()
    eventually(lambda: all_answered(db), 40)
    expected = {
        kind: sum(verdict_for(a.artist_name, a.album_title)["kind"] == kind for a in albums)
        for kind in ("single_artist", "unresolved", "compilation")
    }
    outcomes = db.execute(
        "SELECT replace(outcome, 'visited_', ''), count(*) FROM listener.ledger GROUP BY 1"
    ).fetchall()
    assert sorted(outcomes) == sorted((kind, n) for kind, n in expected.items() if n)
    assert count(db, "library_identity") == expected["single_artist"]


def test_renaming_everything_is_answered(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    add_releases(db, 1200)
    start()
    eventually(lambda: all_answered(db))
    db.execute(
        sql.SQL("UPDATE {} SET artist_name = artist_name || ' Band'").format(table("library"))
    )
    eventually(lambda: all_answered(db))
    assert simulator.calls.rows["bulk"] == 2400


def test_irrelevant_updates_ask_nothing(db: Connection, start: Start, simulator: Simulator) -> None:
    add_release(db)
    start()
    eventually(lambda: all_answered(db))
    db.execute(sql.SQL("UPDATE {} SET plays = plays + 1").format(table("library")))
    rename(db, add_release(db, "Last"), "Last")
    eventually(lambda: all_answered(db))
    assert simulator.calls.rows["bulk"] == 2


def test_nameless_row_is_asked_when_its_name_comes(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    start()
    row = add_release(db, None)
    eventually(lambda: settled(db))
    assert simulator.calls.rows["bulk"] == 0
    rename(db, row, "Nico")
    eventually(lambda: count(db, "library_identity") == 1)


def test_row_changed_while_lml_works_gets_the_answer_to_its_last_content(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    start(REASK_AFTER="0").following()
    simulator.gate.shut()
    row = add_release(db, "Before")
    simulator.calls.wait_for(1, "bulk")
    rename(db, row, "After")
    simulator.gate.open()
    eventually(lambda: all_answered(db))
    assert [question.artist_name for question in simulator.calls.questions()] == ["Before", "After"]
    assert count(db, "library_identity") == 1


def test_row_deleted_while_lml_works_leaves_nothing(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    start(REASK_AFTER="0").following()
    simulator.gate.shut()
    row = add_release(db)
    simulator.calls.wait_for(1, "bulk")
    delete_release(db, row)
    simulator.gate.open()
    eventually(lambda: settled(db))
    assert count(db, "library_identity") == 0


def test_row_edited_in_bursts_is_asked_a_few_times(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    start(REASK_AFTER="2s").following()
    simulator.latency = Latency(fixed=timedelta(milliseconds=50))
    began = time.monotonic()
    row = add_release(db, "Edit 0")
    for number in range(1, 30):
        rename(db, row, f"Edit {number}")
    took = time.monotonic() - began
    eventually(lambda: all_answered(db))
    # The first edit, the last one, and one every two seconds between them.
    assert len(simulator.calls.questions()) <= 3 + took // 2


def asleep(db: Connection) -> bool:
    """Whether nobody looked at the outbox for longer than an awake daemon pauses."""
    latest = db.execute(
        "SELECT max(query_start) < now() - interval '400 ms' FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE '-- Claims changes%'"
    ).fetchone()
    return latest == (True,)


def test_lost_wakeups_cost_seconds_not_changes(db: Connection, start: Start) -> None:
    start(POLL_INTERVAL="2s").following()
    add_release(db, "Woken")
    eventually(lambda: all_answered(db) and asleep(db))
    # The row is recorded as the trigger would, but nobody is notified.
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        row = add_release(db)
        db.execute("INSERT INTO listener.change (stream, row_id) VALUES ('library', %s)", (row,))
    eventually(lambda: count(db, "library_identity") == 2)


def test_killed_daemon_loses_nothing(db: Connection, start: Start, simulator: Simulator) -> None:
    simulator.latency = Latency(fixed=timedelta(milliseconds=30))
    add_releases(db, 4000)
    for calls in (3, 9, 15):
        daemon = start(BATCH_SIZE="100")
        simulator.calls.wait_for(calls, "bulk")
        daemon.kill()
    start(BATCH_SIZE="500")
    eventually(lambda: all_answered(db), 30)
    assert count(db, "library_identity") == 4000


def test_daemon_killed_while_lml_works_loses_nothing(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    daemon = start().following()
    simulator.gate.shut()
    add_releases(db, 30)
    simulator.calls.wait_for(1, "bulk")
    daemon.kill()
    simulator.gate.open()
    assert outbox_size(db) == 30
    start()
    eventually(lambda: all_answered(db))


@pytest.mark.parametrize("with_its_session", [True, False])
def test_daemon_killed_while_writing_loses_nothing(
    dsn: str, db: Connection, start: Start, *, with_its_session: bool
) -> None:
    daemon = start().following()
    with psycopg.connect(dsn) as backend:
        backend.execute(
            sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(table("library_identity"))
        )
        add_releases(db, 30)
        eventually(lambda: _waits_for_a_lock(db))
        daemon.kill()
        if with_its_session:
            end_sessions(db)
            eventually(lambda: not sessions(db))
            assert outbox_size(db) == 30
    # A server does what it was sent though nobody hears of it: all of a page or nothing.
    eventually(lambda: not sessions(db))
    assert outbox_size(db) + count(db, "library_identity") == 30
    start()
    eventually(lambda: all_answered(db))
    assert count(db, "library_identity") == 30


def test_locked_identities_delay_their_own_verdicts_only(
    dsn: str, db: Connection, start: Start
) -> None:
    start(REASK_AFTER="0").following()
    row = add_release(db, "Locked")
    eventually(lambda: all_answered(db))
    with psycopg.connect(dsn) as backend:
        backend.execute(sql.SQL("UPDATE {} SET notes = notes").format(table("library_identity")))
        with db.transaction():
            rename(db, row, "Still locked")
            add_releases(db, 20)
        eventually(lambda: count(db, "library_identity") == 21)
        assert unanswered(db) == [row]
    eventually(lambda: all_answered(db), 30)


def test_cut_connections_lose_nothing(db: Connection, start: Start, simulator: Simulator) -> None:
    simulator.latency = Latency(fixed=timedelta(milliseconds=20))
    add_releases(db, 3000)
    daemon = start(BATCH_SIZE="100").following()
    for calls in (3, 9, 15):
        simulator.calls.wait_for(calls, "bulk")
        end_sessions(db)
    eventually(lambda: all_answered(db), 30)
    row = add_release(db, "After the cut")
    eventually(lambda: all_answered(db))
    assert row not in unanswered(db)
    assert daemon.process.poll() is None


def test_change_without_a_question_waits_for_no_call(
    quiet: Connection, start: Start, simulator: Simulator
) -> None:
    """Calls of a search take all permits, and a change waits for the next."""
    add_releases(quiet, 20)
    capture_again(quiet)
    simulator.faults.add("hang")
    start(LML_MAX_CONCURRENT="1", BATCH_SIZE="1").following()
    simulator.calls.wait_for(1)
    row = add_release(quiet)
    # At once: a release that is read before it is deleted is asked about.
    with quiet.transaction():
        delete_release(quiet, add_release(quiet))
    eventually(lambda: outbox_size(quiet) == 1)
    assert row in unanswered(quiet)


def test_outage_of_lml_keeps_the_changes_and_is_seen(
    db: Connection, start: Start, simulator: Simulator, listener: Commands
) -> None:
    daemon = start(LML_ATTEMPTS="1").following()
    simulator.faults.add("status", status=503, body="html")
    add_releases(db, 50)
    daemon.wait_for("LML unavailable, keeping changes in the outbox")
    assert outbox_size(db) == 50

    def breaker() -> str:
        report = json.loads(listener.run("status", "--json").stdout)
        return str(report["streams"][0]["breaker"])

    eventually(lambda: breaker() == "open")
    simulator.faults.clear()
    eventually(lambda: all_answered(db), 30)
    eventually(lambda: breaker() == "closed")


def test_wrong_token_keeps_the_changes_and_stays_out_of_the_log(
    db: Connection, start: Start
) -> None:
    daemon = start(LML_API_KEY="wrong-token-of-the-tests").following()
    add_release(db)
    daemon.wait_for("LML unavailable, keeping changes in the outbox")
    assert outbox_size(db) == 1
    assert daemon.stop() == 0
    assert not any("wrong-token" in line for line in daemon.lines)


def test_poison_row_does_not_spoil_its_batch(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.faults.add("status", status=422, body="detail", artist="Poison")
    add_releases(db, 99)
    row = add_release(db, "Poison")
    start()
    eventually(lambda: count(db, "library_identity") == 99)
    # It waits in the ledger, beside nobody.
    eventually(lambda: settled(db) and unanswered(db) == [row])
    assert simulator.calls.counts["bulk"] <= 25


@pytest.mark.parametrize(
    "fault", ["short", "foreign", "repeated", "permuted", "wrong_types", "nan", "html", "nul"]
)
def test_nonsense_from_lml_never_ends_the_daemon(
    db: Connection, start: Start, simulator: Simulator, fault: str
) -> None:
    simulator.faults.add(fault, calls=2)
    add_releases(db, 20)
    daemon = start(LML_ATTEMPTS="1", REASK_AFTER="0")
    eventually(lambda: all_answered(db), 30)
    assert count(db, "library_identity") == 20
    assert daemon.process.poll() is None


def test_error_page_of_the_proxy_is_blamed_on_no_row(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.faults.add("html")
    daemon = start(LML_ATTEMPTS="1", MAX_ATTEMPTS="1")
    add_release(db, "Not to blame")
    daemon.wait_for("LML unavailable, keeping changes in the outbox")
    assert outbox_size(db) == 1
    assert db.execute("SELECT count(*) FROM listener.ledger").fetchone() == (0,)
    simulator.faults.clear()
    eventually(lambda: all_answered(db), 30)


def test_two_daemons_never_ask_the_same_change_twice(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    first, second = start(), start()
    eventually(lambda: first.logged("following") + second.logged("following") == 2)
    add_releases(db, 2500)
    eventually(lambda: all_answered(db))
    assert len(asked(simulator)) == len(set(asked(simulator))) == 2500


def test_replica_takes_over_when_the_other_is_killed(db: Connection, start: Start) -> None:
    first = start().following()
    second = start()
    second.wait_for("standing by", stream="library")
    first.kill()
    second.following()
    add_release(db)
    eventually(lambda: all_answered(db))


def test_replica_takes_over_when_the_other_stops(db: Connection, start: Start) -> None:
    first = start().following()
    second = start()
    second.wait_for("standing by", stream="library")
    assert first.stop() == 0
    second.following()
    add_release(db)
    eventually(lambda: all_answered(db))


def test_replica_takes_over_within_30_seconds_from_a_frozen_one(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    first = start(REASK_AFTER="0").following()
    second = start(REASK_AFTER="0")
    second.wait_for("standing by", stream="library")
    simulator.gate.shut()
    row = add_release(db, "Asked by the frozen one")
    simulator.calls.wait_for(1, "bulk")
    first.kill(signal.SIGSTOP)
    simulator.gate.open()
    rename(db, row, "Asked by its successor")
    eventually(lambda: all_answered(db), 30)
    answered = db.execute("SELECT question, ask_order FROM listener.ledger").fetchall()
    first.kill(signal.SIGCONT)
    first.wait_for("standing by", 30, stream="library")
    assert db.execute("SELECT question, ask_order FROM listener.ledger").fetchall() == answered
    add_release(db, "And on it goes")
    eventually(lambda: all_answered(db))


def test_stop_finishes_what_is_being_asked(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    daemon = start().following()
    simulator.gate.shut()
    add_release(db)
    simulator.calls.wait_for(1, "bulk")
    daemon.process.send_signal(signal.SIGINT)
    daemon.wait_for("stopping")
    simulator.gate.open()
    assert daemon.ended() == 0
    assert count(db, "library_identity") == 1
    assert settled(db)


def test_stop_does_not_wait_longer_than_it_may(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    daemon = start(SHUTDOWN_TIMEOUT="200ms").following()
    simulator.gate.shut()
    add_release(db)
    simulator.calls.wait_for(1, "bulk")
    assert daemon.stop() == 0
    assert outbox_size(db) == 1
    simulator.gate.open()


def test_second_signal_ends_at_once(db: Connection, start: Start, simulator: Simulator) -> None:
    daemon = start(SHUTDOWN_TIMEOUT="5m").following()
    simulator.gate.shut()
    add_release(db)
    simulator.calls.wait_for(1, "bulk")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for("stopping")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.ended() == 128 + signal.SIGTERM
    simulator.gate.open()


def test_rotation_of_an_active_identity_is_warmed_once(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    daemon = start().following()
    daemon.wait_for("refreshed the rotation")
    db.execute(
        sql.SQL(
            "INSERT INTO {} (rotation_bin, lml_identity_id, kill_date) VALUES"
            " ('H', 7, NULL), ('L', 7, CURRENT_DATE + 1), ('M', 8, CURRENT_DATE), ('S', NULL, NULL)"
        ).format(table("rotation"))
    )
    eventually(lambda: settled(db))
    assert simulator.calls.rows["refresh"] == 1


def test_role_of_its_own_is_enough(db: Connection, start: Start) -> None:
    daemon = start().following()
    row = add_release(db, "Stereolab")
    db.execute(
        sql.SQL("INSERT INTO {} (rotation_bin, lml_identity_id) VALUES ('H', 7)").format(
            table("rotation")
        )
    )
    eventually(lambda: all_answered(db))
    rename(db, row, "Broadcast")
    eventually(lambda: all_answered(db))
    assert daemon.stop() == 0
    assert not [event for event in daemon.events if event["level"] in {"warning", "error"}]


def test_daemon_waits_for_an_unreachable_database(dsn: str, db: Connection, start: Start) -> None:
    daemon = start(DATABASE_URL=with_database(dsn, "not_there"))
    daemon.wait_for("database refuses")
    assert daemon.stop() == 0


def test_daemon_without_installation_says_what_to_do(db: Connection, start: Start) -> None:
    db.execute("DELETE FROM listener.installed WHERE name LIKE 'schema/0002%'")
    daemon = start()
    assert daemon.ended() == 2
    assert any("listener migrate" in line for line in daemon.lines)


def test_daemon_for_a_schema_without_the_backend_ends_at_the_start(dsn: str, start: Start) -> None:
    daemon = start(WXYC_SCHEMA_NAME="wxyc_shema")
    assert daemon.ended() == 2
    assert any("is WXYC_SCHEMA_NAME the backend's schema?" in line for line in daemon.lines)
    assert not daemon.logged("following")


def test_daemon_without_a_trigger_reports_it_and_finds_existing_rows(
    db: Connection, start: Start
) -> None:
    db.execute(sql.SQL("DROP TRIGGER listener_capture_insert ON {}").format(table("library")))
    add_release(db, "Not captured")
    daemon = start()
    daemon.wait_for("changes are not captured, run `listener migrate`")
    eventually(lambda: all_answered(db))


def _waits_for_a_lock(db: Connection) -> bool:
    return "Lock" in sessions(db).values()


def test_daemon_waits_for_a_read_only_server(
    db: Connection, start: Start, listener: Commands
) -> None:
    daemon = start().following()
    read_only(db, "SET default_transaction_read_only = on")
    for stream in ("library", "rotation"):
        daemon.wait_for("database unavailable", stream=stream)
    swept = listener.run("sweep")
    assert swept.code == 2
    assert "read-only transaction" in swept.stderr
    read_only(db, "RESET default_transaction_read_only")
    add_release(db)
    eventually(lambda: all_answered(db), 40)
    assert not daemon.logged("lane broke, starting it again")
    assert daemon.stop() == 0


def read_only(db: Connection, change: str) -> None:
    """Let the database be what a standby is, or no more, for all who connect from now on."""
    db.execute("SET default_transaction_read_only = off")
    name = sql.Identifier(db.info.dbname)
    db.execute(sql.SQL("ALTER DATABASE {} {}").format(name, sql.SQL(change)))
    end_sessions(db)
