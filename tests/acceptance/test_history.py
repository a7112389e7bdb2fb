"""Renames, withdrawals and what a person puts back, with the real process and the command."""

from __future__ import annotations

import json
import re

import pytest
from psycopg import sql

from listener.simulator import Knowledge, Simulator
from tests.acceptance.conftest import Commands, Start, asked, eventually
from tests.acceptance.test_daemon import all_answered
from tests.acceptance.test_look import STATE, look
from tests.acceptance.test_reconcile import age
from tests.catalogue import add_release, count, delete_release, rename, set_column, table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(60)

KNOWN = Knowledge(all_single=True)
UNKNOWN = Knowledge(single_artist_share=0, unresolved_share=1)


def identities(db: Connection) -> list[tuple[object, ...]]:
    statement = sql.SQL("SELECT library_id, method, notes FROM {} ORDER BY 1")
    return db.execute(statement.format(table("library_identity"))).fetchall()


def states(db: Connection) -> list[tuple[object, ...]]:
    statement = sql.SQL("SELECT library_id, superseded_reason FROM {} ORDER BY history_id")
    return db.execute(statement.format(table("library_identity_history"))).fetchall()


@pytest.fixture
def withdrawn(db: Connection, listener: Commands, simulator: Simulator) -> int:
    """Return a row that had an identity, was renamed, and has one no more."""
    row = add_release(db, "Stereolab")
    assert listener.run("sweep").code == 0
    rename(db, row, "Stereo Lab")
    simulator.knowledge = UNKNOWN
    report = listener.run("sweep", "--json").report
    assert (report["scanned"], report["identities_withdrawn"]) == (1, 1)
    assert states(db) == [(row, "withdrawn")]
    return row


def last_state(dsn: str, row: int) -> int:
    number = json.loads(look(dsn, "history", str(row), "--json").stdout)[0]["history_id"]
    assert isinstance(number, int)
    return number


def test_daemon_withdraws_the_identity_of_a_former_name_and_logs_it(
    db: Connection, start: Start, simulator: Simulator
) -> None:
    row = add_release(db, "Stereolab")
    daemon = start().following()
    eventually(lambda: all_answered(db))
    simulator.knowledge = UNKNOWN
    rename(db, row, "Stereo Lab")
    eventually(lambda: states(db) == [(row, "withdrawn")])
    assert identities(db) == []
    assert count(db, "library_identity_source") == 0
    daemon.wait_for(
        "identities withdrawn: their rows changed, and LML finds none for them now",
        rows=[row],
        count=1,
    )
    simulator.knowledge = KNOWN
    rename(db, row, "Stereolab")
    eventually(lambda: len(identities(db)) == 1)
    assert daemon.stop() == 0
    daemon.wait_for("stopped", identities_withdrawn=1, kept_manual=0)


