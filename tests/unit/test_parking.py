"""What becomes of a row that could not be answered."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from listener.domain.pacing import Backoff
from listener.domain.parking import Failure, Patience
from listener.domain.question import Question
from listener.domain.tally import Skip

QUESTION = Question(7, "Broadcast", "Tender Buttons", None, b"7")


def after(failures: int, attempts: int = 8) -> Failure:
    """Fail a question that failed so often before."""
    question = replace(QUESTION, failures=failures)
    return Patience(attempts).failure(question, Skip.INVALID, "kind: enum")


def test_failure_tells_the_question_the_reason_and_the_count() -> None:
    question = replace(QUESTION, failures=3)
    assert Patience(8).failure(question, Skip.MISMATCH, "no answer came") == Failure(
        question, Skip.MISMATCH, "no answer came", failures=4, ask_again=timedelta(seconds=16)
    )


def test_delay_grows_with_every_failure_up_to_an_hour() -> None:
    delays = [after(failures, attempts=100).ask_again for failures in range(14)]
    seconds = [delay.total_seconds() for delay in delays if delay is not None]
    assert seconds == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600]


def test_delays_are_those_of_the_backoff_given() -> None:
    patience = Patience(8, Backoff(first=timedelta(minutes=1), most=timedelta(minutes=2)))
    failure = patience.failure(QUESTION, Skip.INVALID, "")
    assert failure.ask_again == timedelta(minutes=1)


@pytest.mark.parametrize("attempts", [1, 2, 8, 100])
def test_row_is_parked_with_the_last_attempt_and_not_before(attempts: int) -> None:
    parked = [after(failures, attempts).ask_again is None for failures in range(attempts)]
    assert parked == [False] * (attempts - 1) + [True]


def test_row_that_failed_more_often_than_the_limit_now_allows_is_parked() -> None:
    assert after(7, attempts=3).ask_again is None


def test_long_detail_is_cut() -> None:
    detail = "".join(chr(ord("a") + position % 26) for position in range(1000))
    assert Patience(8).failure(QUESTION, Skip.LML_ERROR, detail).detail == detail[:300]
