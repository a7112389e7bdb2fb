"""What a reply means for the questions that were put."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from listener.domain.question import Question
from listener.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Invalid:
    """A result that cannot be understood; `library_id` where at least that could be read."""

    library_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A reply held against its questions.

    Every question is in exactly one of `accepted` (by its verdict), `invalid`, `contradicted` and
    `missing`. `foreign` ids were not asked for; `nameless_invalid` results could not be
    attributed to any row.
    """

    accepted: tuple[Verdict, ...]
    invalid: dict[int, str]
    contradicted: frozenset[int]
    missing: frozenset[int]
    foreign: frozenset[int]
    nameless_invalid: int

    @property
    def unanswered(self) -> frozenset[int]:
        """Rows that must be asked again."""
        return self.missing | self.contradicted | frozenset(self.invalid)


def judge(asked: Sequence[Question], results: Iterable[Verdict | Invalid]) -> Judgement:
    """Sort the results of a reply; their number and order prove nothing.

    A row that is answered differently twice, or once well and once badly, is not answered.
    """
    wanted = {question.library_id for question in asked}
    verdicts: dict[int, Verdict] = {}
    invalid: dict[int, str] = {}
    contradicted: set[int] = set()
    foreign: set[int] = set()
    nameless = 0
    for result in results:
        if result.library_id is None:
            nameless += 1
        elif result.library_id not in wanted:
            foreign.add(result.library_id)
        elif isinstance(result, Invalid):
            invalid[result.library_id] = result.reason
        elif result.library_id not in verdicts:
            verdicts[result.library_id] = result
        elif verdicts[result.library_id] != result:
            contradicted.add(result.library_id)
    contradicted -= invalid.keys()
    refused = contradicted | invalid.keys()
    return Judgement(
        accepted=tuple(v for row, v in verdicts.items() if row not in refused),
        invalid=invalid,
        contradicted=frozenset(contradicted),
        missing=frozenset(wanted - verdicts.keys() - invalid.keys()),
        foreign=frozenset(foreign),
        nameless_invalid=nameless,
    )
