"""Rows that LML may be failing at, when it seems to fail as a whole."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from enum import Enum

from listener.domain.asking import QuestionPage
from listener.domain.pacing import TRIAL
from listener.domain.question import Question

# How many are asked together after so many calls that broke off. LML may well have failed as a
# whole: when it is back, all it could not answer should not come one by one.
_TOGETHER = (100, TRIAL, 1)
# Ten bad neighbours are found and told apart with fewer broken calls in a row; more are LML's.
_IN_A_ROW = 40
_CONTROLS = 8
_MOST = 10_000


class Culprit(Enum):
    """Who made a call break off: LML as a whole, one of several rows, or the only one."""

    LML = "LML"
    ROWS = "one of the rows"
    ROW = "the row"


class Suspects:
    """Rows of calls that broke off; an answer clears them.

    Whether LML failed as a whole or at one of them shows when it answers something else just before
    it is asked about them again: so they come last, or after a control, a question that was
    answered before. Bounded: of too many rows those that have been suspect the longest are
    forgotten.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[int, int] = OrderedDict()
        self._controls: deque[Question] = deque(maxlen=_CONTROLS)
        self._in_a_row = 0
        # Controls in a row after which nothing was heard.
        self._put = 0

    def apart(self, pages: Iterable[QuestionPage]) -> Sequence[QuestionPage]:
        """Return the pages with suspects in pages of their own, the more suspect the smaller.

        They come last: who is not suspect does not wait for them.
        """
        if not self._calls:
            return list(pages)
        parts = [part for page in pages for part in self._parts(page)]
        return sorted(parts, key=lambda part: self._broken(part.questions[0]))

    def control(self, page: QuestionPage) -> Question | None:
        """Return a question about another row than those of the page, None if there is none.

        Each time it is another. Once all broke off there is none for once: LML may fail at them by
        now, and not at the page.
        """
        rows = {question.library_id for question in page.questions}
        if self._put >= len(self._controls):
            self._put = 0
            return None
        self._put += 1
        self._controls.rotate()
        return next((each for each in self._controls if each.library_id not in rows), None)

    def clear(self, answered: Sequence[Question]) -> None:
        """Note that LML answered these questions."""
        if not answered:
            return
        self._in_a_row = self._put = 0
        if answered[0] not in self._controls:
            self._controls.append(answered[0])
        if self._calls:
            for question in answered:
                self._calls.pop(question.library_id, None)

    def broke_off(self, page: QuestionPage, *, answered: bool) -> Culprit:
        """Note that the call with this page broke off, and tell who made it.

        `answered` says whether LML answered something else just before.
        """
        alone = len(page.questions) == 1 and self._broken(page.questions[0]) > len(_TOGETHER)
        # Where there are controls, and none is answered, nobody becomes more suspect.
        if answered or not (page.suspect and self._controls):
            self._suspect(page)
        if not (answered and page.suspect):
            return Culprit.LML
        self._put = 0
        self._in_a_row += 1
        if self._in_a_row > _IN_A_ROW:
            return Culprit.LML
        return Culprit.ROW if alone else Culprit.ROWS

    def _suspect(self, page: QuestionPage) -> None:
        for question in page.questions:
            self._calls[question.library_id] = self._broken(question) + 1
        while len(self._calls) > _MOST:
            self._calls.popitem(last=False)

    def _parts(self, page: QuestionPage) -> Iterable[QuestionPage]:
        alike: dict[int, list[Question]] = {}
        for question in page.questions:
            alike.setdefault(min(self._broken(question), len(_TOGETHER)), []).append(question)
        for broken, questions in alike.items():
            most = _TOGETHER[broken - 1] if broken else len(questions)
            for start in range(0, len(questions), most):
                part = questions[start : start + most]
                yield QuestionPage(part, page.with_tracks, suspect=broken > 0)

    def _broken(self, question: Question) -> int:
        return self._calls.get(question.library_id, 0)
