"""Gets library rows their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from listener.domain.change import Batch, Stream
from listener.domain.faults import (
    LmlUnavailableError,
    PageRefusedError,
    StoreUnavailableError,
    WriteRefusedError,
)
from listener.domain.judging import Invalid, Judgement, judge
from listener.domain.question import Asking, Question
from listener.domain.tally import Skip, Tally
from listener.domain.verdict import Kind, Page, Verdict
from listener.engine.handling import Handled
from listener.engine.ports import Library, Lml, Outbox, Verdicts

_log = structlog.stdlib.get_logger()

T = TypeVar("T")


# Ten bad neighbours anywhere in a page of 1000 are at most 27 refusals in a row.
_REFUSALS_IN_A_ROW = 28


@dataclass(slots=True)
class _Search:
    """The search for rows that spoil a page: how often in a row LML and the database refused."""

    questions_refused: int = 0
    verdicts_refused: int = 0

    def refuse_questions(self, fault: PageRefusedError) -> None:
        """Note a refused page; raise `LmlUnavailableError` once it cannot be the rows."""
        self.questions_refused += 1
        if self.questions_refused > _REFUSALS_IN_A_ROW:
            message = f"LML refuses one page after another: {fault}"
            raise LmlUnavailableError(message) from fault

    def refuse_verdicts(self, fault: WriteRefusedError) -> None:
        """Note a refused page; raise `StoreUnavailableError` once it cannot be the rows."""
        self.verdicts_refused += 1
        if self.verdicts_refused > _REFUSALS_IN_A_ROW:
            message = f"the database refuses one page after another: {fault}"
            raise StoreUnavailableError(message) from fault


class Resolver:
    """Asks LML about library rows as they are now and has its verdicts written.

    Where the rows come from is the caller's business: changes, a sweep or a backfill.
    """

    def __init__(self, library: Library, lml: Lml, verdicts: Verdicts, outbox: Outbox) -> None:
        self.tally = Tally()
        self._library = library
        self._lml = lml
        self._verdicts = verdicts
        self._outbox = outbox

    async def handle(self, batch: Batch) -> Handled:
        """Have the rows of a batch answered; one bad row costs its batch a few more calls.

        Raises `LmlUnavailableError` or `StoreUnavailableError`; what was written by then stays.
        """
        asking = await self._library.read(batch.row_ids)
        handled = await self._settle_unasked(batch, asking)
        if asking.questions:
            handled |= await self._ask(batch, asking.order, asking.questions, _Search())
        return handled

    async def _settle_unasked(self, batch: Batch, asking: Asking) -> Handled:
        unasked = asking.gone | asking.nameless | asking.answered
        if unasked:
            await self._outbox.settle(Stream.LIBRARY, batch.entries(unasked))
        self.tally.skip(Skip.GONE, len(asking.gone))
        self.tally.skip(Skip.NULL_ARTIST, len(asking.nameless))
        self.tally.skip(Skip.ALREADY_ANSWERED, len(asking.answered))
        return Handled(settled=unasked)

    async def _ask(
        self, batch: Batch, order: int, questions: Sequence[Question], search: _Search
    ) -> Handled:
        self.tally.lml_calls += 1
        try:
            results = await self._lml.resolve(questions)
        except PageRefusedError as fault:
            search.refuse_questions(fault)
            if len(questions) == 1:
                return self._failed(questions[0].library_id, Skip.LML_ERROR, fault)
            first, second = _halves(questions)
            handled = await self._ask(batch, order, first, search)
            return handled | await self._ask(batch, order, second, search)
        search.questions_refused = 0
        judgement = self._judge(questions, results)
        asked = {question.library_id: question for question in questions}
        handled = await self._write(batch, order, asked, judgement.accepted, search)
        return handled | Handled(failed=judgement.unanswered)

    def _judge(
        self, questions: Sequence[Question], results: Sequence[Verdict | Invalid]
    ) -> Judgement:
        judgement = judge(questions, results)
        self.tally.foreign_ids += len(judgement.foreign)
        self.tally.skip(Skip.MISMATCH, len(judgement.missing))
        self.tally.skip(Skip.INVALID, len(judgement.invalid) + len(judgement.contradicted))
        if judgement.unanswered or judgement.foreign or judgement.nameless_invalid:
            _log.warning(
                "reply does not fit the questions",
                asked=len(questions),
                answered=len(judgement.accepted),
                missing=sorted(judgement.missing)[:10],
                invalid=dict(sorted(judgement.invalid.items())[:10]),
                contradicted=sorted(judgement.contradicted)[:10],
                foreign=sorted(judgement.foreign)[:10],
                unattributed=judgement.nameless_invalid,
            )
        return judgement

    async def _write(
        self,
        batch: Batch,
        order: int,
        asked: dict[int, Question],
        verdicts: Sequence[Verdict],
        search: _Search,
    ) -> Handled:
        if not verdicts:
            return Handled()
        rows = frozenset(verdict.library_id for verdict in verdicts)
        page = Page(order, asked, verdicts, batch.entries(rows))
        try:
            written = await self._verdicts.write(page)
        except WriteRefusedError as fault:
            search.refuse_verdicts(fault)
            if len(verdicts) == 1:
                return self._failed(verdicts[0].library_id, Skip.WRITER_ERROR, fault)
            first, second = _halves(verdicts)
            handled = await self._write(batch, order, asked, first, search)
            return handled | await self._write(batch, order, asked, second, search)
        search.verdicts_refused = 0
        self._count(verdicts, written)
        return Handled(settled=written, late=rows - written)

    def _count(self, verdicts: Sequence[Verdict], written: frozenset[int]) -> None:
        for verdict in verdicts:
            self.tally.source_rows_skipped_null_confidence += verdict.skipped_sources
            if verdict.library_id not in written:
                self.tally.skip(Skip.SUPERSEDED)
            elif verdict.kind is Kind.SINGLE_ARTIST:
                self.tally.resolved += 1
            elif verdict.kind is Kind.UNRESOLVED:
                self.tally.unresolved += 1
            else:
                self.tally.skip(Skip.COMPILATION)

    def _failed(self, library_id: int, reason: Skip, fault: Exception) -> Handled:
        self.tally.skip(reason)
        _log.warning(
            "row cannot be answered", library_id=library_id, reason=str(reason), fault=str(fault)
        )
        return Handled(failed=frozenset((library_id,)))


def _halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]
