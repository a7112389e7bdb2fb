"""A batch of library rows in progress: what is known of its rows, and who is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from dataclasses import KW_ONLY, dataclass, field, replace

from listener.domain.change import Batch, BatchOutcome
from listener.domain.latest import FAILED, KEPT, LatestAnswer, release_answer, sources_of
from listener.domain.question import Asking, Question, QuestionBatch
from listener.domain.retrying import ISOLATED, LONGEST_DETAIL, SUSPECT, Failure, RetryPolicy
from listener.domain.tally import Skip
from listener.domain.verdict import Verdict
from listener.engine.circuit import Circuit
from listener.engine.clock import now


@dataclass(slots=True)
class BatchProgress:
    """The questions of a batch as last read, and the outcomes of its rows.

    `order` stays 0 until rows could be read; `answers` is how many had been written by then, in any
    batch. `ahead` is held until the first call begins. `failures` are not in the ledger yet.
    `current` is being asked; `interrupted` holds, for each of its interrupted calls, how many
    answers had been written by then.
    """

    batch: Batch
    circuit: Circuit
    policy: RetryPolicy
    _: KW_ONLY
    order: int = 0
    read_at: float = 0.0
    answers: int = 0
    ahead: AsyncExitStack = field(default_factory=AsyncExitStack)
    asked: dict[int, Question] = field(default_factory=dict)
    current: QuestionBatch = field(default_factory=lambda: QuestionBatch(()))
    interrupted: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)

    @property
    def noted(self) -> AbstractSet[int]:
        """The rows with an outcome, recorded or not."""
        return self.outcome.tried | {failure.library_id for failure in self.failures}

    @property
    def left(self) -> list[Question]:
        """The questions of the batch that have no outcome yet."""
        noted = self.noted
        return [question for question in self.current.questions if question.library_id not in noted]

    def read(self, asking: Asking) -> None:
        """Take over the questions as they were just read."""
        self.order, self.read_at, self.answers = asking.order, now(), self.circuit.answers
        self.asked |= {question.library_id: question for question in asking.questions}

    def refused(self, reason: Skip, questions: Sequence[Question], detail: str) -> None:
        """Note refused rows as failed: one alone is isolated, several are suspects."""
        for question in questions:
            suspicion = ISOLATED if len(questions) == 1 else SUSPECT
            self.failed(question, reason, detail, suspicion)

    def failed(self, question: Question, reason: Skip, detail: str, suspicion: int = 0) -> None:
        """Note a row as failed, to be recorded in the ledger later."""
        others_answered = self._others_answered(question)
        retry = self.policy.retry(question.failing, others_answered=others_answered)
        suspect = max(suspicion, question.suspicion)
        row, digest, detail = question.library_id, question.digest, detail[:LONGEST_DETAIL]
        self.failures.append(Failure(row, digest, reason, detail, retry, suspect))

    def take_failures(self) -> list[Failure]:
        """Return the failures to record now, and forget them."""
        failures, self.failures = self.failures, []
        if self.circuit.answers != self.answers:
            return failures
        # Everything may be failing, so no row counts as isolated without other evidence.
        return [self._with_doubt(failure) for failure in failures]

    def rows_to_blame(self, questions: Sequence[Question]) -> bool | None:
        """Return whether the rows are to blame for an interrupted call, None if unknown.

        They are if LML answers others.
        """
        self.interrupted.append(self.circuit.answers)
        if questions[0].suspicion == ISOLATED:
            # It was asked about alone because it interrupts calls whether LML is up or not.
            return True
        if self.circuit.failures:
            return False
        return True if self.answered_others(questions) else None

    def answered_others(self, questions: Sequence[Question]) -> bool:
        """Return whether other rows were answered after an interrupted call with these rows."""
        *former, answers = self.interrupted
        alone = len(questions) == 1
        if not former and answers > self.answers:
            return True
        # LML may have gone down since. Several rows can be probed; a row alone cannot, but it was
        # asked about shortly before that answer.
        if former and answers > former[0 if alone else -1]:
            return True
        if former and not alone:
            return False
        return all(each.suspicion and self._others_answered(each) for each in questions)

    def latest_answers(self, verdicts: Sequence[Verdict]) -> Iterator[LatestAnswer]:
        """Yield the last of these answers for people who watch."""
        at = now()
        for each in verdicts[-KEPT:]:
            question, sources = self.asked[each.library_id], sources_of(each)
            yield release_answer(question, each.kind, self.batch, at, sources=sources)

    def latest_failures(self, failures: Sequence[Failure]) -> Iterator[LatestAnswer]:
        """Yield the last of these failures for people who watch; unread rows are left out."""
        at = now()
        for each in failures[-KEPT:]:
            question = self.asked.get(each.library_id)
            if question is not None:
                yield release_answer(question, FAILED, self.batch, at, detail=each.detail)

    def _others_answered(self, question: Question) -> bool:
        return self.circuit.others_answered(question.failing, self.read_at)

    def _with_doubt(self, failure: Failure) -> Failure:
        question = self.asked.get(failure.library_id)
        if question is None or self._others_answered(question):
            return failure
        return replace(failure, suspicion=min(failure.suspicion, max(SUSPECT, question.suspicion)))
