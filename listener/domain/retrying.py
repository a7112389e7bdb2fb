"""Decides when to retry a row that failed, and when to park it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from listener.domain.pacing import Backoff
from listener.domain.tally import Skip

LONGEST_DETAIL = 300
# At most ten questions about a row within ten minutes, including those that isolate it.
_FIRST = timedelta(seconds=5)
# While nothing is answered, LML or the database may be at fault: rows must not wait long after it
# recovers.
_DOUBTFUL = Backoff(first=_FIRST, most=timedelta(minutes=5))
_CERTAIN = Backoff(first=_FIRST, most=timedelta(hours=1))
_NEVER_PARKED_WITHIN = timedelta(hours=4)

# A suspect failed together with others, any of which may be to blame; an isolated row failed alone.
SUSPECT, ISOLATED = 1, 2
# How many of each go into one call.
TOGETHER = {SUSPECT: 100, ISOLATED: 1}


@dataclass(frozen=True, slots=True)
class Failing:
    """What the ledger remembers of a question that failed and has not been answered since.

    It failed `failures` times in a row over a period of `lasting`, most recently `ago`. `suspicion`
    is as in `Failure`.
    """

    failures: int
    lasting: timedelta
    ago: timedelta
    suspicion: int = 0
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """When to retry a row that has failed `failures` times in a row."""

    failures: int
    after: timedelta
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that failed, the reason, and when to retry it.

    `suspicion` is 0, `SUSPECT` or `ISOLATED`; it decides how many rows are asked together.
    """

    library_id: int
    digest: bytes
    reason: Skip
    detail: str
    retry: Retry
    suspicion: int = 0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Decides when to retry a row that failed.

    A row is parked once it has failed `attempts` times in a row over several hours in which other
    rows were answered. It is retried after `parked_for`, after a new LML release, or when a person
    requeues it.
    """

    attempts: int
    parked_for: timedelta

    def retry(self, past: Failing | None, *, others_answered: bool) -> Retry:
        """Decide what follows another failure of a row.

        `others_answered` says whether any other row was answered since its previous failure.
        """
        if past is None:
            return Retry(1, _FIRST)
        failures = past.failures + 1
        exhausted = failures >= self.attempts and past.lasting >= _NEVER_PARKED_WITHIN
        if past.parked or (exhausted and others_answered):
            return Retry(failures, self.parked_for, parked=True)
        backoff = _CERTAIN if others_answered else _DOUBTFUL
        return Retry(failures, backoff.delay(failures))
