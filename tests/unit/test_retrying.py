"""When a row that failed is retried or parked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.question import Question
from listener.domain.retrying import Failing, Retry, RetryPolicy

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
PARKED_FOR = timedelta(days=180)
POLICY = RetryPolicy(attempts=8, parked_for=PARKED_FOR)
# A page of 500 is asked in parts of 63, 8 and 1.
ASKED_WHILE_ISOLATED = 4


def failing(
    failures: int = 1,
    lasting: timedelta = timedelta(),
    suspicion: int = 0,
    *,
    parked: bool = False,
) -> Failing:
    return Failing(failures, lasting, SECOND, suspicion, parked)


def question(suspicion: int) -> Question:
    past = failing(suspicion=suspicion) if suspicion else None
    return Question(7, "Broadcast", "Tender Buttons", None, b"7", failing=past)


def delays(others_answered: Iterable[bool], policy: RetryPolicy = POLICY) -> list[timedelta]:
    """Fail one row again and again; return how long it waits each time."""
    past: Failing | None = None
    lasting, waits = timedelta(), list[timedelta]()
    for answered in others_answered:
        retry = policy.retry(past, others_answered=answered)
        waits.append(retry.after)
        lasting += retry.after
        past = Failing(retry.failures, lasting, retry.after, parked=retry.parked)
    return waits


def seconds(waits: list[timedelta]) -> list[float]:
    return [wait.total_seconds() for wait in waits]


def test_first_failure_is_retried_after_five_seconds() -> None:
    for others_answered in (True, False):
        assert POLICY.retry(None, others_answered=others_answered) == Retry(1, 5 * SECOND)


def test_delay_of_a_row_that_fails_among_others_doubles_up_to_an_hour() -> None:
    policy = RetryPolicy(100, PARKED_FOR)
    waits = seconds(delays([True] * 13, policy))
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]


def test_delay_is_at_most_five_minutes_while_nothing_is_answered() -> None:
    waits = seconds(delays([False] * 10))
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]


@given(st.lists(st.booleans(), min_size=20, max_size=20))
def test_row_is_asked_at_most_ten_times_in_ten_minutes(others_answered: list[bool]) -> None:
    asked, at = ASKED_WHILE_ISOLATED, timedelta()
    for delay in delays(others_answered):
        at += delay
        asked += at < 10 * MINUTE
    assert asked == 10


@given(st.timedeltas(timedelta(), timedelta(days=3)), st.integers(1, 100))
def test_retries_after_an_outage_take_no_longer_than_the_outage(
    outage: timedelta, attempts: int
) -> None:
    at = timedelta()
    waits = iter(delays([False] * 1000, RetryPolicy(attempts, PARKED_FOR)))
    while at <= outage:
        wait = next(waits)
        at += wait
    assert at - outage <= min(5 * MINUTE, outage + 5 * SECOND)


@given(st.integers(1, 10_000), st.integers(1, 100), st.booleans())
def test_no_row_is_parked_within_four_hours(
    failures: int, attempts: int, others_answered: bool
) -> None:
    policy = RetryPolicy(attempts, PARKED_FOR)
    past = failing(failures, 4 * HOUR - SECOND)
    assert not policy.retry(past, others_answered=others_answered).parked


@given(st.integers(1, 10_000), st.timedeltas(timedelta(), timedelta(days=1000)))
def test_no_row_is_parked_while_nothing_else_was_answered(
    failures: int, lasting: timedelta
) -> None:
    retry = POLICY.retry(failing(failures, lasting), others_answered=False)
    assert not retry.parked
    assert retry.after <= 5 * MINUTE


@pytest.mark.parametrize("attempts", [2, 8, 100])
def test_row_is_parked_with_its_last_attempt_and_not_before(attempts: int) -> None:
    policy = RetryPolicy(attempts, PARKED_FOR)
    parked = [
        policy.retry(failing(failures, 4 * HOUR), others_answered=True).parked
        for failures in range(1, attempts)
    ]
    assert parked == [False] * (attempts - 2) + [True]
    retry = policy.retry(failing(attempts - 1, 4 * HOUR), others_answered=True)
    assert retry == Retry(attempts, PARKED_FOR, parked=True)


def test_row_that_failed_more_often_than_the_limit_now_allows_is_parked() -> None:
    policy = RetryPolicy(3, PARKED_FOR)
    assert policy.retry(failing(7, 4 * HOUR), others_answered=True).parked


@pytest.mark.parametrize("others_answered", [True, False])
def test_parked_row_that_fails_again_stays_parked(others_answered: bool) -> None:
    past = failing(2, MINUTE, parked=True)
    retry = POLICY.retry(past, others_answered=others_answered)
    assert retry == Retry(3, PARKED_FOR, parked=True)


def test_row_that_fails_among_others_is_parked_after_four_hours() -> None:
    waits = delays([True] * 15)
    assert PARKED_FOR in waits
    before = waits[: waits.index(PARKED_FOR)]
    assert 4 * HOUR <= sum(before, timedelta()) <= 5 * HOUR


def test_row_that_never_failed_is_not_suspect() -> None:
    assert [question(suspicion).suspicion for suspicion in range(3)] == [0, 1, 2]
