"""Ready or not, well or not, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from listener.domain.change import Stream
from listener.domain.health import (
    Findings,
    Pulse,
    Reading,
    StreamState,
    Waiting,
    WakeMode,
    Word,
    judge_wellness,
    unready,
)
from listener.domain.pacing import BreakerState

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
    waiting = [Waiting(stream, 0, None, followed) for stream in Stream]
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
        (reading(fault="at 10.0.0.7 no"), "the database is not available"),
        (reading(age=timedelta(seconds=31)), "the database has not answered for 31 s"),
    ],
)
def test_unreadable_database_makes_it_unready(seen: Reading, why: str) -> None:
    # What went wrong names hosts and roles, and a probe needs no token.
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


def test_refused_changes_are_no_excuse_for_those_that_wait() -> None:
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
    streams = (STREAMS[0], replace(STREAMS[1], oldest=OLD, backlog=300))
    wellness = judge_wellness(streams, FINE, LIMIT)
    assert wellness.word is Word.BUSY
    assert wellness.why == ("300 changes of rotation waiting, the oldest for 6 min",)


@pytest.mark.parametrize("breaker", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_old_change_is_excused_while_lml_is_down(breaker: BreakerState) -> None:
    silent = replace(PULSE, breaker=breaker)
    assert unready(reading(oldest=OLD), (silent, PULSES[1]), LIMIT) == []


STREAMS = tuple(
    StreamState(
        stream, 0, None, followed=True, wake_mode=WakeMode.NOTIFY, breaker=BreakerState.CLOSED
    )
    for stream in Stream
)
FINE = Findings(missing=(), parked=0, failed=0, never_asked=0, failed_run=None, capture_missed=0)


def test_all_well() -> None:
    wellness = judge_wellness(STREAMS, FINE, LIMIT)
    assert (wellness.word, wellness.why) == (Word.WELL, ("every change is answered",))


def test_fresh_change_does_not_make_it_busy() -> None:
    wellness = judge_wellness(first(backlog=1, oldest=timedelta(seconds=1)), FINE, LIMIT)
    assert (wellness.word, wellness.why) == (Word.WELL, ("changes are answered as they come",))


def test_work_for_a_person_is_reported_and_leaves_it_well() -> None:
    wellness = judge_wellness(STREAMS, replace(FINE, parked=1, never_asked=1200), LIMIT)
    assert wellness.word is Word.WELL
    assert wellness.why[1:] == (
        "1 row parked for a person to look at",
        "1,200 rows not asked about yet",
    )


def test_a_few_failed_rows_are_reported_and_leave_it_well() -> None:
    wellness = judge_wellness(STREAMS, replace(FINE, failed=9), LIMIT)
    assert wellness.word is Word.WELL
    assert wellness.why == (
        "changes are answered as they come",
        "9 rows could not be answered and will be tried again",
    )


def first(**changes: object) -> tuple[StreamState, ...]:
    return (replace(STREAMS[0], **changes), STREAMS[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("streams", "findings", "word", "why"),
    [
        (
            first(backlog=501, oldest=timedelta(seconds=3)),
            FINE,
            Word.BUSY,
            "501 changes of library waiting, the oldest for 3 s",
        ),
        (
            first(backlog=1, oldest=timedelta(seconds=40)),
            FINE,
            Word.BUSY,
            "1 change of library waiting, the oldest for 40 s",
        ),
        (
            first(breaker=BreakerState.OPEN, backlog=9000, oldest=OLD),
            FINE,
            Word.STRAINED,
            "LML does not answer; changes are kept until it does",
        ),
        (
            first(wake_mode=WakeMode.POLL),
            FINE,
            Word.STRAINED,
            "wake-ups for library do not arrive; polling every second",
        ),
        (
            STREAMS,
            replace(FINE, capture_missed=2),
            Word.STRAINED,
            "2 rows had changed without a record in the last day; see capture missed",
        ),
        (
            STREAMS,
            replace(FINE, failed_run="sweep, LML is gone"),
            Word.STRAINED,
            "the last run failed: sweep, LML is gone",
        ),
        (
            STREAMS,
            replace(FINE, failed=10),
            Word.STRAINED,
            "10 rows could not be answered and will be tried again",
        ),
        (
            STREAMS,
            replace(FINE, missing=("triggers/library",)),
            Word.FAILING,
            "not complete: triggers/library; run listener migrate",
        ),
        (first(followed=False), FINE, Word.FAILING, "no daemon follows library; start one"),
        (
            first(wake_mode=WakeMode.DOWN),
            FINE,
            Word.FAILING,
            "the session that wakes library does not respond",
        ),
        (
            first(fault="permission denied for table ledger"),
            FINE,
            Word.FAILING,
            "the database refuses every change of library: permission denied for table ledger",
        ),
        (
            first(stalled=timedelta(seconds=20)),
            FINE,
            Word.FAILING,
            "the library loops have been stuck for 20 s",
        ),
        (
            first(oldest=OLD, backlog=1),
            FINE,
            Word.FAILING,
            "the oldest change of library has waited 6 min",
        ),
    ],
)
def test_word_follows_the_worst_finding(
    streams: tuple[StreamState, ...], findings: Findings, word: Word, why: str
) -> None:
    wellness = judge_wellness(streams, findings, LIMIT)
    assert (wellness.word, wellness.why[0]) == (word, why)


def test_everything_wrong_is_reported() -> None:
    streams = first(
        followed=False, wake_mode=WakeMode.POLL, backlog=600, oldest=timedelta(seconds=90)
    )
    wellness = judge_wellness(streams, replace(FINE, parked=3), LIMIT)
    assert wellness.word is Word.FAILING
    assert len(wellness.why) == 4


def test_stream_of_unknown_state_is_not_blamed() -> None:
    assert judge_wellness(first(wake_mode=None, breaker=None), FINE, LIMIT).word is Word.WELL
