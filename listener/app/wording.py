"""Values of the database as people and programs read them, for commands and the page alike."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, TextIO

from listener.adapters.postgres.search import FoundRelease
from listener.adapters.postgres.worklists import ListedRelease, Worklist
from listener.domain.verdict import VISITED_COMPILATION, Kind
from listener.domain.words import span

# Outcomes in words for people, if these differ from the ledger's.
_OUTCOMES = {Kind.SINGLE_ARTIST: "resolved", VISITED_COMPILATION: "visited compilation"}
MEANINGS: Mapping[Worklist, str] = {
    Worklist.UNRESOLVED: "LML finds no single artist, the longest unverified first",
    Worklist.LOW_CONFIDENCE: "LML is not sure of the artist, the least certain first",
    Worklist.ROTATION: "played now, without a Discogs release or an LML identity",
    Worklist.CREDITS: "compilations with credits that are linked to no artist",
    Worklist.REPLACED: "identities that were replaced or withdrawn, the latest first",
    Worklist.PARKED: "rows that failed too often, the longest parked first",
}
# The confidence under which an identity counts as uncertain.
UNSURE = 0.7
_NAMES = {"row_id": "id", "artist_name": "artist", "album_title": "title"}
# How a formula of a spreadsheet begins; some languages use full-width letters.
_FORMULA = frozenset("=+-@＝＋－＠")  # noqa: RUF001 - those letters are meant


def dumped(seen: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Return one line of JSON; the values may include times."""
    return json.dumps(seen, default=utc)


def utc(value: object) -> str:
    """Return a time as a JSON string; raises `TypeError` for anything else."""
    if not isinstance(value, datetime):
        message = f"{value!r} cannot be written as JSON"
        raise TypeError(message)
    return value.astimezone(UTC).isoformat()


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


def named(release: ListedRelease) -> dict[str, object]:
    """Return an entry under the names of its columns."""
    return {_NAMES.get(name, name): value for name, value in asdict(release).items()}


def write_csv(listed: Iterable[ListedRelease], out: TextIO, *, header: bool = True) -> None:
    """Write entries for a spreadsheet, in which none of them is a formula."""
    names = [_NAMES.get(each.name, each.name) for each in fields(ListedRelease)]
    # Without quotes around all text, Python writes a lone \r as it is: the start of another row.
    writer = csv.DictWriter(out, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if header:
        writer.writeheader()
    for each in listed:
        cells = named(each) | {"since": each.since and utc(each.since)}
        writer.writerow({name: _plain(cell) for name, cell in cells.items()})


def _plain(cell: object) -> object:
    """Put an apostrophe before text that a spreadsheet would otherwise compute."""
    if isinstance(cell, str) and cell.lstrip()[:1] in _FORMULA:
        return f"'{cell}"
    return cell
