"""The commands `parked` and `requeue`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import click

from listener.adapters.postgres.parked import (
    PARKED,
    REQUEUE,
    ParkedRow,
    list_parked,
    requeue_parked,
)
from listener.adapters.postgres.status import looking
from listener.cli.errors import examples
from listener.cli.look import clock, console, plain_table, printable
from listener.settings import DatabaseSettings, load_settings

_SOME_NOT_PARKED = 1
# Wide enough for the longest detail: what reads from a pipe gets one line a row.
_PIPE_WIDTH = 500


@click.command(
    name="parked",
    epilog=examples(
        ("listener parked", "which rows, and why"),
        ("listener parked --json", "for a machine"),
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def parked_command(*, as_json: bool) -> None:
    """List the rows that failed too often and are set aside for days.

    The longest parked stand first. Needs DATABASE_URL only, and changes nothing. Exits 0, also if
    there are none.
    """
    settings = load_settings(DatabaseSettings)
    backend = settings.wxyc_schema_name
    with looking(settings.database_url.get_secret_value(), backend, PARKED) as connection:
        rows = list_parked(connection, backend)
    if as_json:
        click.echo(json.dumps([_object(row) for row in rows]))
    elif rows:
        _print(rows)
    else:
        click.echo("nothing is parked")


@click.command(
    name="requeue",
    epilog=examples(
        ("listener requeue 4711 4712", "these rows"),
        ("listener requeue --all", "all that are parked"),
    ),
)
@click.argument("library_ids", metavar="[ID]...", type=click.IntRange(1, 2**31 - 1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Put back all rows that are parked.")
def requeue_command(*, library_ids: tuple[int, ...], everything: bool) -> None:
    """Put parked rows back, with all their tries again.

    The daemon asks them at once. Needs DATABASE_URL only, and LML to be fixed first. Exits 0, or
    1 if some of the rows named are not parked; the others are put back.
    """
    if everything == bool(library_ids):
        raise click.UsageError("name the rows to put back or say --all, one of the two")
    settings = load_settings(DatabaseSettings)
    backend = settings.wxyc_schema_name
    wanted = None if everything else frozenset(library_ids)
    with looking(settings.database_url.get_secret_value(), backend, REQUEUE) as connection:
        requeued = requeue_parked(connection, backend, wanted)
    click.echo(f"{len(requeued):,} put back")
    not_parked = sorted(wanted - requeued) if wanted else []
    for library_id in not_parked:
        click.echo(f"{library_id} is not parked", err=True)
    if not_parked:
        raise SystemExit(_SOME_NOT_PARKED)


def _object(row: ParkedRow) -> dict[str, object]:
    at = row.last_failed_at
    return asdict(row) | {"last_failed_at": at and at.astimezone(UTC).isoformat()}


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
    out = console(_PIPE_WIDTH)
    out.print(table)
    out.print(f"{len(rows):,} parked; put back with: listener requeue ID... (or --all)")


def _since(at: datetime | None) -> str:
    return "-" if at is None else clock(at)
