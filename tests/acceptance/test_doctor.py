"""The doctor: every condition that the listener depends on, judged against the real thing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg import sql

from listener.adapters.lml.health import Probe
from listener.app.doctor import judge_probe, judge_sentry
from listener.app.verdict import AT_WORK
from listener.domain.finding import State
from listener.simulator import Health, Simulator
from tests.acceptance.conftest import Commands, Outcome, Start, eventually
from tests.acceptance.terminal import on_terminal
from tests.catalogue import add_release, count, table
from tests.conftest import Connection, with_database

pytestmark = pytest.mark.timeout(30)

CHECKS = [
    "settings",
    "database",
    "server version",
    "clock",
    "deadlocks",
    "schema",
    "triggers",
    "foreign keys",
    "rights",
    "statements",
    "history",
    "wake-ups",
    "LML",
    "LML library route",
    "LML rotation route",
    "LML mint route",
    "deploy gate",
    "Sentry",
]
ON_THE_DATABASE = CHECKS[2:12]
FURTHER = CHECKS[12:]
COMMIT = {"GATE_COMMIT_SHA": "0123abc", "GATE_COMPARE_URL": "http://127.0.0.1:1/{base}...{head}"}

Doctor = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def doctor(listener: Commands) -> Doctor:
    """Examine with settings given as keywords; return the findings that are not ok, by check."""

    def examining(**settings: str) -> dict[str, dict[str, str]]:
        ran = listener.run("doctor", "--before-start", "--json", **settings)
        assert not ran.stderr
        findings = found(ran)
        assert list(findings) == CHECKS
        assert ran.code == any(finding["state"] == "fail" for finding in findings.values())
        for finding in findings.values():
            assert finding["state"] in {"ok", "warn", "fail", "skip"}
            assert bool(finding["advice"]) == (finding["state"] in {"warn", "fail"})
        return {name: said for name, said in findings.items() if said["state"] != "ok"}

    return examining


def found(ran: Outcome) -> dict[str, dict[str, str]]:
    findings: list[dict[str, Any]] = json.loads(ran.stdout)
    assert all(list(finding) == ["check", "state", "finding", "advice"] for finding in findings)
    return {finding["check"]: finding for finding in findings}


def states(findings: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: finding["state"] for name, finding in findings.items()}


def skipped(*checks: str) -> dict[str, str]:
    return dict.fromkeys(checks, "skip")


def test_nothing_is_wrong_and_nothing_is_changed(
    db: Connection, doctor: Doctor, simulator: Simulator
) -> None:
    before = everything(db)
    assert not doctor()
    assert everything(db) == before
    assert simulator.calls.counts == {"health": 1, "bulk": 1, "refresh": 1, "mint": 1}
    assert not any(simulator.calls.rows.values())


def everything(db: Connection) -> list[tuple[object, ...]]:
    """Return how many rows were ever written, and what stands in our schema."""
    return db.execute(
        "SELECT t.relid::regclass::text, t.n_tup_ins, t.n_tup_upd, t.n_tup_del,"
        " (SELECT array_agg(l::text ORDER BY l.stream) FROM listener.lane AS l),"
        " (SELECT s.last_value FROM pg_sequences AS s WHERE s.sequencename = 'ask_order')"
        # What triggers of the backend write is taken back, but counts.
        " FROM pg_stat_user_tables AS t WHERE t.relname <> 'library_watermark' ORDER BY 1"
    ).fetchall()


def test_sequences_that_a_copy_left_behind_are_named(db: Connection, doctor: Doctor) -> None:
    leave_behind(db)
    finding = doctor()["schema"]
    assert finding["state"] == "fail"
    assert "listener.ask_order" in finding["finding"]
    assert "listener migrate" in finding["advice"]


def leave_behind(db: Connection) -> None:
    """Have the ledger hold a later question than the sequence, as a logical copy does."""
    db.execute(
        "INSERT INTO listener.ledger (library_id, question, ask_order, next_ask_at)"
        " VALUES (999, '', 4711, now())"
    )


def test_screen_is_readable_in_a_pipe(listener: Commands) -> None:
    ran = listener.run("doctor", "--before-start", LML_API_KEY="wrong")
    assert ran.code == 1
    lines = ran.stdout.splitlines()
    assert len(lines) == len(CHECKS) + 1
    assert re.match(r"check +state +finding +what to do$", lines[0])
    assert [line[: lines[0].index("state")].strip() for line in lines[1:]] == CHECKS
    route = lines[1 + CHECKS.index("LML library route")]
    assert re.match(r"LML library route +fail +key rejected \(403\) +set LML_API_KEY", route)
    assert "\x1b" not in ran.stdout
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_screen_is_coloured_on_a_terminal_unless_it_is_turned_off(
    dsn: str, lml: str, no_color: str, coloured: bool
) -> None:
    settings = {"DATABASE_URL": dsn, "LIBRARY_METADATA_URL": lml, "NO_COLOR": no_color}
    command = (sys.executable, "-m", "listener", "doctor")
    code, shown = on_terminal(*command, width=100, **settings)
    assert code == 1
    assert "key rejected (401)" in shown
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)) == coloured


def test_wrong_settings_are_all_reported_and_the_database_is_examined_nevertheless(
    doctor: Doctor,
) -> None:
    findings = doctor(LIBRARY_METADATA_URL="lml.example", BATCH_SIZE="0", LINGER="soon")
    assert states(findings) == {"settings": "fail", **skipped(*FURTHER)}
    said = findings["settings"]["finding"].splitlines()
    assert [line.split()[0].rstrip(":") for line in said] == [
        "LIBRARY_METADATA_URL",
        "BATCH_SIZE",
        "LINGER",
    ]


def test_without_a_database_url_all_else_is_skipped(doctor: Doctor) -> None:
    findings = doctor(DATABASE_URL="mysql://u:geheim@db/x")
    assert states(findings) == {"settings": "fail", **skipped(*CHECKS[1:])}
    assert "geheim" not in json.dumps(findings)


def test_database_that_cannot_be_reached_shows_no_password(doctor: Doctor) -> None:
    findings = doctor(DATABASE_URL="postgresql://u:geheim@127.0.0.1:1/x")
    assert states(findings) == {"database": "fail", **skipped(*ON_THE_DATABASE)}
    assert "heim" not in json.dumps(findings)


@pytest.mark.parametrize("password", ["ge@heim", "geheim%zz", "geheim/geheim"])
def test_password_that_would_be_misread_is_a_wrong_setting(doctor: Doctor, password: str) -> None:
    findings = doctor(DATABASE_URL=f"postgresql://u:{password}@127.0.0.1:1/x")
    assert states(findings) == {"settings": "fail", **skipped(*CHECKS[1:])}
    assert "heim" not in json.dumps(findings)
    assert "zz" not in json.dumps(findings)


def test_secrets_are_never_shown(listener: Commands, dsn: str) -> None:
    parts = urlsplit(dsn)
    user = (parts.username or "postgres") + ":geheim-db@" + parts.netloc.rpartition("@")[2]
    secrets = {
        "LML_API_KEY": "geheim-lml",
        "GITHUB_TOKEN": "geheim-host",
        "SENTRY_DSN": "https://geheim-sentry@sentry.example/x/",
    }
    url = parts._replace(netloc=user).geturl()
    for arguments in (("doctor",), ("doctor", "--json")):
        ran = listener.run(*arguments, DATABASE_URL=url, **secrets, **COMMIT)
        assert ran.code == 1
        assert "geheim" not in ran.stdout + ran.stderr


def test_unreachable_database_is_reported(doctor: Doctor, dsn: str) -> None:
    findings = doctor(DATABASE_URL=with_database(dsn, "not_there"))
    assert 'database "not_there" does not exist' in findings["database"]["finding"]


def test_read_only_database_is_reported(db: Connection, doctor: Doctor) -> None:
    name = sql.Identifier(db.info.dbname)
    db.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    findings = doctor()
    assert states(findings) == {"database": "fail", "rights": "warn"}
    assert "read-only" in findings["database"]["finding"]
    assert "turn it off" in findings["database"]["advice"]


def test_missing_parts_are_reported(db: Connection, doctor: Doctor) -> None:
    db.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table("library")))
    db.execute("DELETE FROM listener.installed WHERE name LIKE 'schema/0002%'")
    findings = doctor()
    assert states(findings) == {"schema": "fail", "triggers": "fail", "statements": "skip"}
    assert "schema/0002" in findings["schema"]["finding"]
    assert "triggers/library" in findings["triggers"]["finding"]
    assert "listener migrate" in findings["triggers"]["advice"]


def test_database_without_the_listener_is_reported(db: Connection, doctor: Doctor) -> None:
    db.execute("DROP SCHEMA listener CASCADE")
    assert states(doctor()) == {
        "schema": "fail",
        "triggers": "fail",
        **skipped("statements"),
    }


def test_wrong_schema_of_the_backend_is_reported(doctor: Doctor) -> None:
    findings = doctor(WXYC_SCHEMA_NAME="elsewhere")
    assert findings["rights"]["state"] == "fail"
    assert findings["rights"]["finding"] == "not found: schema elsewhere"
    assert "WXYC_SCHEMA_NAME" in findings["rights"]["advice"]


def test_role_without_a_right_is_reported(
    db: Connection, doctor: Doctor, dsn: str, worker_id: str
) -> None:
    role = f"listener_patient_{worker_id}"
    name = sql.Identifier(role)
    db.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'geheim'").format(name))
    try:
        parts = urlsplit(dsn)
        netloc = f"{role}:geheim@{parts.netloc.rpartition('@')[2]}"
        findings = doctor(DATABASE_URL=parts._replace(netloc=netloc).geturl())
        assert states(findings) == {
            "schema": "fail",
            "triggers": "skip",
            "rights": "fail",
            "history": "warn",
            **skipped("statements"),
        }
        assert "INSERT on the table" in findings["history"]["finding"]
        assert "UPDATE (id) on wxyc_schema.library" in findings["rights"]["finding"]
        assert "listener roles" in findings["rights"]["advice"]
    finally:
        db.execute(sql.SQL("DROP ROLE {}").format(name))


def test_lml_that_does_not_answer_is_reported(doctor: Doctor) -> None:
    findings = doctor(LIBRARY_METADATA_URL="http://127.0.0.1:1")
    assert states(findings) == dict.fromkeys(FURTHER[:4], "fail")


@pytest.mark.parametrize(
    ("health", "state"),
    [(Health(), None), (Health("degraded"), "warn"), (Health("unhealthy"), "fail")],
)
def test_health_of_lml_is_reported(
    doctor: Doctor, simulator: Simulator, health: Health, state: str | None
) -> None:
    simulator.health = health
    assert states(doctor()) == ({} if state is None else {"LML": state})


@pytest.mark.parametrize(
    ("endpoint", "check"),
    [
        ("bulk", "LML library route"),
        ("refresh", "LML rotation route"),
        ("mint", "LML mint route"),
    ],
)
def test_route_that_lml_lacks_is_reported(
    doctor: Doctor, simulator: Simulator, endpoint: str, check: str
) -> None:
    simulator.faults.add("status", status=404, endpoint=endpoint)
    findings = doctor()
    assert states(findings) == {check: "fail"}
    assert "no such route (404)" in findings[check]["finding"]


def test_doctor_mints_nothing(doctor: Doctor, simulator: Simulator) -> None:
    doctor()
    assert simulator.calls.statuses["mint 422"] == 1


@pytest.mark.parametrize(
    ("status", "seconds", "state"),
    [
        (422, 0.1, State.OK),
        (400, 0.1, State.OK),
        (200, 0.1, State.OK),
        (422, 2.5, State.WARN),
        (429, 0.1, State.WARN),
        (401, 0.1, State.FAIL),
        (403, 0.1, State.FAIL),
        (404, 0.1, State.FAIL),
        (405, 0.1, State.FAIL),
        (307, 0.1, State.FAIL),
        (500, 0.1, State.FAIL),
        (503, 9.0, State.FAIL),
    ],
)
def test_route_is_judged(status: int, seconds: float, state: State) -> None:
    finding = judge_probe("LML library route", Probe(status, timedelta(seconds=seconds)))
    assert finding.state is state
    assert bool(finding.advice) == (state is not State.OK)


@pytest.mark.parametrize("body", ["message", "html", "text", "empty"])
def test_route_answered_by_another_service_is_reported(
    doctor: Doctor, simulator: Simulator, body: str
) -> None:
    simulator.faults.add("status", status=200, body=body, endpoint="bulk")
    findings = doctor()
    assert states(findings) == {"LML library route": "fail"}
    assert "not LML" in findings["LML library route"]["finding"]
    assert "LIBRARY_METADATA_URL" in findings["LML library route"]["advice"]


def test_answer_of_the_deploy_gate_is_reported(doctor: Doctor, simulator: Simulator) -> None:
    assert not doctor(**COMMIT)
    simulator.health = Health(commit_sha="f" * 40)
    findings = doctor(**COMMIT)
    assert states(findings) == {"deploy gate": "fail"}
    shut = "shut: the code host does not answer: Connection refused"
    assert findings["deploy gate"]["finding"] == shut


@pytest.mark.parametrize(
    ("dsn", "state"),
    [
        (None, State.OK),
        ("https://key@o1.ingest.sentry.example/42", State.OK),
        ("https://o1.ingest.sentry.example/42", State.FAIL),
        ("https://geheim@sentry.example/", State.FAIL),
        ("geheim", State.FAIL),
        ("ftp://geheim@sentry.example/1", State.FAIL),
        ("https://geheim@sentry.example:port/1", State.FAIL),
    ],
)
def test_sentry_dsn_is_judged(dsn: str | None, state: State) -> None:
    finding = judge_sentry(dsn)
    assert finding.state is state
    assert "geheim" not in finding.finding


def test_usage_error_is_reported_separately(listener: Commands) -> None:
    assert listener.run("doctor", "--nonsense").code == 2


def at_work(listener: Commands, **settings: str) -> dict[str, dict[str, str]]:
    """Return what is found of the daemons and their work."""
    findings = found(listener.run("doctor", "--json", **settings))
    assert [check for check in findings if check not in CHECKS] == list(AT_WORK)
    return {check: findings[check] for check in AT_WORK}


def test_rows_that_no_daemon_asks_about_are_a_failure(db: Connection, listener: Commands) -> None:
    for _ in range(3):
        add_release(db)
    assert listener.run("doctor").code == 1
    seen = at_work(listener)
    assert states(seen) == {
        "verdict": "fail",
        "library lane": "fail",
        "rotation lane": "fail",
        "last runs": "ok",
        "parked": "ok",
        "rotation": "ok",
    }
    assert seen["verdict"]["finding"].startswith("failing: no daemon follows library; start one")
    assert seen["verdict"]["finding"].endswith("3 rows not asked about yet")
    assert seen["library lane"]["finding"].startswith(
        "held by no daemon; 3 changes waiting, the old"
    )
    assert seen["library lane"]["advice"].startswith("start a daemon: `listener run`")
    # Before the first start that is as it should be.
    assert listener.run("doctor", "--before-start").code == 0


def test_running_daemon_is_reported_with_all_that_it_does(
    db: Connection, listener: Commands, start: Start
) -> None:
    add_release(db)
    start().following()
    eventually(lambda: count(db, "library_identity") == 1)
    ended = "SELECT FROM listener.run WHERE kind IN ('backfill', 'audit') AND outcome = 'done'"
    eventually(lambda: db.execute(ended).rowcount == 1)
    (holder, since) = db.execute(
        "SELECT holder, held_since FROM listener.lane WHERE stream = 'library'"
    ).fetchall()[0]
    eventually(lambda: "LML answers" in at_work(listener)["library lane"]["finding"])
    assert listener.run("doctor").code == 0
    seen = at_work(listener)
    assert set(states(seen).values()) == {"ok"}
    assert seen["verdict"]["finding"] == "well: every change is answered"
    moment = f"{since:%Y-%m-%d %H:%M} UTC"
    assert seen["library lane"]["finding"] == (
        f"held by {holder} since {moment}; 0 changes waiting; LML answers"
    )
    assert " done 20" in seen["last runs"]["finding"]


def test_trouble_of_a_running_daemon_is_reported_with_advice(
    db: Connection, listener: Commands
) -> None:
    db.execute("UPDATE listener.lane SET fault = 'no such column' WHERE stream = 'library'")
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, outcome, reason, ended_at)"
        " VALUES ('rotation', 'schedule', 'listener a', 'failed', 'LML is gone', now())"
    )
    seen = at_work(listener)
    assert "refuses every change of library: no such column" in seen["library lane"]["finding"]
    assert "listener runbook database-down" in seen["library lane"]["advice"]
    assert seen["last runs"]["state"] == "warn"
    assert "the last rotation run failed: LML is gone" in seen["last runs"]["finding"]
    assert "listener runbook lml-errors" in seen["last runs"]["advice"]
    db.execute("DROP SCHEMA listener CASCADE")
    assert set(states(at_work(listener)).values()) == {"skip"}
