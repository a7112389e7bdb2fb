"""How times and text from the database read."""

from __future__ import annotations

from datetime import UTC, datetime

from listener.adapters.postgres.search import FoundRelease
from listener.app.wording import answer_of

AT = datetime(2026, 11, 30, tzinfo=UTC)


def found(outcome: str | None, at: datetime | None) -> FoundRelease:
    """Return a release that was found."""
    return FoundRelease(4711, "Björk", "Post", outcome, at, 0, False, None, False)


def test_last_answer_is_in_plain_words_with_its_day() -> None:
    assert answer_of(found("single_artist", AT)) == "resolved 2026-11-30"
    assert answer_of(found(None, None)) == "none yet"
