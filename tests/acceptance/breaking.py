"""`listener` whose judging breaks at rows of one artist, as a bug nobody thought of would."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from listener.cli import main
from listener.domain.judging import Invalid, Judgement, judge
from listener.domain.question import Question
from listener.domain.verdict import Verdict
from listener.engine import resolver

ARTIST = "Unthinkable"


def break_at_artist(asked: Sequence[Question], results: Iterable[Verdict | Invalid]) -> Judgement:
    """Judge as always, but for questions about the artist."""
    if any(question.artist_name.startswith(ARTIST) for question in asked):
        raise ZeroDivisionError(ARTIST)
    return judge(asked, results)


if __name__ == "__main__":
    setattr(resolver, "judge", break_at_artist)  # noqa: B010 - a name that mypy keeps constant
    sys.exit(main())
