"""What becomes of a row that could not be answered: the one backoff, and when to park."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from listener.domain.pacing import Backoff
from listener.domain.question import Failing
from listener.domain.tally import Skip

LONGEST_DETAIL = 300
# Ten questions about a row within ten minutes at most, with those that isolate it from its page.
_FIRST = timedelta(seconds=5)
# While nothing is answered LML or the database may be at fault: once it works, nobody waits longer.
_DOUBTFUL = Backoff(first=_FIRST, most=timedelta(minutes=5))
_CERTAIN = Backoff(first=_FIRST, most=timedelta(hours=1))
_NEVER_PARKED_WITHIN = timedelta(hours=4)

# A suspect failed together with others, any of which may be the reason; an isolated row alone.
SUSPECT, ISOLATED = 1, 2
# How many of each are asked together.
TOGETHER = {SUSPECT: 100, ISOLATED: 1}


@dataclass(frozen=True, slots=True)
class Retry:
    """When a row that failed is tried again, after how many failures in a row."""

    failures: int
    after: timedelta
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be answered, why this time, and when it is tried again.

    `suspicion` is 0, `SUSPECT` or `ISOLATED`: it decides how many rows are asked together.
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
