"""Gets library rows their verdicts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, assert_never

import structlog

from listener.domain.asking import IncludeTracks, QuestionPage, better_apart, pages
from listener.domain.change import Batch, Stream
from listener.domain.faults import (
    CallBrokenOffError,
    LmlUnavailableError,
    PageRefusedError,
    RefusedInARowError,
    RowsBreakOffError,
    StoreUnavailableError,
    TracksRefusedError,
    WriteRefusedError,
)
from listener.domain.judging import Invalid, judge
from listener.domain.oddities import oddities
from listener.domain.parking import Failure, Patience
from listener.domain.question import Asking, Question
from listener.domain.suspects import Culprit, Suspects
from listener.domain.tally import Skip, Tally
from listener.domain.verdict import Page, Verdict
from listener.engine.counting import count, tell, tell_failures, tell_misfit
from listener.engine.handling import Handled
from listener.engine.ports import Library, Lml, Outbox, Reply, Telemetry, Verdicts
from listener.engine.silent import NoTelemetry

_log = structlog.stdlib.get_logger()

T = TypeVar("T")


# Ten bad neighbours anywhere in a page of 1000 are at most 27 refusals in a row.
_REFUSALS_IN_A_ROW = 28
# So many rows are not bad all at once: a reply without one usable answer is LML's own fault.
_NONSENSE = 10
_ODDITIES = 100


@dataclass(frozen=True, slots=True)
class ResolverLimits:
    """How a batch is asked: few compilations in one call, rows that fail with patience.

    With `sets_apart` a few compilations among others are handed back, to be asked with their like.
    """

    compilation_batch_size: int
    patience: Patience
    include_tracks: IncludeTracks = IncludeTracks.COMPILATIONS
    sets_apart: bool = False


@dataclass(slots=True)
class _Work:
    """One batch on its way: what it is, what became of it, how often in a row it was refused."""

    batch: Batch
    order: int = 0
    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)
    answered: bool = False
    questions_refused: int = 0
    verdicts_refused: int = 0

    def refuse_questions(self, fault: PageRefusedError) -> None:
        """Note a refused page; raise `RefusedInARowError` once it is hardly the rows."""
        self.questions_refused += 1
        if self.questions_refused > _REFUSALS_IN_A_ROW:
            message = f"LML refuses one page after another: {fault}"
            raise RefusedInARowError(message) from fault

    def refuse_verdicts(self, fault: WriteRefusedError) -> None:
        """Note a refused page; raise `StoreUnavailableError` once it cannot be the rows."""
        self.verdicts_refused += 1
        if self.verdicts_refused > _REFUSALS_IN_A_ROW:
            message = f"the database refuses one page after another: {fault}"
            raise StoreUnavailableError(message) from fault


class Resolver:
    """Asks LML about library rows as they are now and has its verdicts written.

    Where the rows come from is the caller's business: changes, a sweep or a backfill. `permit`
    bounds the calls in flight. `suspects` are shared with whoever else asks the same of LML.
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
        suspects: Suspects,
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
        self._suspects = suspects

    async def handle(self, batch: Batch) -> Handled:
        """Have the rows of a batch answered; one bad row costs its batch a few more calls.

        Raises `LmlUnavailableError` or `StoreUnavailableError`; what was written by then stays. A
        call that broke off is no error but the fault of what is returned: one of its rows may be to
        blame, and what was not asked for it comes again.
        """
        work = _Work(batch)
        try:
            asking = await self._library.read(batch.row_ids)
            work.order = asking.order
            handled = await self._settle_unasked(work, asking)
            apart = self._apart(asking.questions)
            for page in self._suspects.apart(self._pages(asking.questions, apart)):
                if handled.fault is None:
                    handled |= await self._ask(work, page)
            return handled | await self._fail(work) | Handled(apart=apart)
        except (RefusedInARowError, StoreUnavailableError):
            # The batch comes again, and its rows are counted then.
            work.tally = work.tally.calls()
            raise
        except LmlUnavailableError:
            work.tally.skip(Skip.LML_ERROR, len(batch.changes) - work.tally.scanned)
            raise
        finally:
            self.tally.add(work.tally)

    def _apart(self, questions: Sequence[Question]) -> frozenset[int]:
        limits = self._limits
        if not limits.sets_apart:
            return frozenset()
        return better_apart(questions, limits.compilation_batch_size, limits.include_tracks)

    def _pages(
        self, questions: Sequence[Question], apart: frozenset[int]
    ) -> Iterator[QuestionPage]:
        limits = self._limits
        asked = [question for question in questions if question.library_id not in apart]
        return pages(asked, limits.compilation_batch_size, limits.include_tracks)

    async def _settle_unasked(self, work: _Work, asking: Asking) -> Handled:
        unasked = asking.gone | asking.nameless | asking.answered
        if entries := work.batch.entries(unasked):
            await self._outbox.settle(Stream.LIBRARY, entries)
        work.tally.skip(Skip.GONE, len(asking.gone))
        work.tally.skip(Skip.NULL_ARTIST, len(asking.nameless))
        work.tally.skip(Skip.ALREADY_ANSWERED, len(asking.answered))
        return Handled(settled=unasked, unasked=unasked)

    async def _ask(self, work: _Work, page: QuestionPage) -> Handled:
        questions = page.questions
        if page.suspect and not work.answered:
            fault = await self._put_control(work, page)
            if fault is not None:
                return Handled(fault=fault)
        try:
            results = await self._results(work.tally, page)
        except TracksRefusedError as fault:
            _log.warning("asking without tracks", questions=len(questions), reason=str(fault))
            return await self._ask(work, page.without_tracks())
        except PageRefusedError as fault:
            work.refuse_questions(fault)
            if len(questions) == 1:
                self._failed(work, questions[0], Skip.LML_ERROR, str(fault))
                return Handled()
            first, second = page.halves()
            handled = await self._ask(work, first)
            return handled if handled.fault else handled | await self._ask(work, second)
        except CallBrokenOffError as fault:
            return self._broke_off(work, page, fault)
        work.questions_refused = 0
        accepted = self._judge(work, questions, results)
        asked = {question.library_id: question for question in questions}
        self._suspects.clear([asked[verdict.library_id] for verdict in accepted])
        work.answered = bool(accepted)
        return await self._write(work, asked, accepted)

    async def _put_control(self, work: _Work, page: QuestionPage) -> CallBrokenOffError | None:
        """See whether LML answers what it answered before; return what broke that off, if so."""
        control = self._suspects.control(page)
        if control is None:
            return None
        try:
            work.answered = bool(
                await self._results(work.tally, QuestionPage([control], suspect=True))
            )
        except CallBrokenOffError as fault:
            return fault
        except PageRefusedError:
            _log.warning("LML refuses what it answered before", library_id=control.library_id)
        return None

    def _broke_off(self, work: _Work, page: QuestionPage, fault: CallBrokenOffError) -> Handled:
        match self._suspects.broke_off(page, answered=work.answered):
            case Culprit.LML:
                return Handled(fault=fault)
            case Culprit.ROWS:
                return Handled(fault=RowsBreakOffError(str(fault)))
            case Culprit.ROW:
                question = page.questions[0]
                self._failed(work, question, Skip.LML_ERROR, str(fault), breaks_off=True)
                return Handled(fault=RowsBreakOffError(str(fault)))
            case culprit:
                assert_never(culprit)

    async def _results(self, tally: Tally, page: QuestionPage) -> Sequence[Verdict | Invalid]:
        reply, answered = await self._call(tally, page)
        try:
            return await reply.read()
        finally:
            answered(reply.cache_stats)

    async def _call(
        self, tally: Tally, page: QuestionPage
    ) -> tuple[Reply, Callable[[Mapping[str, float]], None]]:
        loop = asyncio.get_running_loop()
        async with self._permit():
            tally.lml_calls += 1
            began = loop.time()
            try:
                with self._telemetry.call(len(page.questions)) as answered:
                    reply = await self._lml.ask(
                        page.questions, with_tracks=page.with_tracks, once=page.suspect
                    )
                    return reply, answered
            finally:
                tally.lml_latency += timedelta(seconds=loop.time() - began)

    def _judge(
        self, work: _Work, questions: Sequence[Question], results: Sequence[Verdict | Invalid]
    ) -> Sequence[Verdict]:
        judgement = judge(questions, results)
        if judgement.unanswered or judgement.foreign or judgement.nameless_invalid:
            tell_misfit(questions, judgement)
        if not judgement.accepted and len(questions) >= _NONSENSE:
            message = f"LML's reply has no usable answer to any of {len(questions)} questions"
            raise LmlUnavailableError(message)
        asked = {question.library_id: question for question in questions}
        # Where an answer is missing and one to another row came, that one stands in its place.
        untrusted = frozenset(sorted(judgement.missing)[: len(judgement.foreign)])
        for row in sorted(judgement.unanswered):
            if row in untrusted:
                self._failed(work, asked[row], Skip.UNTRUSTED, "an answer to another row came")
            elif row in judgement.missing:
                self._failed(work, asked[row], Skip.MISMATCH, "no answer came")
            else:
                reason = judgement.invalid.get(row, "two answers that differ")
                self._failed(work, asked[row], Skip.INVALID, reason)
        return judgement.accepted

    async def _write(
        self, work: _Work, asked: dict[int, Question], verdicts: Sequence[Verdict]
    ) -> Handled:
        if not verdicts:
            return Handled()
        rows = frozenset(verdict.library_id for verdict in verdicts)
        page = Page(work.order, asked, verdicts, work.batch.entries(rows))
        try:
            written = await self._verdicts.write(page)
        except WriteRefusedError as fault:
            work.refuse_verdicts(fault)
            if len(verdicts) == 1:
                question = asked[verdicts[0].library_id]
                if fault.passing:
                    work.tally.skip(Skip.WRITER_ERROR)
                    return Handled(failed=rows)
                self._failed(work, question, Skip.WRITER_ERROR, str(fault))
                return Handled()
            first, second = _halves(verdicts)
            handled = await self._write(work, asked, first)
            return handled | await self._write(work, asked, second)
        work.verdicts_refused = 0
        count(work.tally, verdicts, written)
        tell(verdicts, written)
        self._note_oddities(verdicts)
        return Handled(settled=written.rows, late=rows - written.rows)

    def _note_oddities(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            for odd in oddities(verdict.identity) if verdict.identity is not None else ():
                # Bounded: what LML says may be anything.
                if odd in self.oddities or len(self.oddities) < _ODDITIES:
                    self.oddities[odd] += 1
                if self.oddities[odd] == 1:
                    _log.warning("odd verdict, told once", library_id=verdict.library_id, what=odd)

    def _failed(
        self,
        work: _Work,
        question: Question,
        reason: Skip,
        detail: str,
        *,
        breaks_off: bool = False,
    ) -> None:
        work.tally.skip(reason)
        patience = self._limits.patience
        work.failures.append(patience.failure(question, reason, detail, breaks_off=breaks_off))

    async def _fail(self, work: _Work) -> Handled:
        if not work.failures:
            return Handled()
        failed = frozenset(failure.question.library_id for failure in work.failures)
        done = frozenset(f.question.library_id for f in work.failures if f.is_done_with)
        await self._verdicts.fail(work.order, work.failures, work.batch.entries(done))
        tell_failures(work.failures)
        return Handled(settled=done, failed=failed - done)


def _halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]
