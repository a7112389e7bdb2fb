"""The command `why`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import click

from listener.adapters.postgres.story import read_story
from listener.app.story import lines_of
from listener.app.wording import dumped
from listener.cli.errors import RowId, examples
from listener.cli.find import search, show
from listener.cli.look import json_option, print_labelled
from listener.cli.session import look
from listener.settings import StatusSettings, load_settings

_NO_SUCH_ROW = 1


@click.command(
    name="why",
    epilog=examples(
        ("listener why 4711", "explain the row with this id"),
        ("listener why broadcast tender", "explain the release with these words"),
        ("listener why 4711 --json", "machine-readable"),
    ),
)
@click.argument("row", metavar="ID|WORDS...", nargs=-1, required=True)
@json_option
def why_command(*, row: tuple[str, ...], as_json: bool) -> None:
    """Explain the state of one library row.

    Shows what LML was asked and answered, the identity, and what happens next. WORDS are looked up
    in artists and titles; if several releases match, they are listed instead. Needs only
    DATABASE_URL and changes nothing. Exits 0, or 1 unless exactly one row matches.
    """
    settings = load_settings(StatusSettings)
    library_id = _id_of(row, settings)
    read = partial(
        read_story,
        library_id=library_id,
        ask_again=settings.ask_again,
        include_null_canonical=settings.include_null_canonical,
    )
    story = look(settings, read)
    if as_json:
        click.echo(dumped(asdict(story)))
    else:
        print_labelled(lines_of(story))
    if story.release is None:
        raise SystemExit(_NO_SUCH_ROW)


def _id_of(row: tuple[str, ...], settings: StatusSettings) -> int:
    """Return the given id, or that of the only release that matches the words."""
    if len(row) == 1 and row[0].isdecimal():
        return RowId().convert(row[0], None, None)
    found = search(settings, " ".join(row))
    if len(found) == 1:
        return found[0].library_id
    if found:
        show(found)
        click.echo("several releases match; give more words, or an id", err=True)
    else:
        click.echo("no release contains all of these words", err=True)
    raise SystemExit(_NO_SUCH_ROW)
