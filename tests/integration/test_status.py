"""What the status shows, against rows made for it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import SecretStr
from rich.console import Console

from listener.adapters.postgres.connection import Database, Pool
from listener.adapters.postgres.library import PostgresDue
from listener.adapters.postgres.outbox import LaneTimes, PostgresLanes
from listener.adapters.postgres.sessions import Connection as Session
from listener.adapters.postgres.status import (
    AGES,
    Coverage,
    RunStatus,
    SlotStatus,
    Status,
    StreamStatus,
    read_status,
)
from listener.adapters.postgres.wakeups import Wakeups
from listener.app.verdict import successes, verdict_on
from listener.cli.screen import screen
from listener.domain.change import Stream
from listener.domain.due import RunKind, Scope
from listener.domain.faults import InstallationError, StoreUnavailableError
from listener.domain.health import Cause, Word
from listener.domain.pacing import BreakerState
from listener.domain.pulse import LaneReport
from listener.domain.refreshing import RotationCoverage
from listener.domain.tally import Skip, Tally
from listener.settings import StatusSettings
from tests import database
from tests.acceptance.conftest import eventually
from tests.catalogue import add_release, delete_release, set_column, table
from tests.conftest import BACKEND, Connection, with_database
from tests.integration.conftest import ASK_AGAIN

SETTINGS = StatusSettings(database_url=SecretStr("postgresql://db/x"))


def look(dsn: str, *, include_null_canonical: bool = True) -> Status:
    return database.look(dsn, BACKEND, read_status, include_null_canonical=include_null_canonical)


def enter(
    db: Connection,
    row: int,
    outcome: str | None,
    *,
    days: float | None = None,
    failures: int = 0,
    next_days: float = 5,
    parked: bool = False,
) -> None:
    """Write a row of the ledger: answered `days` ago, to be asked again in `next_days`."""
    db.execute(
        "INSERT INTO listener.ledger"
        " (library_id, question, ask_order, outcome, answered_at, failures, parked, next_ask_at)"
        " VALUES (%s, '', 1, %s, now() - %s::interval, %s, %s, now() + %s::interval)",
        (
            row,
            outcome,
            None if days is None else timedelta(days=days),
            failures,
            parked,
            timedelta(days=next_days),
        ),
    )


@contextmanager
def sessions(*targets: tuple[str, str]) -> Iterator[None]:
    """Open sessions, each given as DSN and name."""
    with ExitStack() as stack:
        for dsn, name in targets:
            stack.enter_context(psycopg.connect(dsn, application_name=name))
        yield


def test_every_row_counts_once(db: Connection, dsn: str) -> None:
    kinds: list[tuple[str | None, float | None, int, float]] = [
        ("single_artist", 1, 0, 5),
        ("single_artist", 9, 0, -2),
        ("unresolved", 1, 0, 5),
        ("visited_compilation", 1, 0, 5),
        ("compilation", 1, 0, 5),
        ("compilation", 1, 3, 1),
        (None, None, 1, 1),
        ("single_artist", 1, 8, 6),
        (None, None, 8, -1),
        (None, None, 0, -1),
    ]
    for outcome, days, failures, next_days in kinds:
        row = add_release(db)
        parked = failures == 8
        enter(db, row, outcome, days=days, failures=failures, next_days=next_days, parked=parked)
    add_release(db)
    enter(db, add_release(db, None), "single_artist", days=1, next_days=-1)
    add_release(db, None)
    gone = add_release(db)
    enter(db, gone, "unresolved", days=1, next_days=-1)
    delete_release(db, gone)

    status = look(dsn)
    assert status.coverage == Coverage(
        rows=13,
        nameless=2,
        asked=9,
        resolved=2,
        unresolved=1,
        compilation=2,
        visited=1,
        failed=2,
        parked=2,
        never=2,
    )
    known = status.coverage
    assert known.rows == known.nameless + known.asked + known.never
    # One of them parked, and its time has come.
    assert status.due_by_time == 3
    assert status.due == {"never": 2, "resolved": 1, "unresolved": 0, "failed": 1}
    assert sum(status.staleness_days.values()) == 7


async def test_status_counts_as_many_due_rows_as_a_search_finds(
    db: Connection, dsn: str, pool: Pool
) -> None:
    due = PostgresDue(pool, BACKEND, ASK_AGAIN)
    for next_days, entity in ((-1, None), (-2, "e1"), (-3, "e2"), (5, "e3")):
        row = add_release(db)
        set_column(db, "library", row, "canonical_entity_id", entity)
        enter(db, row, "unresolved", days=8, next_days=next_days)
    # One that failed is searched for whatever its entity.
    enter(db, add_release(db), None, failures=1, next_days=-1)
    enter(db, add_release(db), None, failures=8, parked=True)
    add_release(db)
    reasons = {"never": 1, "resolved": 0, "unresolved": 3, "failed": 1}
    assert look(dsn).due == reasons
    for taken_in, rows in ((True, 4), (False, 3)):
        scope = Scope(include_null_canonical=taken_in)
        found = [len(page) async for page in due.by_time(scope)]
        found += [len(page) async for page in due.failed(scope)]
        assert sum(found) == rows
        assert look(dsn, include_null_canonical=taken_in).due_by_time == rows


def test_library_without_rows_has_every_count(dsn: str) -> None:
    status = look(dsn)
    assert set(status.staleness_days.values()) == {0}
    assert status.coverage == Coverage(*[0] * 10)
    assert (status.due_by_time, status.runs, status.slots, status.replicas) == (0, (), (), ())


def test_answers_are_counted_by_whole_days(db: Connection, dsn: str) -> None:
    # The middle one of a clock set back is answered in the future.
    for days in (0.1, -0.5, 0.9, 1.1, 2.5, 3.5, 4.5, 5.5, 6.9, 7.1, 400):
        enter(db, add_release(db), "unresolved", days=days)
    counts = {"0-1": 3, "1-2": 1, "2-3": 1, "3-4": 1, "4-5": 1, "5-6": 1, "6-7": 1, "7+": 2}
    assert look(dsn).staleness_days == counts
    assert list(look(dsn).staleness_days) == list(counts)


def test_backlog_is_reported_for_each_stream(db: Connection, dsn: str) -> None:
    for _ in range(3):
        add_release(db)
    db.execute("UPDATE listener.change SET changed_at = now() - interval '90 s' WHERE seq = 2")
    library, rotation = look(dsn).streams
    assert (library.stream, library.backlog) == ("library", 3)
    assert library.oldest_seconds is not None
    assert 90 <= library.oldest_seconds < 100
    assert rotation == StreamStatus("rotation", 0, None, None, None, None, None)


async def test_follower_is_distinguished_from_one_that_is_gone(
    db: Connection, dsn: str, database: Database
) -> None:
    async with PostgresLanes(database, LaneTimes()).hold(Stream.LIBRARY):
        followed, _ = look(dsn).streams
        assert (followed.holder, followed.holder_alive) == ("listener test", True)
        former = db.execute(
            "SELECT stream, holder, holder_pid, holder_started, beat"
            " FROM listener.lane WHERE stream = 'library'"
        ).fetchone()
    db.execute(
        "UPDATE listener.lane SET (stream, holder, holder_pid, holder_started, beat)"
        " = (%s, %s, %s, %s, %s) WHERE stream = 'library'",
        former,
    )
    left, _ = look(dsn).streams
    assert (left.holder, left.holder_alive) == ("listener test", False)


async def test_state_of_the_breaker_is_seen_as_of_the_last_beat(
    dsn: str, database: Database
) -> None:
    state = BreakerState.OPEN
    # A beat is also how long the server may take to answer.
    times = LaneTimes(beat=timedelta(milliseconds=500))
    lanes = PostgresLanes(database, times, lambda _stream: LaneReport(state))
    async with lanes.hold(Stream.ROTATION) as lane, asyncio.timeout(10):
        for word in ("open", "half-open"):
            while look(dsn).streams[1].breaker != word:
                await lane.wait(timedelta(milliseconds=50))
            state = BreakerState.HALF_OPEN
    assert look(dsn).streams[1].breaker is None


async def test_fault_is_seen_until_the_next_good_beat_and_after_the_lane_was_given_up(
    dsn: str, database: Database
) -> None:
    faults: dict[Stream, str | None] = {Stream.LIBRARY: "permission denied for table change"}
    times = LaneTimes(beat=timedelta(milliseconds=500))
    lanes = PostgresLanes(database, times, lambda stream: LaneReport(fault=faults.get(stream)))

    def seen() -> list[tuple[str | None, str | None]]:
        return [(stream.breaker, stream.fault) for stream in look(dsn).streams]

    async def until_seen(fault: str | None) -> None:
        async with asyncio.timeout(10):
            while seen()[0] != ("closed", fault):
                await lane.wait(timedelta(milliseconds=50))

    async with lanes.hold(Stream.LIBRARY) as lane:
        await until_seen("permission denied for table change")
        faults[Stream.LIBRARY] = None
        await until_seen(None)
        faults[Stream.LIBRARY] = "no space left on device"
        await until_seen("no space left on device")
        faults[Stream.LIBRARY] = "no space left on device, 4 times"
    # What was reported by the one that gave the lane up stands until another one reports.
    assert seen() == [(None, "no space left on device, 4 times"), (None, None)]
    faults[Stream.LIBRARY] = None
    async with lanes.hold(Stream.LIBRARY) as lane:
        await until_seen(None)
    assert seen() == [(None, None), (None, None)]


def test_run_without_an_end_is_running_or_lost(db: Connection, dsn: str) -> None:
    report = Tally(resolved=3).report()
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at, ended_at, outcome, reason,"
        " tally) SELECT 'refresh', 'schedule', 'listener old', now() - interval '1 d',"
        " now(), 'done', NULL, %s FROM generate_series(1, 12)",
        (Jsonb(report),),
    )
    ended = datetime(2026, 3, 1, 12, tzinfo=UTC)
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at, ended_at, outcome, reason)"
        " VALUES ('sweep', 'command', 'listener old', now() - interval '3 h', %s, 'failed', 'x')",
        (ended,),
    )
    for holder, age in (("listener gone", "2 h"), ("listener here", "1 h")):
        db.execute(
            "INSERT INTO listener.run (kind, cause, holder, started_at)"
            " VALUES ('audit', 'start', %s, now() - %s::interval)",
            (holder, age),
        )
    with sessions((dsn, "listener here")):
        runs = look(dsn).runs
    assert [run.outcome for run in runs] == ["running", "lost", "failed", *["done"] * 7]
    assert [run.run_id for run in runs] == [15, 14, 13, 12, 11, 10, 9, 8, 7, 6]
    assert runs[2] == RunStatus(
        run_id=13,
        kind="sweep",
        cause="command",
        holder="listener old",
        started_at=runs[2].started_at,
        ended_at=ended,
        outcome="failed",
        reason="x",
        tally={},
    )
    assert runs[3].tally == report
    assert runs[0].ended_at is None


def test_run_whose_own_session_was_cut_is_lost_although_its_process_lives(
    db: Connection, dsn: str
) -> None:
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at, seen_at) VALUES"
        " ('audit', 'x', 'listener a', now() - interval '2 h', now() - interval '6 min'),"
        " ('audit', 'y', 'listener a', now() - interval '3 h', now() - interval '4 min')"
    )
    with sessions((dsn, "listener a")):
        assert [run.outcome for run in look(dsn).runs] == ["lost", "running"]


def test_missed_captures_of_a_day_are_summed_up_however_many_runs_followed(
    db: Connection, dsn: str
) -> None:
    for hours, missed in ((25, 1_000), (23, 400), (11, 12)):
        tally = Tally(capture_missed=missed)
        db.execute(
            "INSERT INTO listener.run (kind, cause, holder, started_at, tally)"
            " VALUES ('audit', 'x', 'listener a', now() - %s * interval '1 h', %s)",
            (hours, Jsonb(tally.report())),
        )
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, tally)"
        " SELECT 'rotation', 'x', 'listener a', '{}' FROM generate_series(1, 20)"
    )
    status = look(dsn)
    assert status.capture_missed == 412
    assert any("changes of 412 rows were not captured" in line for line in shown(status, 120))


def test_slot_of_a_job_that_was_switched_off_is_not_overdue(db: Connection, dsn: str) -> None:
    db.execute(
        "INSERT INTO listener.slot (job, slot, next_at, holder, done) VALUES"
        " ('rotation', now() - interval '3 d', now() - interval '2 d', 'listener a', true),"
        " ('sweep', now() - interval '2 h', now() - interval '1 h', 'listener a', true)"
    )
    rows = [" ".join(line.split()[:4]) for line in shown(look(dsn), 120)]
    assert "rotation off slot of" in rows
    assert any(row.startswith("sweep overdue") for row in rows)


def test_session_in_another_database_keeps_no_run_alive(
    db: Connection, dsn: str, server: str
) -> None:
    db.execute("INSERT INTO listener.run (kind, cause, holder) VALUES ('audit', 'x', 'listener a')")
    with sessions((with_database(server, "postgres"), "listener a")):
        assert [run.outcome for run in look(dsn).runs] == ["lost"]


def test_replicas_are_those_that_work_here(dsn: str, server: str) -> None:
    names = ["listener b", "listener a", "listener a", "listener-status", "listener-migrate"]
    names += ["listener-why", "listener-doctor", "psql", "listening"]
    elsewhere = (with_database(server, "postgres"), "listener c")
    with sessions(elsewhere, *((dsn, name) for name in names)):
        assert look(dsn).replicas == ("listener a", "listener b")


def test_slots_are_reported_by_what_comes_next(db: Connection, dsn: str) -> None:
    times = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)]
    db.execute(
        "INSERT INTO listener.slot (job, slot, next_at, holder, done)"
        " VALUES ('audit', %s, %s, 'listener a', false), ('sweep', %s, %s, 'listener b', true)",
        (times[0], times[2], times[0], times[1]),
    )
    assert look(dsn).slots == (
        SlotStatus("sweep", times[0], times[1], done=True, holder="listener b"),
        SlotStatus("audit", times[0], times[2], done=False, holder="listener a"),
    )


def test_disabled_trigger_is_reported(db: Connection, dsn: str) -> None:
    assert look(dsn).missing == ()
    db.execute(f"ALTER TABLE {BACKEND}.rotation DISABLE TRIGGER listener_capture_insert")
    assert look(dsn).missing == ("triggers/rotation",)


def test_unready_parts_are_named(db: Connection, dsn: str) -> None:
    with pytest.raises(InstallationError, match="WXYC_SCHEMA_NAME"):
        database.look(dsn, "elsewhere", read_status)
    db.execute("DELETE FROM listener.installed WHERE name = 'schema/0002_due_runs_slots'")
    with pytest.raises(InstallationError, match=r"older version: schema/0002.*listener migrate"):
        look(dsn)
    db.execute("DROP SCHEMA listener CASCADE")
    with pytest.raises(InstallationError, match=r"not installed: schema/0001.*listener migrate"):
        look(dsn)
    with pytest.raises(StoreUnavailableError, match="correct DATABASE_URL"):
        look(with_database(dsn, "no_such_database"))


def test_status_timeout_does_not_depend_on_the_address(dsn: str) -> None:
    async def sleep(connection: Session, _backend: str) -> None:
        await connection.execute("SET statement_timeout = 1; SELECT pg_sleep(9)")

    with pytest.raises(StoreUnavailableError, match=r"statement timeout$"):
        database.look(dsn, BACKEND, sleep)


def shown(status: Status, width: int) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, highlight=False, markup=False, force_terminal=False
    )
    console.print(screen(status, verdict_on(status, SETTINGS)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def full_status(dsn: str) -> Status:
    """Return a status with all that can be there, and numbers as long as they get."""
    tally = Tally(resolved=39_000, resolved_compilations=1_000, unresolved=20_000)
    tally.skip(Skip.LML_ERROR, 1234)
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    run = RunStatus(
        run_id=1,
        kind="backfill",
        cause="schedule",
        holder="listener 12345678",
        started_at=now - timedelta(minutes=50),
        ended_at=now - timedelta(minutes=10),
        outcome="failed",
        reason="gave up after 5 failures in a row: \x1b[31mLML " + "x" * 200 + " end.",
        tally=tally.report(),
    )
    slot = SlotStatus("sweep", now, now + timedelta(minutes=7), done=True, holder="listener a")
    return replace(
        look(dsn),
        at=now,
        missing=("triggers/library",),
        streams=(
            StreamStatus(
                "library",
                64_676,
                7200.0,
                "listener 12345678",
                holder_alive=False,
                breaker="closed",
                fault=None,
            ),
            StreamStatus(
                "rotation",
                1,
                0.2,
                "listener 12345670",
                holder_alive=True,
                breaker="open",
                fault=None,
                lml_trouble="answered 503",
                lml_trouble_since=now - timedelta(minutes=3),
                lml_next_try=now + timedelta(seconds=9),
            ),
        ),
        replicas=tuple(f"listener 1234567{number}" for number in range(4)),
        coverage=Coverage(64_676, 76, 64_599, 40_000, 20_000, 4_000, 1_000, 500, 99, 1),
        staleness_days=dict.fromkeys(AGES, 12_345),
        rotation=RotationCoverage(
            active=1_005,
            with_discogs_id=1_004,
            with_identity=1_003,
            resolved=1_002,
            coverage=0.99899,
            identities=1_001,
            warmed_24h=1_000,
        ),
        runs=(run,) * 10,
        capture_missed=1_234,
        slots=(slot,) * 3,
    )


def words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("width", [80, 120])
def test_full_screen_stays_readable(dsn: str, width: int) -> None:
    lines = shown(full_status(dsn), width)
    assert len(lines) <= 40
    assert max(map(len, lines)) <= width
    assert not any("\x1b" in line for line in lines)
    text = words(lines)
    assert "library 64,676 2 h - listener 12345678, disconnected" in text
    assert "rotation 1 0 s has answered 503 listener 12345670" in text
    assert "rows no artist name never asked failed parked 64,676 76 1 500 99" in text
    assert "resolved unresolved compilation visited 40,000 20,000 4,000 1,000" in text
    assert "asked about 99.9 % of the rows with an artist name" in text
    assert "1,005 1,004 1,003 99.8 % 1,001 1,000" in text
    assert "schedule 50 min ago 40 min failed 61,234 40,000 20,000 1,234" in text
    assert "not complete: triggers/library; run listener migrate" in text
    assert "sweep in 7 min slot of 2026-03-01 12:00:00 UTC, done by listener a" in text


@pytest.mark.parametrize("width", [30, 40, 60, 79, 80, 120])
def test_nothing_is_truncated_on_the_narrowest_screen(dsn: str, width: int) -> None:
    lines = shown(full_status(dsn), width)
    assert max(map(len, lines)) <= width
    text = words(lines)
    numbers = ("64,676", "76", "500", "99", "40,000", "20,000", "4,000", "1,000", "1,005", "61,234")
    assert not set(numbers) - set(text.replace(";", " ").split())
    names = ("no artist name", "never asked", "visited", "warmed in 24 h", "unresolved", "took")
    assert [name for name in names if name not in text] == []
    # The reason is one long word, broken where the line ends.
    reason = text.partition("last failure: ")[2].replace(" ", "")
    assert reason.startswith("backfill,started50minago:gaveupafter5failuresinarow:")
    assert "x" * 200 + "end." in reason


def test_fault_of_a_lane_is_reported_with_its_reason(db: Connection, dsn: str) -> None:
    assert not any("refuses" in line for line in shown(look(dsn), 80))
    db.execute("UPDATE listener.lane SET fault = 'no \x1b[2Jspace' WHERE stream = 'library'")
    refused = "the database refuses every change of library: no \\x1b[2Jspace"
    assert refused in words(shown(look(dsn), 80))


def test_last_failure_is_reported_with_its_reason(db: Connection, dsn: str) -> None:
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at, outcome, reason) VALUES"
        " ('audit', 'x', 'listener a', now() - interval '2 h', 'failed', 'LML went'),"
        " ('sweep', 'x', 'listener a', now() - interval '1 h', 'done', NULL)"
    )
    assert "last failure: audit, started 2 h ago: LML went" in shown(look(dsn), 80)
    db.execute("INSERT INTO listener.run (kind, cause, holder) VALUES ('refresh', 'x', 'gone')")
    lost = "last failure: refresh, started 0 s ago: its process died or lost its connection"
    assert lost in shown(look(dsn), 80)


def test_daemons_that_stand_by_are_distinguished_from_those_that_follow(dsn: str) -> None:
    status = full_status(dsn)
    one_follows = "listener 12345670 follows, listener 12345671 stands by"
    assert f"4 daemons: {one_follows}, " in words(shown(status, 80))
    alone = replace(status, replicas=status.replicas[:1])
    assert "1 daemon: listener 12345670 follows" in shown(alone, 80)


async def test_trouble_with_lml_has_a_start_that_further_failures_do_not_move(
    dsn: str, database: Database
) -> None:
    report = LaneReport(lml_trouble="answered 503", lml_pause=timedelta(seconds=12))
    lanes = PostgresLanes(database, LaneTimes(beat=timedelta(milliseconds=500)), lambda _: report)

    async def until_seen(lane: Wakeups, cause: str | None) -> StreamStatus:
        async with asyncio.timeout(10):
            while (found := look(dsn).streams[0]).lml_trouble != cause:
                await lane.wait(timedelta(milliseconds=50))
        return found

    async with lanes.hold(Stream.LIBRARY) as lane, lanes.hold(Stream.ROTATION):
        first = await until_seen(lane, "answered 503")
        report = replace(report, lml_trouble="refused our key (403)")
        second = await until_seen(lane, "refused our key (403)")
        assert first.lml_trouble_since is not None
        assert second.lml_trouble_since == first.lml_trouble_since
        assert second.lml_next_try is not None
        status = look(dsn)
        (why,) = (why for why in verdict_on(status, SETTINGS).why if why.cause is Cause.LML)
        start = f"{first.lml_trouble_since:%H:%M} UTC ("
        assert why.words.startswith(f"LML has refused our key (403) since {start}")
        assert any("has refused our key (403)" in line for line in shown(status, 120))
        report = LaneReport()
        answered = await until_seen(lane, None)
        assert (answered.lml_trouble_since, answered.lml_next_try) == (None, None)


async def test_holder_that_no_longer_beats_has_stalled(
    db: Connection, dsn: str, database: Database
) -> None:
    lanes = PostgresLanes(database, LaneTimes())
    async with lanes.hold(Stream.LIBRARY) as library, lanes.hold(Stream.ROTATION) as rotation:
        await library.wait(timedelta(0))
        await rotation.wait(timedelta(0))
        assert verdict_on(look(dsn), SETTINGS).word is Word.WELL
        db.execute("UPDATE listener.lane SET turned_at = now() - interval '1 min'")
        stalled = verdict_on(look(dsn), SETTINGS)
        assert [why.cause for why in stalled.why] == [Cause.STALLED, Cause.STALLED]


def test_verdict_is_the_first_line(db: Connection, dsn: str) -> None:
    add_release(db)
    db.execute("TRUNCATE listener.change")
    lines = shown(look(dsn), 120)
    assert lines[:2] == [
        "Failing: no daemon follows library; start one",
        "  no daemon follows rotation; start one",
    ]
    assert lines[2].startswith("listener on ")


def enter_run(db: Connection, kind: RunKind, hours: float, outcome: str, cause: str) -> None:
    """Write a run that began the given number of hours ago and took a minute."""
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at, ended_at, outcome, reason)"
        " SELECT %s, %s, 'listener gone', b.began, b.began + interval '1 min', %s, 'why'"
        " FROM (SELECT now() - %s::interval) AS b (began)",
        (kind.value, cause, outcome, timedelta(hours=hours)),
    )


def test_latest_run_of_each_kind_is_judged_whatever_else_ran_since(
    db: Connection, dsn: str
) -> None:
    enter_run(db, RunKind.ROTATION, 30, "done", "schedule")
    enter_run(db, RunKind.ROTATION, 6, "failed", "schedule")
    for number in range(20):
        enter_run(db, RunKind.REFRESH, 5 - number / 4, "done", "schedule")
    enter_run(db, RunKind.SWEEP, 0.1, "failed", "command")
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder) VALUES ('audit', 'start', 'listener here')"
    )
    with sessions((dsn, "listener here")):
        status = look(dsn)
    latest = {run.kind: (run.outcome, run.reason) for run in status.latest_runs}
    assert latest == {"rotation": ("failed", "why"), "refresh": ("done", "why")}
    words = [why.words for why in verdict_on(status, SETTINGS).why if why.cause is Cause.RUNS]
    assert words == ["the last rotation run failed: why"]

    def outcome_of_the_audit() -> str | None:
        return {run.kind: run.outcome for run in look(dsn).latest_runs}.get("audit")

    # The server takes a moment to end the session of its process.
    eventually(lambda: outcome_of_the_audit() == "lost")


def test_walk_by_command_makes_up_for_a_failed_scheduled_one(db: Connection, dsn: str) -> None:
    enter_run(db, RunKind.ROTATION, 6, "failed", "schedule")
    enter_run(db, RunKind.ROTATION, 1, "done", "command")
    causes = {why.cause for why in verdict_on(look(dsn), SETTINGS).why}
    assert Cause.RUNS not in causes


def schedule(db: Connection, job: str, next_in: timedelta) -> None:
    db.execute(
        "INSERT INTO listener.slot (job, slot, next_at, holder, done)"
        " VALUES (%s, now() - interval '1 h', now() + %s::interval, 'listener a', true)",
        (job, next_in),
    )


def test_success_of_a_job_is_that_of_any_run_that_does_its_work(db: Connection, dsn: str) -> None:
    for job in ("sweep", "audit"):
        schedule(db, job, timedelta(hours=1))
    # Switched off days ago.
    schedule(db, "rotation", -timedelta(days=2))
    enter_run(db, RunKind.BACKFILL, 3, "done", "schedule")
    status = look(dsn)
    fresh = status.installed_at
    ended = next(run.succeeded_at for run in status.latest_runs if run.kind == "backfill")
    assert successes(status) == {"sweep": fresh, "audit": max(fresh, ended or fresh)}
    db.execute("UPDATE listener.installed SET installed_at = now() - interval '9 d'")
    status = look(dsn)
    assert successes(status) == {"sweep": status.installed_at, "audit": ended}


def test_rotation_counts_as_cold_only_if_it_is_refreshed_daily(db: Connection, dsn: str) -> None:
    row = add_release(db)
    db.execute(
        sql.SQL(
            "INSERT INTO {} (album_id, rotation_bin, add_date, lml_identity_id)"
            " VALUES (%s, 'H', current_date, 7)"
        ).format(table("rotation")),
        (row,),
    )
    db.execute("UPDATE listener.installed SET installed_at = now() - interval '9 d'")
    enter_run(db, RunKind.ROTATION, 1, "done", "schedule")

    def is_cold() -> bool:
        return Cause.WARMTH in {why.cause for why in verdict_on(look(dsn), SETTINGS).why}

    schedule(db, "rotation", timedelta(hours=1))
    assert not is_cold()
    db.execute(
        "INSERT INTO listener.warmth (identity_id, status, asked_at, failures, renewed_at)"
        " VALUES (7, 'error', now(), 3, now() - interval '37 h')"
    )
    assert is_cold()
    db.execute("UPDATE listener.slot SET next_at = now() - interval '2 d'")
    assert not is_cold()
    db.execute("UPDATE listener.slot SET next_at = now(); DELETE FROM listener.warmth")
    db.execute("UPDATE listener.run SET ended_at = now() - interval '37 h'")
    assert is_cold()
