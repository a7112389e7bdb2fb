"""The command `list`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

import click

from listener.adapters.postgres.sessions import Connection
from listener.adapters.postgres.worklists import (
    ListedRelease,
    Worklist,
    read_worklist,
    stream_worklist,
)
from listener.app.wording import MEANINGS, UNSURE, day, dumped, named, printable, write_csv
from listener.cli.errors import Decimal, Number, examples
from listener.cli.look import FittingTable, console
from listener.cli.session import look
from listener.settings import DatabaseSettings, load_settings

_PAGE = 50
# How much of a whole list is held in memory: some 7 MB.
_PART = 10_000

_KINDS = "\n".join(f"{kind:<16}{meaning}" for kind, meaning in MEANINGS.items())
_HELP = f"""\
List releases that a person can do something about.

\b
{_KINDS}

Needs only DATABASE_URL, and changes nothing. Exits 0 even if there are none. In --csv, an
apostrophe precedes text that a spreadsheet would take for a formula.
"""


@click.command(
    name="list",
    help=_HELP,
    epilog=examples(
        ("listener list unresolved", "the longest unresolved first"),
        ("listener list rotation --csv > rotation.csv", "the whole list, for a spreadsheet"),
        ("listener list low-confidence --below 0.5", "only the least certain"),
        ("listener list credits --page 2", "the next 50"),
    ),
)
@click.argument("kind", type=click.Choice([str(worklist) for worklist in Worklist]), metavar="KIND")
@click.option("--page", type=Number(1, 1_000_000), help=f"Page of {_PAGE} to list.  [default: 1]")
@click.option(
    "--below",
    type=Decimal(0, 1),
    default=UNSURE,
    show_default=True,
    help="List identities with less confidence than this.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print the list as comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as a JSON array.")
def list_command(*, kind: str, page: int | None, below: float, as_csv: bool, as_json: bool) -> None:
    """Print one of the worklists."""
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    settings = load_settings(DatabaseSettings)
    if page is None and (as_csv or as_json):
        look(settings, partial(_print_all, worklist=Worklist(kind), below=below, as_json=as_json))
        return
    skip = 0 if page is None else (page - 1) * _PAGE
    listed = look(
        settings,
        partial(read_worklist, worklist=Worklist(kind), below=below, limit=_PAGE, skip=skip),
    )
    if as_json:
        click.echo(dumped([named(each) for each in listed]))
    elif as_csv:
        write_csv(listed, sys.stdout)
    else:
        _show(listed, kind, page or 1)


async def _print_all(
    connection: Connection, backend: str, *, worklist: Worklist, below: float, as_json: bool
) -> None:
    first = True
    # Held: a person may read the first page for as long as they like.
    listed = stream_worklist(connection, backend, worklist, below=below, part=_PART, held=True)
    async with aclosing(listed) as parts:
        async for part in parts:
            if as_json:
                # Each part without the brackets of its own.
                entries = dumped([named(each) for each in part])[1:-1]
                click.echo(f"{'[' if first else ', '}{entries}", nl=False)
            else:
                write_csv(part, sys.stdout, header=first)
            first = False
    if as_json:
        click.echo("[]" if first else "]")
    elif first:
        write_csv((), sys.stdout)


def _show(listed: Sequence[ListedRelease], kind: str, page: int) -> None:
    if not listed:
        click.echo("none" if page == 1 else f"none on page {page}")
        return
    rows = [
        (
            str(each.row_id),
            printable(each.letters or "-"),
            "-" if each.since is None else day(each.since),
            printable(each.artist_name or "-"),
            printable(each.album_title or "-"),
            printable(each.why),
        )
        for each in listed
    ]
    columns = (">id", "letters", "since", "artist", "title", "why")
    console().print(FittingTable(columns, rows, wrapping=3))
    if len(listed) == _PAGE:
        click.echo(f"more may follow: listener list {kind} --page {page + 1}")
