"""Whether a daemon is ready and the pipeline well, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import combinations

import pytest

from listener.domain.change import Stream
from listener.domain.due import RunKind
from listener.domain.health import (
    Cause,
    Findings,
    LatestRun,
    LmlTrouble,
    RotationState,
    StreamState,
    Wellness,
    Why,
    Word,
    blind,
    judge,
    unready,
)
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse, Reading, StreamReading, WakeMode

LIMIT = timedelta(minutes=5)
PULSE = Pulse(
    stream=Stream.LIBRARY,
    wake_mode=WakeMode.NOTIFY,
    breaker=BreakerState.CLOSED,
    stalled=timedelta(seconds=5),
    looked=timedelta(seconds=5),
    claimed=0,
    held=0,
)
PULSES = (PULSE, replace(PULSE, stream=Stream.ROTATION))
OLD = timedelta(minutes=6)


def reading(
    *,
    oldest: timedelta | None = None,
    followed: bool = False,
    age: timedelta = timedelta(seconds=2),
    fault: str | None = None,
) -> Reading:
    waiting = [StreamReading(stream, 0, None, followed) for stream in Stream]
    waiting[0] = replace(waiting[0], oldest=oldest)
    return Reading(tuple(waiting), 0, age, fault)


def test_follower_of_both_streams_is_ready() -> None:
    assert unready(reading(), PULSES, LIMIT) == []


def test_daemon_that_stands_by_is_ready_while_others_follow() -> None:
    assert unready(reading(followed=True), (), LIMIT) == []
    assert unready(reading(followed=True, oldest=OLD), (), LIMIT) == []


def test_streams_without_a_daemon_make_it_unready() -> None:
    why = ["no daemon follows library", "no daemon follows rotation"]
    assert unready(reading(), (), LIMIT) == why
    assert unready(reading(), PULSES[:1], LIMIT) == why[1:]


def test_daemon_that_starts_or_stops_is_not_ready() -> None:
    assert unready(None, (), LIMIT) == ["starting: the database has not been read yet"]
    assert unready(reading(), PULSES, LIMIT, stopping=True) == ["stopping"]


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (reading(fault="at 10.0.0.7 no"), "the database cannot be read"),
        (reading(age=timedelta(seconds=31)), "the database has not answered for 31 s"),
    ],
)
def test_unreadable_database_makes_it_unready(seen: Reading, why: str) -> None:
    # The reason may name hosts and roles, and a probe needs no token.
    assert unready(seen, PULSES, LIMIT) == [why]


def test_stuck_loops_make_it_unready() -> None:
    still = replace(PULSE, stalled=timedelta(seconds=13))
    assert unready(reading(), (still, PULSES[1]), LIMIT) == [
        "the library loops have been stuck for 13 s"
    ]


def test_dead_session_makes_it_unready() -> None:
    lost = replace(PULSE, wake_mode=WakeMode.DOWN)
    assert unready(reading(), (lost, PULSES[1]), LIMIT) == [
        "the session that wakes library does not respond"
    ]


def test_database_that_refuses_every_change_makes_its_follower_unready() -> None:
    refused = replace(PULSE, fault="permission denied for table ledger on db.internal")
    # The reason may name hosts and roles, and a probe needs no token.
    assert unready(reading(), (refused, PULSES[1]), LIMIT) == [
        "the database refuses every change of library"
    ]


def test_refused_changes_do_not_hide_those_that_wait() -> None:
    refused = replace(PULSE, fault="read-only transaction")
    assert unready(reading(oldest=OLD), (refused, PULSES[1]), LIMIT) == [
        "the database refuses every change of library",
        "the oldest change of library has waited 6 min, more than READY_MAX_LAG, 5 min",
    ]


def test_polling_is_ready() -> None:
    polling = replace(PULSE, wake_mode=WakeMode.POLL)
    assert unready(reading(), (polling, PULSES[1]), LIMIT) == []


def test_old_change_is_reported_with_the_limit() -> None:
    assert unready(reading(oldest=OLD), PULSES, LIMIT) == [
        "the oldest change of library has waited 6 min, more than READY_MAX_LAG, 5 min"
    ]
    assert unready(reading(oldest=LIMIT), PULSES, LIMIT) == []


def test_refreshes_may_wait_for_the_budget() -> None:
    seen = reading()
    paced = replace(seen.waiting[1], oldest=OLD, backlog=300)
    assert unready(replace(seen, waiting=(seen.waiting[0], paced)), PULSES, LIMIT) == []
    paced_stream = replace(STREAMS[1], oldest=OLD, backlog=300)
    assert judged(replace(FINE, streams=(STREAMS[0], paced_stream))) == (
        Word.WELL,
        "changes are waiting, none for too long",
        "300 changes of rotation waiting, the oldest for 6 min",
    )


@pytest.mark.parametrize("breaker", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_old_change_is_excused_while_lml_is_down(breaker: BreakerState) -> None:
    silent = replace(PULSE, breaker=breaker)
    assert unready(reading(oldest=OLD), (silent, PULSES[1]), LIMIT) == []


NOW = datetime(2026, 3, 1, 16, 13, 30, tzinfo=UTC)
STREAMS = tuple(
    StreamState(stream, 0, None, followed=True, woken=True, breaker=BreakerState.CLOSED)
    for stream in Stream
)
DONE = LatestRun(RunKind.AUDIT, NOW - timedelta(hours=2), None, NOW - timedelta(hours=1))
WALKED = RotationState(coverage=1.0, least=0.99, warm_since=NOW - timedelta(hours=20))
FINE = Findings(NOW, LIMIT, STREAMS, runs=(DONE,), rotation=WALKED)


def judged(findings: Findings) -> tuple[str, ...]:
    wellness = judge(findings)
    return (wellness.word, *(why.words for why in wellness.why))


def with_first(findings: Findings, **changes: object) -> Findings:
    first, *others = findings.streams
    return replace(findings, streams=(replace(first, **changes), *others))  # type: ignore[arg-type]


def failed(kind: RunKind, **changes: object) -> LatestRun:
    run = LatestRun(kind, NOW - timedelta(hours=1), "LML is gone")
    return replace(run, **changes)  # type: ignore[arg-type]


SINCE = NOW - timedelta(minutes=4, seconds=10)
TROUBLE = LmlTrouble("answered 503", SINCE, NOW + timedelta(seconds=12))

CAUSES: dict[Cause, tuple[Callable[[Findings], Findings], str]] = {
    Cause.INCOMPLETE: (
        lambda findings: replace(findings, missing=("triggers/library",)),
        "not complete: triggers/library; run listener migrate",
    ),
    Cause.UNFOLLOWED: (
        lambda findings: with_first(findings, followed=False),
        "no daemon follows library; start one",
    ),
    Cause.STALLED: (
        lambda findings: with_first(findings, stalled=timedelta(seconds=20)),
        "the library loops have been stuck for 20 s",
    ),
    Cause.REFUSED: (
        lambda findings: with_first(findings, fault="permission denied for table ledger"),
        "the database refuses every change of library: permission denied for table ledger",
    ),
    Cause.LAG: (
        lambda findings: with_first(findings, oldest=OLD, backlog=1),
        "the oldest change of library has waited 6 min",
    ),
    Cause.LML: (
        lambda findings: with_first(findings, lml=TROUBLE),
        "LML has answered 503 since 16:09 UTC (4 min); next try in 12 s",
    ),
    Cause.POLLING: (
        lambda findings: with_first(findings, woken=False),
        "wake-ups for library do not arrive; polling every second",
    ),
    Cause.CAPTURE: (
        lambda findings: replace(findings, capture_missed=2),
        (
            "changes of 2 rows were not captured in the last day; "
            "see `listener runbook capture-missed`"
        ),
    ),
    Cause.RUNS: (
        lambda findings: replace(findings, runs=(*findings.runs, failed(RunKind.ROTATION))),
        "the last rotation run failed: LML is gone",
    ),
    Cause.FAILURES: (
        lambda findings: replace(findings, failed=10),
        "10 rows failed and will be retried",
    ),
    Cause.COVERAGE: (
        lambda findings: replace(
            findings, rotation=replace(findings.rotation or WALKED, coverage=0.98999)
        ),
        "98.9 % of the rotation on Discogs has an identity, less than ROTATION_MIN_COVERAGE, 99 %",
    ),
    Cause.WARMTH: (
        lambda findings: replace(
            findings,
            rotation=replace(
                findings.rotation or WALKED, warm_since=NOW - timedelta(hours=36, minutes=1)
            ),
        ),
        "the rotation was last fully refreshed 36 h ago",
    ),
}
FAILING = (Cause.INCOMPLETE, Cause.UNFOLLOWED, Cause.STALLED, Cause.REFUSED, Cause.LAG)
ALONE_AND_IN_PAIRS = [*combinations(CAUSES, 1), *combinations(CAUSES, 2)]


def test_table_has_every_cause() -> None:
    assert {*CAUSES, Cause.UNREADABLE} == set(Cause)


@pytest.mark.parametrize("present", [*ALONE_AND_IN_PAIRS, tuple(CAUSES)], ids="+".join)
def test_every_cause_is_reported_alone_and_beside_others(present: tuple[Cause, ...]) -> None:
    wellness = judge(reduce(lambda findings, cause: CAUSES[cause][0](findings), present, FINE))
    notes = [why for why in wellness.why if why.cause is None]
    assert wellness.why == (*(Why(cause, CAUSES[cause][1]) for cause in present), *notes)
    failing = any(cause in FAILING for cause in present)
    assert wellness.word is (Word.FAILING if failing else Word.STRAINED)
    # What waits for more than half a minute is worth a note, too.
    assert len(notes) == (Cause.LAG in present)


def test_all_well() -> None:
    assert judged(FINE) == (Word.WELL, "every change is answered")
    assert judged(replace(FINE, runs=(), rotation=None)) == judged(FINE)


def test_unreadable_database_is_failing() -> None:
    why = Why(Cause.UNREADABLE, "cannot read the database: no route to host")
    assert blind("no route to host") == Wellness(Word.FAILING, (why,))


def test_fresh_change_is_well() -> None:
    found = with_first(FINE, backlog=1, oldest=timedelta(seconds=1))
    assert judged(found) == (Word.WELL, "changes are waiting, none for too long")


@pytest.mark.parametrize(
    ("backlog", "oldest", "note"),
    [
        (501, timedelta(seconds=3), "501 changes of library waiting, the oldest for 3 s"),
        (1, timedelta(seconds=40), "1 change of library waiting, the oldest for 40 s"),
    ],
)
def test_shrinking_backlog_is_noted_and_well(backlog: int, oldest: timedelta, note: str) -> None:
    word, *why = judged(with_first(FINE, backlog=backlog, oldest=oldest))
    assert (word, why[1:]) == (Word.WELL, [note])


def test_work_for_a_person_is_reported_and_leaves_it_well() -> None:
    word, *why = judged(replace(FINE, parked=1, never_asked=1200))
    assert word is Word.WELL
    assert why[1:] == ["1 row parked for a person to look at", "1,200 rows not asked about yet"]


def test_a_few_failed_rows_are_reported_and_leave_it_well() -> None:
    assert judged(replace(FINE, failed=9)) == (
        Word.WELL,
        "changes are waiting, none for too long",
        "9 rows failed and will be retried",
    )


@pytest.mark.parametrize("breaker", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_old_changes_are_no_failure_while_lml_is_down(breaker: BreakerState) -> None:
    silent = with_first(FINE, breaker=breaker, lml=TROUBLE, backlog=9000, oldest=OLD)
    assert judge(silent).word is Word.STRAINED


def test_stream_without_a_report_is_not_blamed() -> None:
    assert judge(with_first(FINE, woken=None, breaker=None)).word is Word.WELL


def test_same_trouble_of_both_streams_is_named_once_with_its_earliest_start() -> None:
    later = replace(TROUBLE, since=SINCE + timedelta(minutes=2))
    both = replace(FINE, streams=(replace(STREAMS[0], lml=later), replace(STREAMS[1], lml=TROUBLE)))
    assert judged(both)[1:] == (CAUSES[Cause.LML][1],)
    other = replace(TROUBLE, cause="refused our key (403)")
    two = replace(FINE, streams=(replace(STREAMS[0], lml=later), replace(STREAMS[1], lml=other)))
    assert len(judged(two)) == 3


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (
            replace(TROUBLE, cause="refused our key (403)", next_try=NOW),
            "LML has refused our key (403) since 16:09 UTC (4 min); being tried now",
        ),
        (
            replace(TROUBLE, since=NOW - timedelta(days=2)),
            "LML has answered 503 since 2026-02-27 16:13 UTC (48 h); next try in 12 s",
        ),
        # The clock of the database was set back.
        (
            replace(TROUBLE, since=NOW + timedelta(minutes=1)),
            "LML has answered 503 since 16:14 UTC (0 s); next try in 12 s",
        ),
    ],
)
def test_trouble_of_lml_has_a_cause_and_a_start(trouble: LmlTrouble, words: str) -> None:
    assert trouble.sentence(NOW) == words


def test_failed_run_is_not_hidden_by_runs_of_another_kind() -> None:
    refreshed = replace(DONE, kind=RunKind.REFRESH, succeeded_at=NOW)
    found = replace(FINE, runs=(failed(RunKind.ROTATION), refreshed, failed(RunKind.AUDIT)))
    assert judged(found)[1:] == (
        "the last rotation run failed: LML is gone",
        "the last audit run failed: LML is gone",
    )


@pytest.mark.parametrize(
    "healed",
    [
        # An operator's walk did what the scheduled one could not.
        (failed(RunKind.ROTATION, succeeded_at=NOW),),
        # After a backfill that failed the daemon looks at every row again, which is an audit.
        (failed(RunKind.BACKFILL), replace(DONE, succeeded_at=NOW)),
        (failed(RunKind.REFRESH), replace(DONE, kind=RunKind.SWEEP, succeeded_at=NOW)),
        # It would have been tried again: nobody schedules it any more.
        (failed(RunKind.ROTATION, started_at=NOW - timedelta(hours=25)),),
    ],
)
def test_failed_run_no_longer_counts_after_a_success_that_covers_it(
    healed: tuple[LatestRun, ...],
) -> None:
    assert judge(replace(FINE, runs=healed)).word is Word.WELL


def test_success_before_the_failure_does_not_cover_it() -> None:
    run = failed(RunKind.ROTATION, succeeded_at=NOW - timedelta(hours=25))
    assert judge(replace(FINE, runs=(run,))).word is Word.STRAINED
