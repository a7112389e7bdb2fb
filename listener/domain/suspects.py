"""Rows that LML may be failing at, when it seems to fail as a whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from listener.domain.asking import QuestionPage
from listener.domain.pacing import TRIAL
from listener.domain.question import Question

# How many are asked together after so many calls that broke off. LML may well have failed as a
# whole: when it is back, all it could not answer should not come one by one.
_TOGETHER = (100, TRIAL, 1)
_MOST = 10_000


class Suspects:
    """Rows of calls that broke off; an answer clears them.

    `control` is a question that was answered before, None until there is one: by putting it again
    a row that LML fails at can be told from a failure of LML. Bounded: of too many rows those that
    have been suspect the longest are forgotten.
    """

    def __init__(self) -> None:
        self.control: Question | None = None
        self._calls: OrderedDict[int, int] = OrderedDict()

    def broke_off(self, page: QuestionPage) -> None:
        """Note that the call with this page broke off."""
        for question in page.questions:
            self._calls[question.library_id] = self._calls.get(question.library_id, 0) + 1
        while len(self._calls) > _MOST:
            self._calls.popitem(last=False)

    def clear(self, answered: Sequence[Question]) -> None:
        """Note that LML answered these questions; the first of them is the control now."""
        self.control = next(iter(answered), self.control)
        if self._calls:
            for question in answered:
                self._calls.pop(question.library_id, None)

    def apart(self, pages: Iterable[QuestionPage]) -> Sequence[QuestionPage]:
        """Return the pages with suspects in pages of their own, the more suspect the smaller.

        They come last: who is not suspect does not wait for them.
        """
        if not self._calls:
            return list(pages)
        parts = [part for page in pages for part in self._parts(page)]
        return sorted(parts, key=lambda part: self._broken(part.questions[0]))

    def failed_alone(self, page: QuestionPage) -> bool:
        """Return whether the page is one row, and calls with nothing else than it broke off."""
        only = page.questions[0]
        return len(page.questions) == 1 and self._broken(only) > len(_TOGETHER)

    def _parts(self, page: QuestionPage) -> Iterable[QuestionPage]:
        alike: dict[int, list[Question]] = {}
        for question in page.questions:
            alike.setdefault(min(self._broken(question), len(_TOGETHER)), []).append(question)
        for broken, questions in alike.items():
            most = _TOGETHER[broken - 1] if broken else len(questions)
            for start in range(0, len(questions), most):
                yield QuestionPage(questions[start : start + most], page.with_tracks)

    def _broken(self, question: Question) -> int:
        return self._calls.get(question.library_id, 0)