def test_identity_stays_if_withdrawal_is_switched_off(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    row = add_release(db, "Stereolab")
    listener.run("sweep")
    rename(db, row, "Stereo Lab")
    simulator.knowledge = UNKNOWN
    report = listener.run("sweep", "--json", WITHDRAW_ON_CHANGE="false").report
    assert (report["identities_withdrawn"], report["resolved_now_unresolved"]) == (0, 1)
    assert len(identities(db)) == 1


def test_rebuilding_lml_causes_no_withdrawal_and_no_hot_loop(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    rows = [add_release(db, f"Artist {number}") for number in range(4)]
    listener.run("sweep")
    before = identities(db)
    age(db, 8)
    simulator.knowledge = UNKNOWN
    ran = listener.run("sweep")
    assert "4 identities kept, although LML now finds none" in ran.stdout
    simulator.calls.reset()
    for _ in range(3):
        report = listener.run("sweep", "--json").report
        assert (report["scanned"], report["resolved_now_unresolved"]) == (0, 0)
    assert asked(simulator) == []
    assert (identities(db), states(db)) == (before, [])
    age(db, 8)
    simulator.knowledge = KNOWN
    report = listener.run("sweep", "--json").report
    assert (report["scanned"], report["rows_resolved"]) == (len(rows), len(rows))


def test_identities_with_foreign_notes_are_not_asked_about_in_a_loop(
    db: Connection, listener: Commands, simulator: Simulator
) -> None:
    row = add_release(db)
    listener.run("sweep")
    set_column(db, "library_identity", row, "notes", "seen by Jo")
    age(db, 8)
    ran = listener.run("sweep")
    assert "1 identity kept, because a person set it" in ran.stdout
    simulator.calls.reset()
    for _ in range(3):
        assert listener.run("sweep", "--json").report["scanned"] == 0
    assert asked(simulator) == []


def test_restored_identity_is_never_touched_again(
    db: Connection, dsn: str, withdrawn: int, listener: Commands, simulator: Simulator
) -> None:
    state = last_state(dsn, withdrawn)
    done = look(dsn, "history", str(withdrawn), "--restore", str(state), "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "now       none"
    assert done.stdout.splitlines()[-1] == "restored; verdicts will not replace it"
    stands = [(withdrawn, "manual", f"restored from history {state}")]
    assert identities(db) == stands
    assert db.execute("SELECT FROM listener.change").fetchall() == []
    simulator.knowledge = KNOWN
    for _ in range(2):
        age(db, 8)
        assert listener.run("sweep", "--json").report["kept_manual"] == 1
    rename(db, withdrawn, "Broadcast")
    simulator.knowledge = UNKNOWN
    assert listener.run("sweep", "--json").report["kept_manual"] == 1
    assert identities(db) == stands
    again = look(dsn, "history", str(withdrawn), "--restore", str(state), "--yes")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (
        0,
        "this is already the current identity; nothing changed",
    )
    assert states(db) == [(withdrawn, "withdrawn")]


def test_person_is_asked_first_and_nothing_is_locked_meanwhile(
    db: Connection, withdrawn: int, listener: Commands, dsn: str
) -> None:
    state = str(last_state(dsn, withdrawn))
    ours = "SELECT FROM pg_stat_activity WHERE application_name = 'listener-history'"
    asking = listener.begin("history", str(withdrawn), "--restore", state)
    assert asking.stdout is not None
    assert asking.stdin is not None
    assert asking.stdout.readline() == "now       none\n"
    assert asking.stdout.readline().startswith(f"{state:<10}")
    eventually(lambda: not db.execute(ours).fetchall())
    asking.communicate("n\n", timeout=30)
    assert asking.returncode == 1
    assert identities(db) == []
    asking = listener.begin("history", str(withdrawn), "--restore", state)
    output, _ = asking.communicate("y\n", timeout=30)
    assert asking.returncode == 0
    assert "Restore it? Verdicts will not replace it. [y/N]" in output
    assert [identity[1] for identity in identities(db)] == ["manual"]


def test_former_identities_are_listed(db: Connection, dsn: str, withdrawn: int) -> None:
    listed = look(dsn, "history", str(withdrawn))
    assert listed.returncode == 0
    now, state = listed.stdout.splitlines()
    assert now == "now       none"
    assert re.match(r"\d+ +.+; method .+, confidence \d\.\d\d; until .+ ago\): the row", state)
    (former,) = json.loads(look(dsn, "history", str(withdrawn), "--json").stdout)
    assert tuple(former) == STATE
    assert former["superseded_reason"] == "withdrawn"
    assert former["superseded_at"].endswith("+00:00")
    why = look(dsn, "why", str(withdrawn)).stdout
    (line,) = [line for line in why.splitlines() if line.startswith("history")]
    assert f"{former['history_id']}: " in line
    assert "; until " in line


def test_restore_refuses_a_missing_identity(db: Connection, dsn: str, withdrawn: int) -> None:
    other = add_release(db, "Nico")
    state = str(last_state(dsn, withdrawn))
    foreign = look(dsn, "history", str(other), "--restore", state, "--yes")
    assert (foreign.returncode, foreign.stdout) == (1, "")
    assert foreign.stderr == (f"listener: row {other} has no former identities\n")
    unknown = look(dsn, "history", str(withdrawn), "--restore", "999", "--yes")
    assert unknown.stderr.endswith(f"choose from: {state}\n")
    delete_release(db, withdrawn)
    gone = look(dsn, "history", str(withdrawn), "--restore", state, "--yes")
    assert (gone.returncode, gone.stderr) == (
        1,
        f"listener: row {withdrawn} was deleted from the library; nothing can be restored\n",
    )
    # What stood there is still listed.
    assert state in look(dsn, "history", str(withdrawn)).stdout
    assert look(dsn, "history", str(withdrawn), "--restore", "1", "--json").returncode == 2
    never = look(dsn, "history", str(other + 1))
    assert (never.returncode, never.stdout) == (1, "")
    assert never.stderr == (
        f"listener: the library has no row {other + 1}, and the history no identities of it\n"
    )
    as_json = look(dsn, "history", str(other + 1), "--json")
    assert (as_json.returncode, as_json.stdout) == (1, "[]\n")
    nothing = look(dsn, "history", str(other))
    assert nothing.returncode == 0
    assert nothing.stdout.splitlines()[1].strip() == "no former identities"


def test_backend_without_a_history_is_reported_and_works(
    db: Connection, dsn: str, listener: Commands, start: Start
) -> None:
    db.execute(sql.SQL("DROP TABLE {}").format(table("library_identity_history")))
    row = add_release(db)
    daemon = start().following()
    eventually(lambda: all_answered(db))
    rename(db, row, "Broadcast")
    eventually(lambda: all_answered(db))
    assert daemon.stop() == 0
    event = "former identities are not kept, but verdicts are written"
    reason = "table library_identity_history does not exist"
    assert daemon.logged(event) == daemon.logged(event, reason=reason, level="warning") == 1
    ran = listener.run("sweep")
    assert ran.code == 0
    assert ran.stderr.count(event) == 1
    refused = look(dsn, "history", str(row))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert reason in refused.stderr
    assert "cannot be read" in look(dsn, "why", str(row)).stdout
    findings = {each["check"]: each for each in json.loads(listener.run("doctor", "--json").stdout)}
    assert findings["history"]["state"] == "warn"
    assert reason in findings["history"]["finding"]
    assert "listener runbook identity-history" in findings["history"]["advice"]
