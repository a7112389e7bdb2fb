"""Worklists for people: what each of them holds, and its rows as comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TextIO

from listener.adapters.postgres.worklists import ListedRelease, Worklist
from listener.app.report import utc

MEANINGS: Mapping[Worklist, str] = {
    Worklist.UNRESOLVED: "LML finds no single artist, the longest unverified first",
    Worklist.LOW_CONFIDENCE: "LML is not sure of the artist, the least sure first",
    Worklist.ROTATION: "played now, without a Discogs release or an LML identity",
    Worklist.CREDITS: "compilations with credits that are linked to no artist",
    Worklist.REPLACED: "identities that were replaced or withdrawn, the latest first",
    Worklist.PARKED: "rows that failed too often, the longest parked first",
}
# Confidence under which LML counts as unsure of an artist.
UNSURE = 0.7

_NAMES = {"row_id": "id", "artist_name": "artist", "album_title": "title"}
# How a formula of a spreadsheet begins; some languages use full-width letters.
_FORMULA = frozenset("=+-@＝＋－＠")  # noqa: RUF001 - those letters are meant


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
