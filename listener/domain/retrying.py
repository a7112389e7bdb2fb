"""What becomes of a row that could not be answered: the one backoff, and when to park."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from listener.domain.pacing import Backoff
from listener.domain.question import Failing, Question
from listener.domain.tally import Skip

LONGEST_DETAIL = 300
# A row is asked at most ten times in its first ten minutes, including to isolate it from its page.
_FIRST = timedelta(seconds=5)
# While nothing is answered LML or the database may be at fault: once they work, no row waits long.
_DOUBTFUL = Backoff(first=_FIRST, most=timedelta(minutes=5))
_CERTAIN = Backoff(first=_FIRST, most=timedelta(hours=1))
_NEVER_PARKED_WITHIN = timedelta(hours=4)

# How many suspects of each degree are asked together; those of any other are asked alone.
TOGETHER = {1: 100, 2: 10}
_ALONE = 3
# A suspect that failed alone: no other row can have been the reason.
ISOLATED = 4


@dataclass(frozen=True, slots=True)
class Retry:
    """When a row that failed is tried again, after how many failures in a row."""

    failures: int
    after: timedelta
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be answered, why this time, and when it is tried again.

    `suspicion` grows with every call that failed because of one of several rows: the higher it is,
    the fewer rows are asked together with this one. It ends with `ISOLATED`.
    """

    library_id: int
    digest: bytes
    reason: Skip
    detail: str
    retry: Retry
    suspicion: int = 0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a row that failed is tried again.

    One that failed `attempts` times in a row, for hours, while other rows were answered, is parked:
    it is tried only after `parked_for`, when LML has another release, or when a person says so.
    """

    attempts: int
    parked_for: timedelta

    def retry(self, past: Failing | None, *, others_answered: bool) -> Retry:
        """Decide on one more failure of a row.

        `others_answered` says whether any other row was answered since it failed before.
        """
        if past is None:
            return Retry(1, _FIRST)
        failures = past.failures + 1
        exhausted = failures >= self.attempts and past.lasting >= _NEVER_PARKED_WITHIN
        if past.parked or (exhausted and others_answered):
            return Retry(failures, self.parked_for, parked=True)
        backoff = _CERTAIN if others_answered else _DOUBTFUL
        return Retry(failures, backoff.delay(failures))


def more_suspect(question: Question, together: int, *, alone: bool, others_answered: bool) -> int:
    """Return how suspect a row is once a call about `together` rows failed, `alone` by its fault.

    The next call is a smaller one, unless nothing else was answered since: then the service may be
    at fault, and no row becomes more suspect.
    """
    if alone or question.suspicion >= _ALONE:
        return ISOLATED
    if not question.suspicion:
        return 1
    if not others_answered:
        return question.suspicion
    smaller = (degree for degree, rows in TOGETHER.items() if rows < together)
    return max(question.suspicion + 1, next(smaller, _ALONE))
