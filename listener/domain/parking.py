"""What becomes of a row that could not be answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from listener.domain.pacing import Backoff
from listener.domain.question import Question
from listener.domain.tally import Skip

_LONGEST_DETAIL = 300
_BACKOFF = Backoff(first=timedelta(seconds=2), most=timedelta(hours=1))
# What breaks calls off costs others time, and in half a day LML may be mended.
_RARELY = Backoff(first=timedelta(minutes=15), most=timedelta(hours=4))


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be answered: how often by now, and why this time.

    It is asked again after `ask_again`; None parks it. One that is `left_to_searches` is asked when
    it is found due, and not by whoever was told of its change.
    """

    question: Question
    reason: Skip
    detail: str
    failures: int
    ask_again: timedelta | None
    left_to_searches: bool = False

    @property
    def is_done_with(self) -> bool:
        """Whether nothing more is to be done about the change that led to it."""
        return self.ask_again is None or self.left_to_searches


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a row is tried before it is parked, and how long it waits between the tries."""

    attempts: int
    backoff: Backoff = _BACKOFF

    def failure(
        self, question: Question, reason: Skip, detail: str, *, breaks_off: bool = False
    ) -> Failure:
        """Decide what becomes of a row whose question failed once more.

        One at which LML `breaks_off` is asked again rarely.
        """
        failures = question.failures + 1
        backoff = _RARELY if breaks_off else self.backoff
        return Failure(
            question=question,
            reason=reason,
            detail=detail[:_LONGEST_DETAIL],
            failures=failures,
            ask_again=None if failures >= self.attempts else backoff.delay(failures),
            left_to_searches=breaks_off,
        )
