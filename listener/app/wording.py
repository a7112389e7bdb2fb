"""Times and text from the database as people read them, the same for commands and for the page."""

from __future__ import annotations

from datetime import UTC, datetime

from listener.adapters.postgres.search import FoundRelease
from listener.domain.verdict import VISITED_COMPILATION, Kind
from listener.domain.words import span

# Outcomes as people read them, where that differs from the ledger's word.
_OUTCOMES = {Kind.SINGLE_ARTIST: "resolved", VISITED_COMPILATION: "visited compilation"}


def moment(at: datetime, now: datetime) -> str:
    """Return a time with its distance from now."""
    distance = f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
    return f"{clock(at)} ({distance})"


def clock(at: datetime) -> str:
    """Return a time to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(at: datetime) -> str:
    """Return the day of a time, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def printable(text: str) -> str:
    """Escape characters that could control a terminal or reverse the direction of writing."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def outcome_word(outcome: str) -> str:
    """Return the outcome of a question as a word for people."""
    return _OUTCOMES.get(outcome, outcome)


def answer_of(release: FoundRelease) -> str:
    """Return the last answer to a release, and its day."""
    if release.outcome is None or release.answered_at is None:
        return "none yet"
    return f"{outcome_word(release.outcome)} {day(release.answered_at)}"


def next_of(release: FoundRelease) -> str:
    """Return when a release is asked about next."""
    if release.waiting:
        return "waiting"
    if release.parked:
        return f"parked, {release.failures} failures"
    return "-" if release.next_ask_at is None else clock(release.next_ask_at)
