"""How long to wait before trying again."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from listener.domain.pacing import Backoff, Breaker, BreakerState, Pause

BACKOFF = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=30))


def test_delays_double_up_to_the_most() -> None:
    delays = [BACKOFF.delay(failures).total_seconds() for failures in range(1, 8)]
    assert delays == [1, 2, 4, 8, 16, 30, 30]


@given(st.integers(1, 10**9))
def test_delay_stays_within_its_bounds_however_long_it_fails(failures: int) -> None:
    assert BACKOFF.first <= BACKOFF.delay(failures) <= BACKOFF.most


def test_nothing_is_paused_before_a_failure() -> None:
    assert Pause(BACKOFF).remaining(-1e9) == 0


def test_pause_grows_with_every_failure_after_a_silence() -> None:
    pause = Pause(BACKOFF)
    now = 100.0
    for expected in (1, 2, 4):
        assert pause.failed(now) == timedelta(seconds=expected)
        assert pause.remaining(now + expected / 2) == expected / 2
        now += expected
        assert pause.remaining(now) == 0


def test_calls_that_fail_together_count_as_one_failure() -> None:
    pause = Pause(BACKOFF)
    pause.failed(0.0)
    assert pause.failed(0.25) == timedelta(seconds=0.75)
    assert pause.failures == 1
    assert pause.remaining(0.25) == 0.75


def test_service_that_asks_for_more_silence_gets_it() -> None:
    pause = Pause(BACKOFF)
    assert pause.failed(0.0, timedelta(seconds=90)) == timedelta(seconds=90)
    assert pause.remaining(0.0) == 90


def test_service_that_asks_for_less_silence_does_not_get_less() -> None:
    assert Pause(BACKOFF).failed(0.0, timedelta(0)) == timedelta(seconds=1)


def test_longer_silence_asked_for_during_a_pause_is_kept() -> None:
    pause = Pause(BACKOFF)
    pause.failed(0.0)
    assert pause.failed(0.5, timedelta(seconds=60)) == timedelta(seconds=60)
    assert pause.remaining(0.5) == 60
    assert pause.failures == 1


def test_answer_ends_the_pause_and_starts_the_count_anew() -> None:
    pause = Pause(BACKOFF)
    pause.failed(0.0)
    pause.failed(5.0)
    pause.succeeded()
    assert pause.remaining(5.0) == 0
    assert pause.failed(6.0) == timedelta(seconds=1)


def test_breaker_opens_with_a_failure_and_lets_one_through_after_the_silence() -> None:
    breaker = Breaker(BACKOFF)
    assert breaker.state(0.0) is BreakerState.CLOSED
    breaker.failed(0.0)
    assert breaker.state(0.5) is BreakerState.OPEN
    assert breaker.state(1.0) is BreakerState.HALF_OPEN
    breaker.succeeded()
    assert breaker.state(1.0) is BreakerState.CLOSED


def test_word_of_the_service_counts_once_and_again_after_it_was_ill() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0)
    breaker.heard(0.1, well=True)
    assert breaker.state(0.1) is BreakerState.HALF_OPEN
    breaker.failed(0.2)
    breaker.heard(0.3, well=True)
    assert breaker.state(0.3) is BreakerState.OPEN
    breaker.heard(0.4, well=False)
    assert breaker.state(0.4) is BreakerState.OPEN
    breaker.heard(0.5, well=True)
    assert breaker.state(0.5) is BreakerState.HALF_OPEN


def test_silence_that_the_service_asked_for_is_kept_though_it_is_well() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0, timedelta(seconds=60))
    breaker.heard(30.0, well=True)
    assert breaker.state(59.0) is BreakerState.OPEN
    breaker.heard(60.0, well=True)
    assert breaker.state(60.0) is BreakerState.HALF_OPEN


def test_word_of_the_service_counts_from_the_very_end_of_the_silence_it_asked_for() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0)
    breaker.failed(1.0)
    breaker.failed(3.0, timedelta(seconds=2))
    assert breaker.remaining(3.0) == 4
    breaker.heard(4.999, well=True)
    assert breaker.state(4.999) is BreakerState.OPEN
    breaker.heard(5.0, well=True)
    assert breaker.state(5.0) is BreakerState.HALF_OPEN
    assert breaker.remaining(5.0) == 0


def test_word_that_came_too_soon_does_not_use_up_the_one_that_counts() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0, timedelta(seconds=60))
    breaker.heard(1.0, well=True)
    breaker.failed(60.0)
    breaker.heard(60.5, well=True)
    assert breaker.state(60.5) is BreakerState.HALF_OPEN


def test_nobody_else_asks_until_the_trial_has_ended() -> None:
    breaker = Breaker(BACKOFF)
    assert not breaker.begin_trial(0.0)
    assert breaker.remaining(0.0) == 0
    breaker.failed(0.0)
    assert breaker.begin_trial(1.0)
    assert breaker.state(1.0) is BreakerState.HALF_OPEN
    assert breaker.remaining(1.0) == BACKOFF.most.total_seconds()
    breaker.end_trial()
    assert breaker.remaining(1.0) == 0
    breaker.begin_trial(1.0)
    assert breaker.failed(2.0) == 2 * BACKOFF.first
    breaker.begin_trial(9.0)
    breaker.succeeded()
    assert breaker.remaining(9.0) == 0
    assert breaker.state(9.0) is BreakerState.CLOSED


def test_trial_whose_end_is_never_told_does_not_last() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0)
    breaker.begin_trial(10.0)
    assert not breaker.remaining(10.0 + BACKOFF.most.total_seconds())
