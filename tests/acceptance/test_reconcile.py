"""The library is made right and kept right: sweep, backfill, and the daemon's schedule."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from listener.simulator import Knowledge, Latency, Simulator
from tests.acceptance.conftest import Commands, Start, asked, capture_again, eventually
from tests.acceptance.test_daemon import add_releases, all_answered, unanswered
from tests.catalogue import add_release, count, outbox_size, rename, table
from tests.conftest import Connection, with_database

pytestmark = pytest.mark.timeout(90)

SKIPS = {
    "compilation",
    "null_artist",
    "gone",
    "already_answered",
    "superseded",
    "lml_cardinality_mismatch",
    "lml_untrusted_library_id",
    "lml_invalid",
    "lml_error",
    "writer_error",
}

TRACKS = {
    "compilation_track_rows_written",
    "compilation_track_rows_skipped_unchanged",
    "compilation_track_rows_skipped_librarian",
    "compilation_track_rows_skipped_no_cta_match",
    "compilation_track_rows_skipped_no_catalog_artist",
    "compilation_track_position_rows_written",
    "compilation_track_position_rows_skipped_ambiguous",
    "compilation_track_entries_invalid",
    "compilation_track_confidences_invalid",
}


def mixed(simulator: Simulator) -> None:
    """Let LML know some rows, not others, and take some for compilations."""
    simulator.knowledge = Knowledge(single_artist_share=0.5, unresolved_share=0.4)


def age(db: Connection, days: int) -> None:
    """Let everything have been answered some days ago."""
    db.execute(
        sql.SQL("UPDATE {} SET last_verified_at = now() - %s * interval '1 day'").format(
            table("library_identity")
        ),
        (days,),
    )
    db.execute(
        "UPDATE listener.ledger SET answered_at = answered_at - %(days)s * interval '1 day',"
        " next_ask_at = next_ask_at - %(days)s * interval '1 day'",
        {"days": days},
    )


def left_by_a_command(db: Connection) -> list[tuple[object, ...]]:
    """Return the sessions of commands, even of those that were killed."""
    return db.execute(
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name LIKE 'listener%' AND datname = current_database()"
    ).fetchall()


def runs(db: Connection) -> list[tuple[object, ...]]:
    return db.execute("SELECT kind, cause, outcome FROM listener.run ORDER BY run_id").fetchall()


def test_backfill_asks_everything_once_and_a_sweep_after_it_nothing(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    mixed(simulator)
    add_releases(quiet, 900)
    add_release(quiet, None)
    backfill = listener.run("backfill", "--json")
    assert backfill.code == 0, backfill.stderr
    assert backfill.report["scanned"] == 900
    assert backfill.report["rows_resolved"] == count(quiet, "library_identity") > 0
    assert backfill.report["rows_unresolved"] > 0
    assert backfill.report["rows_skipped"]["compilation"] > 0
    assert Counter(asked(simulator)).most_common(1)[0][1] == 1
    simulator.calls.reset()
    sweep = listener.run("sweep", "--json")
    assert (sweep.code, sweep.report["scanned"]) == (0, 0)
    assert not asked(simulator)
    assert runs(quiet) == [("backfill", "command", "done"), ("sweep", "command", "done")]


def test_second_sweep_asks_nothing_whatever_became_of_the_rows(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    mixed(simulator)
    add_releases(quiet, 120)
    poison = add_release(quiet, "Poison")
    simulator.faults.add("status", status=422, body="detail", artist="Poison")
    assert listener.run("backfill").code == 1
    age(quiet, 8)
    # What was one artist is unknown now: its identity stays, and is as old as it was.
    simulator.knowledge = Knowledge(single_artist_share=0.0, unresolved_share=0.9)
    simulator.calls.reset()
    first = listener.run("sweep", "--json")
    assert first.code == 1
    assert first.report["scanned"] == 121
    assert first.report["rows_skipped"]["lml_error"] == 1
    assert count(quiet, "library_identity") > 0
    # What fails is asked again after a pause, which no slow start of the next command outlasts.
    quiet.execute(
        "UPDATE listener.ledger SET next_ask_at = next_ask_at + interval '1 hour'"
        " WHERE failures > 0 AND next_ask_at > failed_at"
    )
    simulator.calls.reset()
    second = listener.run("sweep", "--json")
    assert second.report["scanned"] == 0, asked(simulator)
    assert second.code == 0
    assert poison in {
        row[0] for row in quiet.execute("SELECT library_id FROM listener.ledger WHERE failures = 2")
    }


def test_identities_of_an_older_job_are_asked_about_once_they_are_stale(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    rows = [add_release(quiet, f"Artist {number}") for number in range(4)]
    for row, days in ((rows[0], 1), (rows[1], 8)):
        quiet.execute(
            sql.SQL(
                "INSERT INTO {} (library_id, last_verified_at, method, confidence, notes)"
                " VALUES (%s, now() - %s * interval '1 day', 'exact_match', 0.5, 'older job')"
            ).format(table("library_identity")),
            (row, days),
        )
    assert listener.run("sweep").code == 0
    assert sorted(asked(simulator)) == rows[1:]


def test_sweep_finds_exactly_what_capture_missed_and_counts_it(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(db, 50)
    assert listener.run("sweep").code == 0
    simulator.calls.reset()
    row = add_release(db, "Captured")
    db.execute("SET session_replication_role = replica")
    missed = [
        int(str(number[0]))
        for number in db.execute(
            sql.SQL(
                "UPDATE {} SET album_title = album_title || '!' WHERE id % 10 = 0 RETURNING id"
            ).format(table("library"))
        ).fetchall()
    ]
    db.execute("SET session_replication_role = origin")
    ran = listener.run("sweep", "--json")
    assert ran.code == 0
    assert ran.report["capture_missed"] == len(missed) == 5
    assert sorted(asked(simulator)) == sorted([*missed, row])
    assert all_answered(db)
    assert listener.run("sweep", "--json").report["scanned"] == 0


def test_sweep_handles_the_changes_that_no_daemon_follows(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(db, 30)
    db.execute(
        sql.SQL("INSERT INTO {} (rotation_bin, lml_identity_id) VALUES ('H', 7)").format(
            table("rotation")
        )
    )
    ran = listener.run("sweep", "--json")
    assert (ran.code, ran.report["scanned"], ran.report["capture_missed"]) == (0, 30, 0)
    assert all_answered(db)
    assert simulator.calls.rows["refresh"] == 1


def test_sweep_leaves_changes_to_the_daemon_that_follows_them(
    db: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    daemon = start().following()
    daemon.wait_for("checked every row")
    simulator.gate.shut()
    add_releases(db, 5)
    simulator.calls.wait_for(1)
    ran = listener.run("sweep", "--json")
    assert (ran.code, ran.report["scanned"]) == (0, 0)
    simulator.gate.open()
    eventually(lambda: all_answered(db))
    assert Counter(asked(simulator)).most_common(1)[0][1] == 1


def test_dry_run_asks_lml_and_writes_nothing(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    mixed(simulator)
    add_releases(db, 300)
    db.execute("TRUNCATE listener.change")
    for run in (listener.run("sweep", "--dry-run"), listener.run("backfill", DRY_RUN="TRUE")):
        assert run.code == 0, run.stderr
        report = run.report
        assert set(report) == {
            "scanned",
            "lml_total_calls",
            "lml_total_latency_ms",
            "would_resolve",
            "would_resolve_compilation",
            "would_unresolved",
            "would_skip",
            "source_rows_skipped_null_confidence",
        }
        assert set(report["would_skip"]) == SKIPS
        assert report["scanned"] == 300
        assert report["would_resolve"] > 0
        assert report["would_skip"]["compilation"] > 0
        would = ("would_resolve", "would_resolve_compilation", "would_unresolved")
        assert sum(report[name] for name in would) + sum(report["would_skip"].values()) == 300
    assert simulator.calls.rows["bulk"] == 600
    assert count(db, "library_identity") == count(db, "library_identity_source") == 0


@pytest.mark.parametrize(
    "command",
    [
        ("sweep", "--dry-run"),
        ("sweep", "--dry-run", "--recheck"),
        ("sweep", "--dry-run", "--stream", "rotation"),
        ("backfill", "--dry-run"),
        ("backfill", "--plan"),
    ],
)
def test_dry_run_leaves_every_table_and_sequence_as_it_was(
    db: Connection, listener: Commands, simulator: Simulator, command: tuple[str, ...]
) -> None:
    mixed(simulator)
    add_releases(db, 30)
    db.execute("INSERT INTO wxyc_schema.rotation (album_id, rotation_bin) VALUES (1, 'H')")
    assert listener.run("sweep", "--limit", "20").code == 0
    add_releases(db, 10, "More")
    # As a logical copy leaves it.
    db.execute("SELECT setval('listener.run_run_id_seq', 1, false)")
    before = contents(db)
    ran = listener.run(*command)
    assert ran.code == 0, ran.stderr
    assert contents(db) == before


def contents(db: Connection) -> dict[str, object]:
    """Return a digest of each table, versions of rows included, and where each sequence is."""
    names = db.execute(
        "SELECT c.oid::regclass::text, c.relkind FROM pg_class AS c"
        " WHERE c.relnamespace IN ('listener'::regnamespace, 'wxyc_schema'::regnamespace)"
        " AND c.relkind IN ('r', 'S')"
    ).fetchall()
    digest = "SELECT md5(string_agg(t::text || xmin || ctid, ',' ORDER BY ctid)) FROM {} AS t"
    position = "SELECT (last_value, is_called)::text FROM {}"
    statements = {str(name): digest if kind == "r" else position for name, kind in names}
    return {
        name: db.execute(statement.format(name).encode()).fetchone()
        for name, statement in statements.items()
    }


def test_both_searches_of_a_sweep_together_ask_each_row_once(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 100)
    listener.run("backfill")
    age(quiet, 8)
    simulator.latency = Latency(fixed=timedelta(milliseconds=100))
    for flag, skipped in (("--dry-run", "would_skip"), ("--json", "rows_skipped")):
        simulator.calls.reset()
        report = listener.run("sweep", flag, BATCH_SIZE="9", LML_MAX_CONCURRENT="4").report
        assert (report["scanned"], sum(report[skipped].values())) == (100, 0)
        assert Counter(asked(simulator)).most_common(1)[0][1] == 1


def test_report_of_a_real_run_has_its_keys(quiet: Connection, listener: Commands) -> None:
    add_releases(quiet, 3)
    report = listener.run("sweep", "--json").report
    assert set(report) == {
        "scanned",
        "rows_resolved",
        "rows_resolved_compilation",
        "rows_unresolved",
        "rows_skipped",
        *TRACKS,
        "capture_missed",
        "identities_withdrawn",
        "resolved_now_unresolved",
        "kept_manual",
        "lml_total_calls",
        "lml_total_latency_ms",
        "source_rows_skipped_null_confidence",
    }
    assert set(report["rows_skipped"]) == SKIPS
    assert report["lml_total_calls"] == 1


def test_rollout_is_staged_by_canonical_entity(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    rows = [add_release(quiet, f"Artist {number}") for number in range(6)]
    quiet.execute(
        sql.SQL("UPDATE {} SET canonical_entity_id = 'entity' WHERE id = ANY (%s)").format(
            table("library")
        ),
        (rows[:2],),
    )
    staged = listener.run("sweep", "--json", INCLUDE_NULL_CANONICAL="false")
    assert staged.report["scanned"] == 2
    assert asked(simulator) == rows[:2]
    assert listener.run("sweep", "--json").report["scanned"] == 4


def test_shares_are_disjoint_and_complete(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 100)
    ran = [listener.begin("backfill", "--partition", f"{share}/3") for share in (0, 1)]
    codes = [listener.finish(process).code for process in ran]
    last = listener.run("backfill", PARTITION_INDEX="2", PARTITION_COUNT="3")
    assert (codes, last.code) == ([0, 0], 0)
    assert len(asked(simulator)) == len(set(asked(simulator))) == 100


def test_killed_backfill_continues_where_it_stopped(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.latency = Latency(fixed=timedelta(milliseconds=30))
    add_releases(quiet, 2000)
    settings = {"BATCH_SIZE": "50", "LML_MAX_CONCURRENT": "3"}
    killed = listener.begin("backfill", **settings)
    simulator.calls.wait_for(12)
    killed.kill()
    listener.finish(killed)
    simulator.calls.wait_until_idle()
    # The server does what it was sent though nobody hears of it.
    eventually(lambda: not left_by_a_command(quiet))
    answered = {row[0] for row in quiet.execute("SELECT library_id FROM listener.ledger")}
    assert 0 < len(answered) < 2000
    simulator.calls.reset()
    ran = listener.run("backfill", "--json", **settings)
    assert (ran.code, ran.report["scanned"]) == (0, 2000 - len(answered))
    assert not answered & set(asked(simulator))
    assert not unanswered(quiet)


def test_limit_and_only_and_since_id_restrict_a_sweep(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    rows = [add_release(quiet, f"Artist {number}") for number in range(10)]
    assert listener.run("sweep", "--limit", "3", "--json").report["scanned"] == 3
    assert asked(simulator) == rows[:3]
    rename(quiet, rows[0], "Renamed")
    simulator.calls.reset()
    assert listener.run("sweep", "--only", "changed", "--json").report["scanned"] == 1
    assert listener.run("sweep", "--since-id", str(rows[8]), "--json").report["scanned"] == 2
    assert asked(simulator) == [rows[0], *rows[8:]]


def test_plan_estimates_a_backfill_and_asks_nothing(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 1200)
    for _ in range(5):
        add_release(quiet, "Various Artists", code_volume_letters="Z-A")
    plan = listener.run("backfill", "--plan", "--json", VA_BATCH_SIZE="2").report
    assert (plan["rows"], plan["compilations"], plan["lml_calls"]) == (1205, 5, 3 + 3)
    assert plan["seconds"] > 0
    # LML works on five rows at a time, however many calls they come in.
    crowded = listener.run(
        "backfill", "--plan", "--json", VA_BATCH_SIZE="2", LML_MAX_CONCURRENT="5"
    )
    assert (crowded.report["in_flight"], crowded.report["seconds"]) == (4, plan["seconds"])
    assert "1,205 rows, 5 of them compilations" in listener.run("backfill", "--plan").stdout
    assert not asked(simulator)


def test_compilations_are_asked_in_small_batches_and_remembered(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.knowledge = Knowledge()
    add_releases(quiet, 20)
    for number in range(7):
        add_release(quiet, "Various Artists", f"Hits {number}", code_volume_letters="Z")
    ran = listener.run("backfill", "--json", VA_BATCH_SIZE="3")
    not_visited = ran.report["rows_skipped"]["compilation"]
    assert not_visited + ran.report["rows_resolved_compilation"] >= 7
    sizes = sorted(len(call.questions) for call in simulator.calls.recent("bulk"))
    assert sizes == [1, 3, 3, 20]
    assert listener.run("sweep", "--json").report["scanned"] == 0


def test_failing_lml_ends_a_sweep_early_and_leaves_everything_due(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 400)
    simulator.faults.add("status", status=503, body="html")
    ran = listener.run("sweep", "--json", LML_ATTEMPTS="1", BATCH_SIZE="10")
    assert ran.code == 2
    assert "503" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert simulator.calls.counts["bulk"] < 15
    assert ran.report["rows_skipped"]["lml_error"] == ran.report["scanned"] > 0
    assert runs(quiet) == [("sweep", "command", "failed")]
    simulator.faults.clear()
    assert listener.run("sweep", "--json").report["rows_resolved"] == 400


def test_batch_that_lml_fails_is_counted_and_stays_due(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 40)
    simulator.faults.add("status", status=503, body="html", calls=1, endpoint="bulk")
    ran = listener.run("sweep", "--json", LML_ATTEMPTS="1", BATCH_SIZE="10")
    assert ran.code == 1
    assert (ran.report["rows_skipped"]["lml_error"], ran.report["rows_resolved"]) == (10, 30)
    again = listener.run("sweep", "--json")
    assert (again.code, again.report["scanned"]) == (0, 10)


def test_counts_are_aligned_whatever_their_names(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 20)
    simulator.faults.add("status", status=503, body="html", calls=1, endpoint="bulk")
    ran = listener.run("sweep", LML_ATTEMPTS="1", BATCH_SIZE="10")
    counts = [line for line in ran.stdout.splitlines() if re.fullmatch(r"[a-z_() ]+ +\d+", line)]
    assert re.fullmatch(r"lml_error \(failed\) +10", counts[-1])
    assert len({len(line) for line in counts}) == 1
    assert len(counts) == 6
    add_release(quiet, "Stereolab")
    assert re.search(r"^1 call to LML", listener.run("sweep", "--limit", "1").stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL: must start with postgresql://"),
        ({"BATCH_SIZE": "1001"}, "BATCH_SIZE is '1001'"),
        (
            {"PARTITION_INDEX": "2", "PARTITION_COUNT": "2"},
            "PARTITION_COUNT is '2': must be greater than PARTITION_INDEX",
        ),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "refused"),
        ({"LML_API_KEY": "wrong-secret"}, "LML answered 40"),
    ],
)
def test_command_that_cannot_run_explains_why_and_exits_2(
    quiet: Connection, listener: Commands, settings: dict[str, str], words: str
) -> None:
    add_releases(quiet, 60)
    ran = listener.run("sweep", **{"BATCH_SIZE": "10", **settings})
    assert ran.code == 2
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "wrong-secret" not in ran.stderr


def test_command_on_a_database_without_the_listener_says_what_to_do(
    db: Connection, listener: Commands
) -> None:
    db.execute("DROP SCHEMA listener CASCADE")
    ran = listener.run("sweep")
    assert ran.code == 2
    assert "run `listener migrate`" in ran.stderr
    assert not ran.stdout


def test_command_on_a_database_without_the_backend_names_the_setting(
    dsn: str, server: str, listener: Commands
) -> None:
    ran = listener.run("sweep", DATABASE_URL=with_database(dsn, "postgres"))
    assert ran.code == 2
    assert 'no table "wxyc_schema"."library"; is WXYC_SCHEMA_NAME' in ran.stderr
    assert not ran.stdout


@pytest.mark.parametrize("command", ["sweep", "backfill", "backfill --plan"])
def test_command_for_a_schema_without_the_backend_says_what_to_do(
    listener: Commands, command: str
) -> None:
    ran = listener.run(*command.split(), WXYC_SCHEMA_NAME="wxyc_shema")
    assert (ran.code, ran.stdout) == (2, "")
    assert 'no table "wxyc_shema"."library"; is WXYC_SCHEMA_NAME' in ran.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_command_that_is_stopped_ends_cleanly(
    quiet: Connection, listener: Commands, simulator: Simulator, number: int, code: int
) -> None:
    add_releases(quiet, 100)
    simulator.gate.shut()
    process = listener.begin("backfill", BATCH_SIZE="10")
    simulator.calls.wait_for(1)
    process.send_signal(number)
    ran = listener.finish(process)
    simulator.gate.open()
    assert ran.code == code
    assert "Traceback" not in ran.stderr
    assert "stay due" in ran.stderr
    assert runs(quiet) == [("backfill", "command", "stopped")]


def test_daemon_that_finds_nothing_ever_asked_backfills_while_changes_go_first(
    quiet: Connection, start: Start, simulator: Simulator
) -> None:
    add_releases(quiet, 1500)
    capture_again(quiet)
    simulator.gate.shut()
    daemon = start(BATCH_SIZE="20")
    daemon.wait_for("LML was never asked, starting the backfill")
    simulator.calls.wait_for(1)
    row = add_release(quiet, "Live")
    # A call is free for it though the backfill gets no answer to its own.
    eventually(lambda: row in asked(simulator))
    assert [call.rows for call in simulator.calls.recent("bulk")] == [20, 1]
    simulator.gate.open()
    eventually(lambda: all_answered(quiet), 30)
    assert Counter(asked(simulator)).most_common(1)[0][1] == 1
    daemon.wait_for("checked every row")
    assert daemon.stop() == 0
    assert ("backfill", "start", "done") in runs(quiet)


def test_backfill_beside_a_daemon_live_writers_and_a_bulk_import(
    quiet: Connection, start: Start, listener: Commands, simulator: Simulator
) -> None:
    simulator.latency = Latency(fixed=timedelta(milliseconds=10))
    add_releases(quiet, 1500)
    capture_again(quiet)
    process = listener.begin("backfill", "--json", BATCH_SIZE="50")
    daemon = start().following()
    row = add_release(quiet, "Live")
    add_releases(quiet, 1000, "Import")
    rename(quiet, row, "Live again")
    assert listener.finish(process).code == 0
    eventually(lambda: all_answered(quiet), 30)
    daemon.wait_for("checked every row", 30)
    assert count(quiet, "library_identity") == 2501
    assert daemon.stop() == 0


def test_daemon_asks_on_schedule_about_due_and_missed_rows(quiet: Connection, start: Start) -> None:
    rows = [add_release(quiet, f"Artist {number}") for number in range(5)]
    daemon = start(SWEEP_INTERVAL="1s", AUDIT_INTERVAL="1s")
    eventually(lambda: not unanswered(quiet))
    rename(quiet, rows[0], "Missed")
    eventually(lambda: not unanswered(quiet))
    daemon.wait_for("checked every row", capture_missed=1)
    age(quiet, 8)
    eventually(
        lambda: (
            quiet.execute(
                "SELECT count(*) FROM listener.ledger WHERE answered_at > now() - interval '1 day'"
            ).fetchone()
            == (5,)
        )
    )
    assert daemon.stop() == 0


def test_daemon_searches_the_whole_library_whatever_share_the_commands_take(
    quiet: Connection, start: Start
) -> None:
    add_releases(quiet, 20)
    start(PARTITION_INDEX="1", PARTITION_COUNT="3")
    eventually(lambda: not unanswered(quiet))


def test_two_replicas_share_one_slot(quiet: Connection, start: Start) -> None:
    add_releases(quiet, 20)
    first, second = start(SWEEP_INTERVAL="1s"), start(SWEEP_INTERVAL="1s")
    eventually(lambda: first.logged("following") + second.logged("following") == 2)
    refreshes = sql.SQL("SELECT started_at FROM listener.run WHERE kind = 'refresh'")
    eventually(lambda: len(quiet.execute(refreshes).fetchall()) >= 4)
    (found,) = quiet.execute(
        "SELECT count(*), floor(extract(epoch FROM max(started_at)))"
        " - floor(extract(epoch FROM min(started_at))) FROM listener.run WHERE kind = 'refresh'"
    ).fetchall()
    runs_begun, seconds = map(int, map(str, found))
    # A run begins in its second, or a little later; the first one may have been late.
    assert runs_begun <= seconds + 2


def test_daemon_refuses_a_dry_run(listener: Commands) -> None:
    ran = listener.run("run", DRY_RUN="1")
    assert ran.code == 2
    assert "DRY_RUN applies to sweep and backfill" in ran.stderr


def test_killed_daemon_leaves_its_slot_to_the_next_one(
    dsn: str, quiet: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.gate.shut()
    add_releases(quiet, 50)
    first = start(BATCH_SIZE="10")
    simulator.calls.wait_for(1)
    first.kill()
    simulator.gate.open()
    second = start()
    eventually(lambda: not unanswered(quiet), 30)
    second.wait_for("checked every row")
    with psycopg.connect(dsn, autocommit=True) as other:
        eventually(
            lambda: other.execute("SELECT bool_and(done) FROM listener.slot").fetchone() == (True,)
        )
    assert outbox_size(quiet) == 0


def test_lines_of_the_log_name_their_run_and_batch(
    quiet: Connection, listener: Commands, simulator: Simulator
) -> None:
    add_releases(quiet, 30)
    simulator.faults.add("status", status=503, body="html", calls=1, endpoint="bulk")
    ran = listener.run("sweep", LML_ATTEMPTS="1", BATCH_SIZE="10")
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    failed = [line for line in lines if line["event"] == "batch failed"]
    assert [(line["run_id"], line["batch_id"] in {1, 2, 3}) for line in failed] == [(1, True)]
