"""What becomes of a row that could not be answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from listener.domain.pacing import Backoff
from listener.domain.question import Question
from listener.domain.tally import Skip

_LONGEST_DETAIL = 300
_BACKOFF = Backoff(first=timedelta(seconds=2), most=timedelta(hours=1))


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be answered: how often by now, and why this time.

    It is asked again after `ask_again`; None parks it.
    """

    question: Question
    reason: Skip
    detail: str
    failures: int
    ask_again: timedelta | None


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a row is tried before it is parked, and how long it waits between the tries."""

    attempts: int
    backoff: Backoff = _BACKOFF

    def failure(self, question: Question, reason: Skip, detail: str) -> Failure:
        """Decide what becomes of a row whose question failed once more."""
        failures = question.failures + 1
        return Failure(
            question=question,
            reason=reason,
            detail=detail[:_LONGEST_DETAIL],
            failures=failures,
            ask_again=None if failures >= self.attempts else self.backoff.delay(failures),
        )
