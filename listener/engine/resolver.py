"""Gets library rows their verdicts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from listener.domain.asking import IncludeTracks, QuestionPage, better_apart, pages
from listener.domain.change import Batch, Stream
from listener.domain.faults import (
    SERVICE_FAULTS,
    CallInterruptedError,
    LmlUnavailableError,
    PageRefusedError,
    StoreUnavailableError,
    TracksRefusedError,
)
from listener.domain.judging import Invalid, judge
from listener.domain.oddities import oddities
from listener.domain.question import Asking, Question
from listener.domain.retrying import ISOLATED, LONGEST_DETAIL, SUSPECT, Failure, RetryPolicy
from listener.domain.tally import Skip, Tally
from listener.domain.verdict import Page, Verdict
from listener.engine.circuit import Circuit
from listener.engine.counting import count, tell, tell_failures, tell_misfit
from listener.engine.isolating import isolate
from listener.engine.outcome import BatchOutcome
from listener.engine.ports import Library, Lml, Outbox, Reply, Telemetry, Verdicts
from listener.engine.silent import NoTelemetry

_log = structlog.stdlib.get_logger()

_ODDITIES = 100
_LOCKED = "another session keeps the row locked"


@dataclass(frozen=True, slots=True)
class ResolverLimits:
    """How a batch is asked: few compilations in one call, rows that fail by a policy.

    With `sets_apart` a few compilations among others are handed back, to be asked with their kind.
    """

    compilation_batch_size: int
    policy: RetryPolicy
    include_tracks: IncludeTracks = IncludeTracks.COMPILATIONS
    sets_apart: bool = False


@dataclass(slots=True)
class _Work:
    """One batch on its way: what it is, and what became of its rows.

    `page` is being asked; `interrupted` holds, for each of its calls that was, how many answers had
    been written by then.
    """

    batch: Batch
    page: QuestionPage = field(default_factory=lambda: QuestionPage(()))
    interrupted: list[int] = field(default_factory=list)
    order: int = 0
    read_at: float = 0.0
    asked: dict[int, Question] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)

    @property
    def noted(self) -> AbstractSet[int]:
        """The rows that something became of, recorded or not yet."""
        return self.outcome.tried | {failure.library_id for failure in self.failures}

    @property
    def left(self) -> list[Question]:
        """The questions of the page that nothing became of yet."""
        noted = self.noted
        return [question for question in self.page.questions if question.library_id not in noted]


class Resolver:
    """Asks LML about library rows as they are now and has its verdicts written.

    Where the rows come from is the caller's business: changes, retries, a sweep or a backfill.
    `permit` bounds the calls in flight. `circuit` is shared with all that ask the same of LML.
    """

    def __init__(  # noqa: PLR0913 - keywords, one for each thing it joins
        self,
        *,
        library: Library,
        lml: Lml,
        verdicts: Verdicts,
        outbox: Outbox,
        permit: Callable[[], AbstractAsyncContextManager[None]],
        limits: ResolverLimits,
        circuit: Circuit,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.tally = Tally()
        self.oddities: Counter[str] = Counter()
        self._library = library
        self._lml = lml
        self._verdicts = verdicts
        self._outbox = outbox
        self._permit = permit
        self._limits = limits
        self._telemetry = telemetry or NoTelemetry()
        self._circuit = circuit

    async def handle(self, batch: Batch) -> BatchOutcome:
        """Have the rows of a batch answered; each that cannot be ends in the ledger.

        A fault of a service ends it early: what was done by then stays.
        """
        work = _Work(batch)

        async def answer(rows: Sequence[int]) -> None:
            noted = work.noted
            await self._answer(work, [row for row in rows if row not in noted])

        def refuse(rows: Sequence[int], reason: str) -> None:
            questions = [work.asked.get(row) or Question(row, "", "", None, b"") for row in rows]
            self._refused(work, Skip.WRITER_ERROR, questions, reason)

        try:
            await isolate(batch.row_ids, answer, refuse)
            if work.failures and not work.order:
                # Not one row can be read: that is not about rows.
                raise StoreUnavailableError(work.failures[0].detail)
            await self._record(work)
        except SERVICE_FAULTS as fault:
            work.outcome.fault = fault
        finally:
            # LML's reply has closed the circuit by now, if there was one.
            self._circuit.end_trial()
            self.tally.add(work.tally)
        work.outcome.suspects &= work.outcome.failed
        return work.outcome

    async def _answer(self, work: _Work, rows: Sequence[int]) -> None:
        asking = await self._library.read(rows)
        work.order = asking.order
        work.read_at = asyncio.get_running_loop().time()
        work.asked |= {question.library_id: question for question in asking.questions}
        await self._settle_unasked(work, asking)
        apart = self._apart(asking.questions)
        work.outcome.apart |= apart
        asked = [question for question in asking.questions if question.library_id not in apart]
        limits = self._limits
        try:
            for page in pages(asked, limits.compilation_batch_size, limits.include_tracks):
                await self._ask(work, page)
        except SERVICE_FAULTS:
            await self._record(work)
            raise
        await self._record(work)

    def _apart(self, questions: Sequence[Question]) -> frozenset[int]:
        limits = self._limits
        if not limits.sets_apart:
            return frozenset()
        return better_apart(questions, limits.compilation_batch_size, limits.include_tracks)

    async def _settle_unasked(self, work: _Work, asking: Asking) -> None:
        unasked = asking.gone | asking.nameless | asking.answered
        if entries := work.batch.entries(unasked):
            await self._outbox.settle(Stream.LIBRARY, entries)
        work.tally.skip(Skip.GONE, len(asking.gone))
        work.tally.skip(Skip.NULL_ARTIST, len(asking.nameless))
        work.tally.skip(Skip.ALREADY_ANSWERED, len(asking.answered))
        work.outcome.unasked |= unasked
        work.outcome.settled |= unasked

    async def _ask(self, work: _Work, page: QuestionPage) -> None:
        work.page, work.interrupted = page, []
        attempt, refuse = partial(self._attempt, work), partial(self._refused, work, Skip.LML_ERROR)
        try:
            await isolate(page.questions, attempt, refuse)
        except LmlUnavailableError as fault:
            if work.interrupted:
                # Any of these rows may be the reason, or LML.
                self._failed(work, work.left, Skip.LML_ERROR, str(fault), suspicion=SUSPECT)
            if isinstance(fault, CallInterruptedError):
                self._circuit.failed(fault)
            raise

    async def _attempt(self, work: _Work, questions: Sequence[Question]) -> None:
        noted = work.noted
        rest = [question for question in questions if question.library_id not in noted]
        if not rest:
            return
        try:
            await self._put(work, rest)
        except CallInterruptedError as fault:
            if await self._about_rows(work, rest):
                raise PageRefusedError(str(fault)) from fault
            raise

    async def _put(self, work: _Work, questions: Sequence[Question]) -> None:
        page = QuestionPage(questions, work.page.with_tracks)
        try:
            # Isolating tells more than the same call made again.
            results = await self._results(work.tally, page, once=bool(work.interrupted))
        except TracksRefusedError as fault:
            _log.warning("asking without tracks", questions=len(questions), reason=str(fault))
            # Of its parts, too: each would cost another call.
            work.page = QuestionPage(work.page.questions)
            await self._put(work, questions)
        else:
            await self._write(work, self._judge(work, questions, results))

    async def _about_rows(self, work: _Work, questions: Sequence[Question]) -> bool:
        """Return whether an interrupted call is about its rows: LML answers others."""
        work.interrupted.append(self._circuit.answers)
        if self._circuit.failures:
            return False
        if self._answered_others(work, questions):
            return True
        return len(questions) > 1 and await self._probe(work)

    def _answered_others(self, work: _Work, questions: Sequence[Question]) -> bool:
        """Return whether another row was answered since these were part of an interrupted call."""
        *former, answers = work.interrupted
        alone = len(questions) == 1
        # LML may have gone since; a row alone cannot tell, but was asked just before that.
        if former and answers > former[0 if alone else -1]:
            return True
        if former and not alone:
            return False
        return all(each.suspicion and self._others_answered(work, each) for each in questions)

    async def _probe(self, work: _Work) -> bool:
        """Return whether LML replies to the last or to the first row that is left, asked alone."""
        left = work.left
        interrupted: list[tuple[Question, str]] = []
        # Bad rows are often neighbours: the other end may be well.
        ends = (left[-1], left[0])
        for question in ends:
            try:
                with suppress(PageRefusedError):
                    await self._put(work, [question])
            except CallInterruptedError as fault:
                interrupted.append((question, str(fault)))
            else:
                break
        up = len(interrupted) < len(ends)
        for bad, reason in interrupted:
            if up or self._answered_others(work, [bad]):
                self._refused(work, Skip.LML_ERROR, [bad], reason)
        return up

    async def _results(
        self, tally: Tally, page: QuestionPage, *, once: bool
    ) -> Sequence[Verdict | Invalid]:
        # A suspect's own retries are its later attempts.
        once = once or any(question.suspicion for question in page.questions)
        reply, answered = await self._call(tally, page, once=once)
        try:
            return await reply.read()
        finally:
            answered(reply.cache_stats)

    async def _call(
        self, tally: Tally, page: QuestionPage, *, once: bool
    ) -> tuple[Reply, Callable[[Mapping[str, float]], None]]:
        loop = asyncio.get_running_loop()
        async with self._permit():
            tally.lml_calls += 1
            began = loop.time()
            try:
                with self._telemetry.call(len(page.questions)) as answered:
                    reply = await self._lml.ask(
                        page.questions, with_tracks=page.with_tracks, once=once
                    )
            except (CallInterruptedError, TracksRefusedError):
                # The first is for its caller to judge; the second leads to another call at once.
                raise
            except LmlUnavailableError as fault:
                self._circuit.failed(fault)
                raise
            except PageRefusedError:
                self._circuit.replied()
                raise
            finally:
                tally.lml_latency += timedelta(seconds=loop.time() - began)
            self._circuit.replied()
            return reply, answered

    def _refused(
        self, work: _Work, reason: Skip, questions: Sequence[Question], detail: str
    ) -> None:
        suspicion = ISOLATED if len(questions) == 1 else SUSPECT
        self._failed(work, questions, reason, detail, suspicion=suspicion)

    def _judge(
        self, work: _Work, questions: Sequence[Question], results: Sequence[Verdict | Invalid]
    ) -> tuple[dict[int, Question], Sequence[Verdict]]:
        judgement = judge(questions, results)
        if judgement.unanswered or judgement.foreign or judgement.nameless_invalid:
            tell_misfit(questions, judgement)
        asked = {question.library_id: question for question in questions}
        # Where an answer is missing and one to another row came, that one stands in its place.
        untrusted = frozenset(sorted(judgement.missing)[: len(judgement.foreign)])
        for row in sorted(judgement.unanswered):
            if row in untrusted:
                reason, detail = Skip.UNTRUSTED, "an answer to another row came"
            elif row in judgement.missing:
                reason, detail = Skip.MISMATCH, "no answer came"
            else:
                reason = Skip.INVALID
                detail = judgement.invalid.get(row, "two answers that differ")
            self._failed(work, [asked[row]], reason, detail)
        return asked, judgement.accepted

    async def _write(
        self, work: _Work, judged: tuple[dict[int, Question], Sequence[Verdict]]
    ) -> None:
        asked, accepted = judged

        async def write(verdicts: Sequence[Verdict]) -> None:
            rows = frozenset(verdict.library_id for verdict in verdicts)
            page = Page(work.order, asked, verdicts, work.batch.entries(rows))
            written = await self._verdicts.write(page)
            self._failed(work, [asked[r] for r in written.locked], Skip.WRITER_ERROR, _LOCKED)
            others = [v for v in verdicts if v.library_id not in written.locked]
            count(work.tally, others, written)
            tell(verdicts, written)
            self._note_oddities(verdicts)
            work.outcome.settled |= written.rows
            work.outcome.late |= rows - written.rows - written.locked
            if written.rows:
                self._circuit.answered()

        def refuse(verdicts: Sequence[Verdict], reason: str) -> None:
            questions = [asked[verdict.library_id] for verdict in verdicts]
            self._refused(work, Skip.WRITER_ERROR, questions, reason)

        if accepted:
            await isolate(accepted, write, refuse)

    def _note_oddities(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            for odd in oddities(verdict.identity) if verdict.identity is not None else ():
                # Bounded: what LML says may be anything.
                if odd in self.oddities or len(self.oddities) < _ODDITIES:
                    self.oddities[odd] += 1
                if self.oddities[odd] == 1:
                    _log.warning("odd verdict, told once", library_id=verdict.library_id, what=odd)

    def _others_answered(self, work: _Work, question: Question) -> bool:
        if question.failing is None:
            return False
        # A call may take longer than the time between two failures.
        since_read = timedelta(seconds=asyncio.get_running_loop().time() - work.read_at)
        return self._circuit.answered_since(question.failing.ago + since_read)

    def _failed(
        self,
        work: _Work,
        questions: Sequence[Question],
        reason: Skip,
        detail: str,
        suspicion: int = 0,
    ) -> None:
        for question in questions:
            others_answered = self._others_answered(work, question)
            retry = self._limits.policy.retry(question.failing, others_answered=others_answered)
            suspect = max(suspicion, question.suspicion)
            if suspect == SUSPECT and suspicion:
                work.outcome.suspects |= {question.library_id}
            row, digest = question.library_id, question.digest
            detail = detail[:LONGEST_DETAIL]
            work.failures.append(Failure(row, digest, reason, detail, retry, suspect))

    async def _record(self, work: _Work) -> None:
        """Enter failures in the ledger, which settles their changes."""
        failures, work.failures = work.failures, []
        outcome = work.outcome

        async def record(failures: Sequence[Failure]) -> None:
            rows = frozenset(failure.library_id for failure in failures)
            recorded = await self._verdicts.fail(work.order, failures, work.batch.entries(rows))
            outcome.settled |= recorded
            outcome.failed |= recorded
            # A newer question was answered or failed meanwhile.
            outcome.late |= rows - recorded

        def refuse(failures: Sequence[Failure], reason: str) -> None:
            _log.warning("failures cannot be recorded", rows=len(failures), reason=reason)
            outcome.late |= {failure.library_id for failure in failures}

        if not failures:
            return
        await isolate(failures, record, refuse)
        for failure in failures:
            # Suspects are counted once it is known what becomes of them.
            if failure.library_id not in outcome.suspects & outcome.failed:
                work.tally.skip(failure.reason)
        tell_failures(failures)
