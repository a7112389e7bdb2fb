"""Asks LML about library rows, and has its verdicts written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from listener.domain.change import Batch, BatchOutcome, Stream
from listener.domain.faults import (
    SERVICE_FAULTS,
    BatchRefusedError,
    CallInterruptedError,
    LmlUnavailableError,
    StoreRefusedError,
    TracksRefusedError,
)
from listener.domain.judging import Invalid, LoggedOnce, judge
from listener.domain.latest import LatestAnswers
from listener.domain.question import (
    Asking,
    IncludeTracks,
    Question,
    QuestionBatch,
    batches,
    worth_deferring,
)
from listener.domain.retrying import ISOLATED, SUSPECT, Failure, RetryPolicy
from listener.domain.tally import Skip, Tally
from listener.domain.verdict import Verdict, VerdictBatch
from listener.engine.circuit import Circuit
from listener.engine.clock import now
from listener.engine.counting import count, log_failures, log_misfit, log_oddities, log_written
from listener.engine.isolating import Refusals, isolate
from listener.engine.ports import Library, Lml, Outbox, Verdicts
from listener.engine.progress import BatchProgress
from listener.engine.telemetry import Telemetry, TelemetryFanOut

_log = structlog.stdlib.get_logger()

_LOCKED = "locked by another session"


@dataclass(eq=False, kw_only=True)
class Resolver:
    """Asks LML about the current content of library rows, and has its verdicts written.

    `permit` limits the calls in flight, `ahead` the batches that are read ahead of their call,
    `reading` those read at a time, `writing` those whose replies are read and written. `circuit` is
    shared by all callers of the stream. With `defer_compilations` a few compilations among other
    rows are handed back unasked: asking them together with those of other batches takes fewer
    calls. `odd` remembers the oddities that were logged, `latest` keeps answers.
    """

    library: Library
    lml: Lml
    verdicts: Verdicts
    outbox: Outbox
    permit: Callable[[], AbstractAsyncContextManager[None]]
    compilation_batch_size: int
    policy: RetryPolicy
    circuit: Circuit
    include_tracks: IncludeTracks = IncludeTracks.COMPILATIONS
    defer_compilations: bool = False
    ahead: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    reading: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    writing: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    telemetry: Telemetry = field(default_factory=TelemetryFanOut)
    tally: Tally = field(default_factory=Tally)
    odd: LoggedOnce = field(default_factory=LoggedOnce)
    latest: LatestAnswers = field(default_factory=LatestAnswers)
    refused_questions: Refusals = field(default_factory=Refusals)
    refused_verdicts: Refusals = field(default_factory=Refusals)

    async def handle(self, batch: Batch) -> BatchOutcome:
        """Handle a batch: write verdicts, or record rows as failed in the ledger.

        A service fault ends this early and is part of the outcome; work already done stays.
        """
        work = BatchProgress(batch, self.circuit, self.policy)

        async def answer(rows: Sequence[int]) -> None:
            noted = work.noted
            await self._answer(work, [row for row in rows if row not in noted])

        def refuse(rows: Sequence[int], reason: str) -> None:
            questions = [work.asked.get(row) or Question(row, "", "", None, b"") for row in rows]
            work.refused(Skip.WRITER_ERROR, questions, reason)

        try:
            await isolate(batch.row_ids, answer, refuse)
            if work.failures and not work.order:
                # No row could be read, so no row is to blame.
                raise StoreRefusedError(work.failures[0].detail)
            await self._record(work)
        except SERVICE_FAULTS as fault:
            work.outcome.fault = fault
        finally:
            # If LML replied, that has already closed the circuit.
            self.circuit.end_trial()
        return work.outcome

    async def _answer(self, work: BatchProgress, rows: Sequence[int]) -> None:
        async with AsyncExitStack() as work.ahead:
            await work.ahead.enter_async_context(self.ahead())
            async with self.reading():
                asking = await self.library.read(rows)
                work.read(asking)
                await self._settle_unasked(work, asking)
            try:
                await self._ask_all(work, asking.questions)
            except SERVICE_FAULTS:
                await self._record(work)
                raise
        await self._record(work)

    async def _ask_all(self, work: BatchProgress, questions: Sequence[Question]) -> None:
        size, include_tracks = self.compilation_batch_size, self.include_tracks
        if self.defer_compilations:
            deferred = worth_deferring(questions, size, include_tracks)
            work.outcome.deferred |= deferred
            questions = [each for each in questions if each.library_id not in deferred]
        for batch in batches(questions, size, include_tracks):
            await self._ask(work, batch)

    async def _settle_unasked(self, work: BatchProgress, asking: Asking) -> None:
        unasked = asking.gone | asking.nameless | asking.answered
        if entries := work.batch.entries(unasked):
            await self.outbox.settle(Stream.LIBRARY, entries)
        self.tally.skip(Skip.GONE, len(asking.gone))
        self.tally.skip(Skip.NULL_ARTIST, len(asking.nameless))
        self.tally.skip(Skip.ALREADY_ANSWERED, len(asking.answered))
        work.outcome.unasked |= unasked
        work.outcome.settled |= unasked

    async def _ask(self, work: BatchProgress, batch: QuestionBatch) -> None:
        work.current, work.interrupted = batch, []
        attempt, refuse = partial(self._attempt, work), partial(work.refused, Skip.LML_ERROR)
        try:
            await isolate(batch.questions, attempt, refuse, self.refused_questions)
        except LmlUnavailableError as fault:
            if work.interrupted:
                # LML may be to blame, or any of these rows.
                for question in work.left:
                    work.failed(question, Skip.LML_ERROR, str(fault), SUSPECT)
            if isinstance(fault, CallInterruptedError):
                self.circuit.failed(fault)
            raise

    async def _attempt(self, work: BatchProgress, questions: Sequence[Question]) -> None:
        noted = work.noted
        rest = [question for question in questions if question.library_id not in noted]
        if not rest:
            return
        try:
            await self._ask_part(work, rest)
        except CallInterruptedError as fault:
            to_blame = work.rows_to_blame(rest)
            if to_blame is None:
                to_blame = len(rest) > 1 and await self._probe(work)
            if to_blame:
                raise BatchRefusedError(str(fault)) from fault
            raise

    async def _ask_part(self, work: BatchProgress, questions: Sequence[Question]) -> None:
        batch = QuestionBatch(questions, work.current.with_tracks)
        try:
            async with AsyncExitStack() as writing:
                results = await self._results(work, batch, writing)
                await self._write(work, self._judge(work, questions, results))
        except TracksRefusedError as fault:
            _log.warning("asking without tracks", questions=len(questions), reason=str(fault))
            # The parts of this batch do without tracks, too: each would cost another call.
            work.current = QuestionBatch(work.current.questions)
            await self._ask_part(work, questions)

    async def _probe(self, work: BatchProgress) -> bool:
        """Ask about the last and then the first remaining row alone; return whether LML replies."""
        left = work.left
        interrupted: list[tuple[Question, str]] = []
        # Bad rows are often neighbours, so the other end may be fine.
        ends = (left[-1], left[0])
        for question in ends:
            try:
                with suppress(BatchRefusedError):
                    await self._ask_part(work, [question])
            except CallInterruptedError as fault:
                interrupted.append((question, str(fault)))
            else:
                break
        up = len(interrupted) < len(ends)
        for bad, reason in interrupted:
            if up or work.answered_others([bad]):
                work.failed(bad, Skip.LML_ERROR, reason, ISOLATED)
        return up

    async def _results(
        self, work: BatchProgress, batch: QuestionBatch, writing: AsyncExitStack
    ) -> Sequence[Verdict | Invalid]:
        # Isolating a row, or retrying a suspect later, shows more than repeating the call now.
        once = bool(work.interrupted) or any(question.suspicion for question in batch.questions)
        async with self.permit():
            await work.ahead.aclose()
            self.tally.lml_calls += 1
            began = now()
            try:
                with self.telemetry.call(len(batch.questions)) as answered:
                    reply = await self.lml.ask(
                        batch.questions, with_tracks=batch.with_tracks, once=once
                    )
            except (CallInterruptedError, TracksRefusedError):
                # The caller judges the first, and calls again without tracks after the second.
                raise
            except LmlUnavailableError as fault:
                self.circuit.failed(fault)
                raise
            except BatchRefusedError:
                self.circuit.replied()
                raise
            finally:
                self.tally.lml_latency += timedelta(seconds=now() - began)
            # LML is asked no faster than its replies are handled, so few of them are in memory.
            await writing.enter_async_context(self.writing())
        try:
            results = await reply.read()
        finally:
            answered(reply.cache_stats)
        # Only now: an unreadable reply says nothing about LML.
        self.circuit.replied()
        return results

    def _judge(
        self,
        work: BatchProgress,
        questions: Sequence[Question],
        results: Sequence[Verdict | Invalid],
    ) -> Sequence[Verdict]:
        """Record the rows without a usable answer as failed; return the usable verdicts."""
        judgement = judge(questions, results)
        if judgement.unanswered or judgement.foreign or judgement.nameless_invalid:
            log_misfit(questions, judgement)
        for row, (reason, detail) in sorted(judgement.unanswered.items()):
            work.failed(work.asked[row], reason, detail)
        return judgement.accepted

    async def _write(self, work: BatchProgress, accepted: Sequence[Verdict]) -> None:
        async def write(verdicts: Sequence[Verdict]) -> None:
            rows = frozenset(verdict.library_id for verdict in verdicts)
            batch = VerdictBatch(work.order, work.asked, verdicts, work.batch.entries(rows))
            written = await self.verdicts.write(batch)
            for row in written.locked:
                work.failed(work.asked[row], Skip.WRITER_ERROR, _LOCKED)
            count(self.tally, [v for v in verdicts if v.library_id not in written.locked], written)
            log_written(verdicts, written)
            log_oddities(verdicts, self.odd)
            answered = [v for v in verdicts if v.library_id in written.rows]
            self.latest.note(work.latest_answers(answered))
            work.outcome.settled |= written.rows
            work.outcome.late |= rows - written.rows - written.locked
            if written.rows:
                self.circuit.answered()

        def refuse(verdicts: Sequence[Verdict], reason: str) -> None:
            questions = [work.asked[verdict.library_id] for verdict in verdicts]
            work.refused(Skip.WRITER_ERROR, questions, reason)

        if accepted:
            await isolate(accepted, write, refuse, self.refused_verdicts)

    async def _record(self, work: BatchProgress) -> None:
        """Enter failures in the ledger, which settles their changes."""
        failures, outcome = work.take_failures(), work.outcome

        async def record(failures: Sequence[Failure]) -> None:
            rows = frozenset(failure.library_id for failure in failures)
            async with self.writing():
                recorded = await self.verdicts.fail(work.order, failures, work.batch.entries(rows))
            outcome.settled |= recorded
            outcome.failed |= recorded
            kept = [failure for failure in failures if failure.library_id in recorded]
            self.latest.note(work.latest_failures(kept))
            # A newer question about these rows has been answered or has failed.
            outcome.late |= rows - recorded

        def refuse(failures: Sequence[Failure], reason: str) -> None:
            _log.warning("cannot record failures", rows=len(failures), reason=reason)
            outcome.late |= {failure.library_id for failure in failures}

        if not failures:
            return
        await isolate(failures, record, refuse)
        for failure in failures:
            self.tally.skip(failure.reason)
        log_failures(failures)
