"""The command `find`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import click

from listener.adapters.postgres.search import FoundRelease, find_releases
from listener.app.wording import answer_of, dumped, next_of, printable
from listener.cli.errors import Number, examples
from listener.cli.look import FittingTable, console, json_array_option
from listener.cli.session import look
from listener.settings import DatabaseSettings, load_settings

_NOTHING_FOUND = 1
_MOST = 20


@click.command(
    name="find",
    epilog=examples(
        ("listener find broadcast tender", "case, accents and order are ignored"),
        ("listener find bjork --limit 100", "show more than the best 20"),
        ("listener find stereolab --json", "machine-readable"),
    ),
)
@click.argument("words", nargs=-1, required=True)
@click.option(
    "--limit",
    type=Number(1, 10_000),
    default=_MOST,
    show_default=True,
    help="Most releases to list.",
)
@json_array_option
def find_command(*, words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find releases by words in artist and title.

    Best matches come first, each with its id, the last answer and the next attempt. `listener why
    ID` shows more. Needs only DATABASE_URL and changes nothing. Exits 0, or 1 if nothing matches.
    """
    settings = load_settings(DatabaseSettings)
    found = search(settings, " ".join(words), limit=limit)
    if as_json:
        click.echo(dumped([asdict(release) for release in found]))
    elif found:
        show(found)
        if len(found) == limit:
            click.echo("more may match: give more words, or a higher --limit")
    else:
        click.echo("no release contains all of these words", err=True)
    if not found:
        raise SystemExit(_NOTHING_FOUND)


def search(settings: DatabaseSettings, words: str, *, limit: int = _MOST) -> Sequence[FoundRelease]:
    """Return releases that contain the words, best first; raises `SlowSearchError`."""
    return look(settings, partial(find_releases, words=words, limit=limit))


def show(found: Sequence[FoundRelease]) -> None:
    """Print a table of releases."""
    columns = (">id", "last answer", "next", "artist", "title")
    rows = [
        (
            str(release.library_id),
            answer_of(release),
            next_of(release),
            printable(release.artist_name or "-"),
            printable(release.album_title),
        )
        for release in found
    ]
    console().print(FittingTable(columns, rows, wrapping=2))
