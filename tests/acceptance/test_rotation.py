"""What is being played is minted, warmed and walked over, by the real process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from psycopg import sql

from listener.simulator import DiscogsLimits, Endpoint, IdentityMix, Simulator
from tests.acceptance.conftest import Commands, Start, asked, eventually
from tests.catalogue import add_release, outbox_size, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(90)

WARM, COLD = IdentityMix(warm_share=1, tombstone_share=0), IdentityMix(0, 0)


def play(db: Connection, *, first: int = 1, count: int = 1, with_release: bool = True) -> None:
    """Put rows into rotation, each with an identity and a Discogs release of its own."""
    db.execute(
        sql.SQL(
            "INSERT INTO {} (rotation_bin, lml_identity_id, discogs_release_id)"
            " SELECT 'H', n, CASE WHEN %s THEN n END FROM generate_series(%s::int, %s::int) AS n"
        ).format(table("rotation")),
        (with_release, first, first + count - 1),
    )


def play_bare(db: Connection, release: int, album: int | None = None) -> None:
    """Put a row into rotation that lacks its identity."""
    db.execute(
        sql.SQL(
            "INSERT INTO {} (rotation_bin, discogs_release_id, album_id) VALUES ('H', %s, %s)"
        ).format(table("rotation")),
        (release, album),
    )


def known(db: Connection, count: int) -> None:
    """Let identities have answered yesterday."""
    db.execute(
        "INSERT INTO listener.warmth SELECT n, 'warmed', now() - interval '30 h', 0"
        " FROM generate_series(1, %s) AS n",
        (count,),
    )


def unseen(db: Connection) -> None:
    """Forget the changes, as if the daemon had handled them long ago."""
    db.execute("DELETE FROM listener.change")


def pages(simulator: Simulator) -> list[int]:
    return [call.rows for call in simulator.calls.recent("refresh")]


def runs(db: Connection) -> list[object]:
    found = db.execute("SELECT outcome FROM listener.run WHERE kind = 'rotation' ORDER BY run_id")
    return [outcome for (outcome,) in found.fetchall()]


def outcome_of(db: Connection, library_id: int) -> object:
    found = db.execute("SELECT outcome FROM listener.ledger WHERE library_id = %s", [library_id])
    return next(iter(found.fetchone() or ()), None)


def slot_done(db: Connection) -> bool:
    found = db.execute("SELECT done FROM listener.slot WHERE job = 'rotation'").fetchone()
    return found == (True,)


def test_row_without_identity_is_minted_warmed_and_its_release_asked_about(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    start().following().wait_for("refreshed the rotation")
    album = add_release(db)
    eventually(lambda: outbox_size(db) == 0)
    db.execute("UPDATE listener.ledger SET next_ask_at = now()")
    play_bare(db, 12345, album)
    eventually(lambda: outbox_size(db) == 0)
    found = db.execute(
        sql.SQL("SELECT lml_identity_id FROM {}").format(table("rotation"))
    ).fetchone()
    assert found == (100_001,)
    assert [call.ids for call in simulator.calls.recent("refresh")] == [[100_001]]
    assert simulator.calls.counts["mint"] == 1
    eventually(lambda: simulator.calls.rows["bulk"] == 2)


def test_daily_walk_asks_each_identity_once_and_not_again_in_its_slot(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    play(db, count=120)
    known(db, 120)
    unseen(db)
    first = start().following()
    eventually(lambda: slot_done(db))
    assert pages(simulator) == [50, 50, 20]
    assert runs(db) == ["done"]
    assert first.stop() == 0
    second = start().following()
    second.wait_for("checked every row")
    assert second.stop() == 0
    assert pages(simulator) == [50, 50, 20]


def test_walk_that_was_killed_continues_with_what_is_left(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    play(db, count=200)
    known(db, 200)
    unseen(db)
    # The third page of four gets no answer.
    simulator.faults.add("hang", endpoint=Endpoint.REFRESH, ids={101})
    daemon = start().following()
    simulator.calls.wait_for(3, "refresh")
    daemon.kill()
    simulator.faults.clear()
    # What the killed one had answers to is done; its call in flight holds nobody up.
    start().following()
    eventually(lambda: slot_done(db))
    asked = [identity for call in simulator.calls.recent("refresh") for identity in call.ids]
    assert set(asked) == set(range(1, 201))
    assert len(asked) <= 250
    assert runs(db) == [None, "done"]


def test_two_replicas_walk_once(db: Connection, start: Start, simulator: Simulator) -> None:
    simulator.identities.mix = WARM
    play(db, count=100)
    known(db, 100)
    unseen(db)
    start(), start()
    eventually(lambda: slot_done(db))
    assert pages(simulator) == [50, 50]
    assert runs(db) == ["done"]


def test_command_walks_and_reports_what_became_of_the_identities(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.identities.mix = IdentityMix(
        warm_share=1, tombstone_share=0, overrides={3: "not_found", 4: "not_implemented"}
    )
    play(db, count=60)
    known(db, 60)
    unseen(db)
    ran = listener.run("sweep", "--stream", "rotation", "--json")
    assert ran.code == 0, ran.stderr
    report = ran.report["rotation"]
    assert report["identities_scanned"] == report["identities_resolved"] == 60
    assert (report["warmed_releases"], report["not_found"], report["not_implemented"]) == (58, 1, 1)
    assert report["warmed_artists"] == sum(
        simulator.identities.artists_of(i) for i in range(1, 61) if i not in {3, 4}
    )
    assert pages(simulator) == [50, 10]
    status = json.loads(listener.run("status", "--json").stdout)
    assert status["rotation"].pop("coldest") <= status["at"]
    assert status["rotation"] == {
        "active": 60,
        "with_discogs_id": 60,
        "with_identity": 60,
        "resolved": 60,
        "coverage": 1.0,
        "identities": 60,
        "warmed_24h": 58,
    }


def test_command_counts_what_it_asked_as_leftover_changes_too(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.identities.mix = IdentityMix(1, 0, overrides={3: "not_found"})
    play(db, count=5)
    known(db, 8)
    # Only these three wait in the outbox: the walk need not ask about them again.
    unseen(db)
    play(db, first=6, count=3)
    ran = listener.run("sweep", "--stream", "rotation", "--json")
    assert ran.code == 0, ran.stderr
    report = ran.report["rotation"]
    assert pages(simulator) == [3, 5]
    assert report["identities_scanned"] == report["identities_resolved"] == 8
    assert (report["warmed_releases"], report["not_found"]) == (7, 1)
    assert (report["refresh_calls"], report["rows_minted"]) == (2, 0)
    assert db.execute(
        "SELECT (tally ->> 'identities_scanned')::int FROM listener.run WHERE kind = 'rotation'"
    ).fetchone() == (8,)


def test_daily_walk_counts_identities_that_changes_had_refreshed_in_its_slot(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    play(db, count=20)
    known(db, 20)
    unseen(db)
    db.execute("UPDATE listener.warmth SET asked_at = now() WHERE identity_id <= 5")
    daemon = start().following()
    daemon.wait_for("refreshed the rotation", identities_scanned=20, refresh_calls=1)
    assert pages(simulator) == [15]


def test_sweep_does_both_streams(db: Connection, listener: Commands, simulator: Simulator) -> None:
    simulator.identities.mix = WARM
    add_release(db)
    play(db, count=3)
    unseen(db)
    ran = listener.run("sweep", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.report["scanned"] == 1
    assert ran.report["rotation"]["identities_scanned"] == 3


def test_command_reports_on_both_streams_and_so_does_status(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    play(db, count=3)
    unseen(db)
    shown = listener.run("sweep").stdout
    assert "scanned             0" in shown
    assert "rotation            3 identities" in shown
    shown = listener.run("status").stdout
    assert "100.0 %" in shown
    assert "rotation  command" in shown


@pytest.mark.parametrize("options", [("--limit", "5"), ("--only", "failed"), ("--since-id", "1")])
def test_sweep_of_a_part_of_the_library_leaves_the_rotation_alone(
    db: Connection, listener: Commands, simulator: Simulator, options: tuple[str, str]
) -> None:
    play(db, count=3)
    assert listener.run("sweep", *options).code == 0
    assert not simulator.calls.counts["refresh"]
    assert outbox_size(db) == 3


def test_dry_run_counts_identities_without_asking(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    play(db, count=7)
    play(db, count=7)
    ran = listener.run("sweep", "--stream", "rotation", "--dry-run")
    assert (ran.code, ran.report) == (0, {"rotation": {"would_refresh": 7}})
    assert not simulator.calls.counts
    assert outbox_size(db) == 14


def test_options_of_the_library_are_rejected_for_the_rotation(listener: Commands) -> None:
    ran = listener.run("sweep", "--stream", "rotation", "--limit", "3")
    assert ran.code == 2
    assert "work on the library only" in ran.stderr


def test_second_walk_is_refused_during_the_first(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    play(db, count=10)
    unseen(db)
    # What the session of a walk holds until its end.
    db.execute("SELECT pg_advisory_lock(1280528978, 7)")
    ran = listener.run("sweep", "--stream", "rotation")
    assert ran.code == 2
    assert "a rotation walk is already running" in ran.stderr
    assert not simulator.calls.counts["refresh"]
    assert not runs(db)


def test_low_coverage_refuses_the_walk_unless_forced(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    play(db, count=9)
    known(db, 9)
    play_bare(db, 77)
    unseen(db)
    simulator.faults.add("status", endpoint=Endpoint.MINT, status=422)
    ran = listener.run("sweep", "--stream", "rotation")
    assert ran.code == 2
    assert "only 9 of 10 rows in rotation" in ran.stderr
    assert not simulator.calls.counts["refresh"]
    assert listener.run("sweep", "--stream", "rotation", "--force").code == 0
    assert pages(simulator) == [9]


def test_unreadable_mint_replies_are_an_outage(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.faults.add("truncated_json", endpoint="mint")
    for release in range(1, 41):
        play_bare(db, release)
    daemon = start().following()
    outage = "LML unavailable, keeping changes in the outbox"
    eventually(lambda: daemon.logged(outage, stream="rotation") >= 2, 60)
    assert simulator.calls.counts["mint"] <= 4
    simulator.faults.clear()
    bare = sql.SQL("SELECT FROM {} WHERE lml_identity_id IS NULL").format(table("rotation"))
    eventually(lambda: not db.execute(bare).fetchall(), 60)


def test_command_mints_missing_identities_before_it_walks(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    play(db, count=9)
    known(db, 9)
    play_bare(db, 77)
    unseen(db)
    ran = listener.run("sweep", "--stream", "rotation", "--json")
    assert ran.code == 0, ran.stderr
    report = ran.report["rotation"]
    assert report["identities_scanned"] == report["identities_resolved"] == 10
    assert report["warmed_releases"] == 10
    assert (report["rows_minted"], report["refresh_calls"]) == (1, 2)
    assert pages(simulator) == [1, 9]


def test_daemon_behind_low_coverage_mints_and_then_walks(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.identities.mix = WARM
    play_bare(db, 77)
    play(db, count=3)
    unseen(db)
    daemon = start().following()
    daemon.wait_for("requesting new identities", rows=1)
    eventually(lambda: 100_001 in [i for c in simulator.calls.recent("refresh") for i in c.ids])
    assert daemon.stop() == 0
    assert daemon.logged("stopped", rows_minted=1, mints_raced=0)


def test_malformed_replies_and_bad_identities_affect_only_themselves(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    simulator.identities.mix = IdentityMix(1, 0, overrides={5: "from_a_newer_lml"})
    play(db, count=50)
    known(db, 50)
    unseen(db)
    simulator.faults.add("truncated_json", endpoint=Endpoint.REFRESH, calls=1)
    ran = listener.run("sweep", "--stream", "rotation", "--json")
    report = ran.report["rotation"]
    assert ran.code == 1
    assert (report["identities_scanned"], report["lml_error"]) == (50, 1)
    # What failed is taken to be cold when it is tried again, and few of those go at a time.
    first, *others = pages(simulator)
    assert (first, sum(others)) == (50, 50)
    assert max(others) <= 4
    assert "from_a_newer_lml" in ran.stderr


def test_lml_that_is_down_ends_the_command_and_counts_what_was_asked(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    play(db, count=100)
    known(db, 100)
    unseen(db)
    simulator.faults.add("status", endpoint=Endpoint.REFRESH, status=503)
    ran = listener.run("sweep", "--stream", "rotation", "--json")
    assert ran.code == 2
    assert "gave up after 5 failures in a row" in ran.stderr
    report = ran.report["rotation"]
    assert report["identities_scanned"] == report["lml_error"] == 54
    assert runs(db) == ["failed"]


def test_budget_outlives_the_process(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    # A second of Discogs' time each, so that the first pages are seen to have cost 4 each.
    simulator.identities.mix = COLD
    play(db, count=12)
    unseen(db)
    first = listener.begin("sweep", "--stream", "rotation")
    eventually(lambda: simulator.calls.statuses["refresh 200"] == 2)
    first.terminate()
    assert listener.finish(first).code == 143
    spent = db.execute("SELECT sum(cost) >= 18 FROM listener.refresh").fetchone()
    assert spent == (True,)
    second = listener.begin("sweep", "--stream", "rotation")
    eventually(lambda: runs(db) == ["stopped", None])
    with pytest.raises(TimeoutError):
        simulator.calls.wait_for(3, "refresh", seconds=2)
    second.terminate()
    assert listener.finish(second).code == 143


def open_identities(simulator: Simulator) -> int:
    """Count the identities of refresh calls that have no answer yet."""
    calls = simulator.calls.recent("refresh")
    return sum(call.rows for call in calls if call.finished_at is None)


def test_change_of_the_library_is_answered_while_cold_identities_wait_for_discogs(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    simulator.identities.mix = COLD
    # Discogs' bucket is empty, and stays so.
    simulator.discogs = DiscogsLimits(burst=1, calls_a_minute=0.001)
    play(db, count=30)
    unseen(db)
    start().following()
    eventually(lambda: open_identities(simulator) == 3)
    # A change of the rotation finds room beside the walk, and both leave one to the library.
    play(db, first=101, count=5)
    eventually(lambda: open_identities(simulator) == 4)
    row = add_release(db)
    eventually(lambda: outcome_of(db, row) == "single_artist")
    assert open_identities(simulator) == simulator.permits_held == 4
    assert simulator.most_at_work == 5


def test_change_of_the_library_is_asked_once_behind_another_clients_cold_batch(
    db: Connection, start: Start, simulator: Simulator, lml: str
) -> None:
    simulator.identities.mix = COLD
    simulator.clock.change(20)
    simulator.discogs = DiscogsLimits(burst=5)
    daemon = start(ROTATION_WARM_AT="").following()
    daemon.wait_for("checked every row")
    others = {"identity_ids": list(range(1, 51))}
    headers = {"authorization": f"Bearer {simulator.api_key}"}
    url = f"{lml}/api/v1/cache/refresh-for-identities"
    with ThreadPoolExecutor() as elsewhere:
        page = elsewhere.submit(httpx.post, url, json=others, headers=headers, timeout=60)
        eventually(lambda: simulator.permits_held == 5)
        row = add_release(db)
        eventually(lambda: outcome_of(db, row) == "single_artist")
        # LML had not come to the end of that page.
        assert not page.done()
        assert page.result().status_code == 200
    assert asked(simulator) == [row]


@pytest.mark.parametrize("size", ["51", "500"])
def test_batches_larger_than_lmls_limit_are_refused_at_the_start(
    listener: Commands, size: str
) -> None:
    ran = listener.run("sweep", BACKFILL_LML_BATCH_SIZE=size)
    assert ran.code == 2
    assert f"BACKFILL_LML_BATCH_SIZE is '{size}': LML accepts at most 50" in ran.stderr
    assert listener.run("run", BACKFILL_LML_BATCH_SIZE=size).code == 2
