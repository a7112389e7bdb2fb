"""The command `list`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC

import click

from listener.adapters.postgres.status import looking
from listener.adapters.postgres.worklists import LIST, ListedRelease, Worklist, read_worklist
from listener.app.report import dumped, utc
from listener.app.wording import printable
from listener.cli.errors import Number, examples
from listener.cli.look import FittingTable, console
from listener.settings import DatabaseSettings, load_settings

_PAGE = 50
_UNSURE = 0.7
# Wide enough for the longest names: what reads from a pipe gets one line a release.
_PIPE_WIDTH = 500
_NAMES = {"row_id": "id", "artist_name": "artist", "album_title": "title"}

_HELP = """\
List releases that a person can do something about.

\b
unresolved      LML finds no single artist
low-confidence  LML is not sure of the artist
rotation        played now, without a Discogs release or an LML identity
credits         compilations with credits that are linked to no artist
replaced        identities that were replaced or withdrawn, the latest first
parked          rows that failed too often

Needs only DATABASE_URL, and changes nothing. Exits 0, also if there are none.
"""


@click.command(
    name="list",
    help=_HELP,
    epilog=examples(
        ("listener list unresolved", "the first 50, the longest unresolved first"),
        ("listener list rotation --csv > rotation.csv", "for a spreadsheet: all of them"),
        ("listener list low-confidence --below 0.5", "only the least sure"),
        ("listener list credits --page 2", "the next 50"),
    ),
)
@click.argument("kind", type=click.Choice([str(worklist) for worklist in Worklist]))
@click.option("--page", type=Number(1, 1_000_000), help=f"Which {_PAGE} of them.  [default: 1]")
@click.option(
    "--below",
    type=click.FloatRange(0, 1),
    default=_UNSURE,
    show_default=True,
    help="Confidence under which an identity is listed.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of all of them.")
def list_command(*, kind: str, page: int | None, below: float, as_csv: bool, as_json: bool) -> None:
    """Print one of the worklists."""
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    settings = load_settings(DatabaseSettings)
    backend = settings.wxyc_schema_name
    everything = (as_csv or as_json) and page is None
    with looking(settings.database_url.get_secret_value(), backend, LIST) as connection:
        listed = read_worklist(
            connection,
            backend,
            Worklist(kind),
            below=below,
            limit=None if everything else _PAGE,
            skip=0 if page is None else (page - 1) * _PAGE,
        )
    if as_json:
        click.echo(dumped([_object(each) for each in listed]))
    elif as_csv:
        _write_csv(listed)
    else:
        _show(listed, kind, page or 1)


def _show(listed: Sequence[ListedRelease], kind: str, page: int) -> None:
    if not listed:
        click.echo("none" if page == 1 else f"none on page {page}")
        return
    rows = [
        (
            str(each.row_id),
            printable(each.letters or "-"),
            "-" if each.since is None else f"{each.since.astimezone(UTC):%Y-%m-%d}",
            printable(each.artist_name or "-"),
            printable(each.album_title or "-"),
            printable(each.why),
        )
        for each in listed
    ]
    columns = (">id", "letters", "since", "artist", "title", "why")
    console(_PIPE_WIDTH).print(FittingTable(columns, rows))
    if len(listed) == _PAGE:
        click.echo(f"more may follow: listener list {kind} --page {page + 1}")


def _write_csv(listed: Sequence[ListedRelease]) -> None:
    names = [_NAMES.get(each.name, each.name) for each in fields(ListedRelease)]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for each in listed:
        writer.writerow(_object(each) | {"since": each.since and utc(each.since)})


def _object(each: ListedRelease) -> dict[str, object]:
    return {_NAMES.get(name, name): value for name, value in asdict(each).items()}
