"""How long to wait before trying again."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from listener.domain.pacing import Backoff, Breaker, BreakerState, Pause

BACKOFF = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=30))


def test_delays_double_up_to_the_maximum() -> None:
    delays = [BACKOFF.delay(failures).total_seconds() for failures in range(1, 8)]
    assert delays == [1, 2, 4, 8, 16, 30, 30]


@given(st.integers(1, 10**9))
def test_delay_stays_bounded_after_any_number_of_failures(failures: int) -> None:
    assert BACKOFF.first <= BACKOFF.delay(failures) <= BACKOFF.most


def test_no_pause_before_the_first_failure() -> None:
    assert Pause(BACKOFF).remaining(-1e9) == 0


def test_pause_grows_with_every_failure_after_it() -> None:
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


def test_service_may_ask_for_a_longer_pause() -> None:
    pause = Pause(BACKOFF)
    assert pause.failed(0.0, timedelta(seconds=90)) == timedelta(seconds=90)
    assert pause.remaining(0.0) == 90


def test_service_cannot_shorten_the_pause() -> None:
    assert Pause(BACKOFF).failed(0.0, timedelta(0)) == timedelta(seconds=1)


def test_request_during_a_pause_lengthens_it() -> None:
    pause = Pause(BACKOFF)
    pause.failed(0.0)
    assert pause.failed(0.5, timedelta(seconds=60)) == timedelta(seconds=60)
    assert pause.remaining(0.5) == 60
    assert pause.failures == 1


def test_answer_ends_the_pause_and_resets_the_count() -> None:
    pause = Pause(BACKOFF)
    pause.failed(0.0)
    pause.failed(5.0)
    pause.succeeded()
    assert pause.remaining(5.0) == 0
    assert pause.failed(6.0) == timedelta(seconds=1)


def test_breaker_opens_with_a_failure_and_allows_one_call_after_the_pause() -> None:
    breaker = Breaker(BACKOFF)
    assert breaker.state(0.0) is BreakerState.CLOSED
    breaker.failed(0.0)
    assert breaker.state(0.5) is BreakerState.OPEN
    assert breaker.state(1.0) is BreakerState.HALF_OPEN
    breaker.succeeded()
    assert breaker.state(1.0) is BreakerState.CLOSED


def test_healthy_report_counts_once_and_again_after_an_unhealthy_one() -> None:
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


def test_requested_pause_is_kept_although_the_service_is_healthy() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0, timedelta(seconds=60))
    breaker.heard(30.0, well=True)
    assert breaker.state(59.0) is BreakerState.OPEN
    breaker.heard(60.0, well=True)
    assert breaker.state(60.0) is BreakerState.HALF_OPEN


def test_healthy_report_counts_from_the_end_of_the_requested_pause() -> None:
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


def test_early_report_does_not_use_up_the_one_that_counts() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0, timedelta(seconds=60))
    breaker.heard(1.0, well=True)
    breaker.failed(60.0)
    breaker.heard(60.5, well=True)
    assert breaker.state(60.5) is BreakerState.HALF_OPEN


def test_other_callers_wait_until_the_trial_has_ended() -> None:
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


def test_trial_that_never_reports_its_end_expires() -> None:
    breaker = Breaker(BACKOFF)
    breaker.failed(0.0)
    breaker.begin_trial(10.0)
    assert not breaker.remaining(10.0 + BACKOFF.most.total_seconds())
