"""What a reply means for the questions that were put."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from listener.domain.question import Question
from listener.domain.tally import Skip
from listener.domain.verdict import Verdict

_FOREIGN = (Skip.UNTRUSTED, "an answer to another row came")
_MISSING = (Skip.MISMATCH, "no answer came")


@dataclass(frozen=True, slots=True)
class Invalid:
    """A result that cannot be understood; `library_id` where at least that could be read."""

    library_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A reply held against its questions.

    Every question is either in `accepted`, by its verdict, or in `unanswered`, with the reason.
    `foreign` ids were not asked for; `nameless_invalid` results could not be attributed to any row.
    """

    accepted: tuple[Verdict, ...]
    unanswered: Mapping[int, tuple[Skip, str]]
    foreign: frozenset[int]
    nameless_invalid: int


def judge(asked: Sequence[Question], results: Iterable[Verdict | Invalid]) -> Judgement:
    """Sort the results of a reply; their number and order prove nothing.

    A row that is answered differently twice, or once well and once badly, is not answered.
    """
    wanted = {question.library_id for question in asked}
    verdicts: dict[int, Verdict] = {}
    unanswered: dict[int, tuple[Skip, str]] = {}
    foreign: set[int] = set()
    nameless = 0
    for result in results:
        row = result.library_id
        if row is None:
            nameless += 1
        elif row not in wanted:
            foreign.add(row)
        elif isinstance(result, Invalid):
            unanswered[row] = (Skip.INVALID, result.reason)
        elif verdicts.setdefault(row, result) != result:
            unanswered.setdefault(row, (Skip.INVALID, "two answers that differ"))
    for number, row in enumerate(sorted(wanted - verdicts.keys() - unanswered.keys())):
        # A verdict on a row that was not asked about may belong to one without an answer.
        untrusted = number < len(foreign)
        unanswered[row] = _FOREIGN if untrusted else _MISSING
    return Judgement(
        accepted=tuple(v for row, v in verdicts.items() if row not in unanswered),
        unanswered=unanswered,
        foreign=frozenset(foreign),
        nameless_invalid=nameless,
    )
