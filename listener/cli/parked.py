"""The commands `parked` and `requeue`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial

import click

from listener.adapters.postgres.worklists import ParkedRow, list_parked, requeue_parked
from listener.app.wording import clock, dumped, printable
from listener.cli.errors import RowId, examples
from listener.cli.look import console, json_array_option, plain_table
from listener.cli.session import look
from listener.domain.words import plural
from listener.settings import DatabaseSettings, load_settings

_SOME_NOT_PARKED = 1


@click.command(
    name="parked",
    epilog=examples(
        ("listener parked", "list the rows and the reasons"),
        ("listener parked --json", "machine-readable"),
    ),
)
@json_array_option
def parked_command(*, as_json: bool) -> None:
    """List the rows that failed too often.

    A parked row is left alone for days. The row that has been parked longest comes first. Needs
    only DATABASE_URL and changes nothing. Exits 0 even if no row is parked.
    """
    rows = look(load_settings(DatabaseSettings), list_parked)
    if as_json:
        click.echo(dumped([asdict(row) for row in rows]))
    elif rows:
        _print(rows)
    else:
        click.echo("no rows are parked")


@click.command(
    name="requeue",
    epilog=examples(
        ("listener requeue 4711 4712", "requeue these rows"),
        ("listener requeue --all", "requeue every parked row"),
    ),
)
@click.argument("library_ids", metavar="[ID]...", type=RowId(), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Requeue every parked row.")
def requeue_command(*, library_ids: tuple[int, ...], everything: bool) -> None:
    """Requeue parked rows: LML is asked about them at once.

    Needs only DATABASE_URL. Fix LML first. Each row gets its full number of attempts again. Exits
    0, or 1 if some of the given rows are not parked; the others are requeued.
    """
    if everything and library_ids:
        raise click.UsageError("give row ids or --all, not both")
    if not everything and not library_ids:
        raise click.UsageError("give row ids or --all")
    wanted = None if everything else frozenset(library_ids)
    requeue = partial(requeue_parked, library_ids=wanted)
    requeued = look(load_settings(DatabaseSettings), requeue)
    click.echo(f"{plural(len(requeued), 'row')} requeued")
    not_parked = sorted(wanted - requeued) if wanted else []
    for library_id in not_parked:
        click.echo(f"row {library_id} is not parked", err=True)
    if not_parked:
        raise SystemExit(_SOME_NOT_PARKED)


def _print(rows: Sequence[ParkedRow]) -> None:
    table = plain_table(">row", "reason", ">failures", "parked since", "detail")
    for row in rows:
        table.add_row(
            str(row.library_id),
            printable(row.reason or "-"),
            f"{row.attempts:,}",
            _since(row.last_failed_at),
            printable(row.detail or "-"),
        )
    out = console()
    out.print(table)
    out.print(f"{plural(len(rows), 'row')} parked; to requeue: listener requeue ID... (or --all)")


def _since(at: datetime | None) -> str:
    return "-" if at is None else clock(at)
