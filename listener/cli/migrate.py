"""The commands `migrate` and `uninstall`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from listener.adapters.postgres.installation import (
    Part,
    install,
    lagging_sequences,
    missing_parts,
    newer_version,
    require_backend,
    uninstall,
)
from listener.adapters.postgres.inventory import Inventory, take_inventory
from listener.adapters.postgres.rehearsal import refused_statements
from listener.adapters.postgres.sessions import Connection
from listener.app.wording import printable
from listener.cli.errors import examples
from listener.cli.session import change
from listener.domain.words import plural
from listener.settings import DatabaseSettings, load_settings


@click.command(
    name="migrate",
    epilog=examples(
        ("listener migrate --check", "list what is missing"),
        ("listener migrate", "install or update; safe to repeat"),
        ("listener migrate --yes", "do not ask on a terminal either"),
    ),
)
@click.option("--check", is_flag=True, help="Change nothing. Exit 1 if anything is missing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def migrate_command(*, check: bool, yes: bool) -> None:
    """Install or update schema listener and the triggers.

    Shows the database first. On a terminal it asks before it installs anything; a script is never
    asked.
    """
    settings = load_settings(DatabaseSettings)
    if check:
        _report_missing(change(settings, _list_missing))
        return
    there, missing = change(settings, _look)
    _show(_place(there, settings.wxyc_schema_name))
    if missing and sys.stdin.isatty() and not yes:
        _show(f"installs  {part.label}" for part in missing)
        click.confirm("Install them?", abort=True, err=True)
    done, newer = change(settings, _install)
    if newer is not None:
        click.echo(f"installed by the newer version {newer}; nothing changed", err=True)
    _report(done)


@click.command(
    name="uninstall",
    epilog=examples(
        ("listener uninstall", "show what would be removed, and ask"),
        ("listener uninstall --yes", "do not ask, for scripts"),
    ),
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def uninstall_command(*, yes: bool) -> None:
    """Remove the triggers and schema listener. Identities stay.

    Shows the database and the number of rows first. This deletes the ledger: a new installation
    asks LML again about every row without a fresh identity.
    """
    settings = load_settings(DatabaseSettings)
    backend = settings.wxyc_schema_name
    there = change(settings, take_inventory)
    _show(_place(there, backend))
    _show(_removed(there, backend))
    if not yes and (there.triggers or there.rows):
        click.confirm("Remove them? Identities stay.", abort=True, err=True)
    _report(change(settings, uninstall))


async def _look(connection: Connection, backend: str) -> tuple[Inventory, list[Part]]:
    await require_backend(connection, backend)
    there = await take_inventory(connection, backend)
    return there, await missing_parts(connection, backend)


async def _install(connection: Connection, backend: str) -> tuple[list[str], str | None]:
    return await install(connection, backend), await newer_version(connection)


async def _list_missing(connection: Connection, backend: str) -> list[str]:
    await require_backend(connection, backend)
    missing = await missing_parts(connection, backend)
    lines = [f"missing {part.label}" for part in missing]
    if any(part.folder == "schema" for part in missing):
        return lines
    refused = await refused_statements(connection, backend)
    lines += [f"cannot run {', '.join(names)}: {why}" for why, names in refused.items()]
    behind = await lagging_sequences(connection, backend)
    return lines + [f"{name} is behind its rows" for name in behind]


def _report_missing(lines: Sequence[str]) -> None:
    for line in lines or ["nothing missing"]:
        click.echo(line)
    if lines:
        raise SystemExit(1)


def _place(there: Inventory, backend: str) -> Iterator[str]:
    yield f"host      {there.host}"
    yield f"database  {there.database}, as role {there.role}"
    yield f"schema    {backend}"


def _removed(there: Inventory, backend: str) -> Iterator[str]:
    for table, triggers in there.triggers.items():
        yield f"removes   {plural(triggers, 'trigger')} on {backend}.{table}"
    for table, rows in there.rows.items():
        yield f"removes   listener.{table}, {plural(rows, 'row')}"


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line), err=True)


def _report(done: Sequence[str]) -> None:
    for line in done or ["nothing to do"]:
        click.echo(line)
