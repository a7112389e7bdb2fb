"""The command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version

import click

from listener.adapters.log import configure_logs
from listener.adapters.postgres.installation import (
    InstallationError,
    install,
    installing,
    missing_parts,
    uninstall,
)
from listener.bootstrap import run_daemon
from listener.settings import DatabaseSettings, Settings, SettingsError, load_settings

_COULD_NOT_RUN = 2


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that a person can do something about into a message and an exit code."""

    @wraps(command)
    def told(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
        except (SettingsError, InstallationError) as error:
            for line in str(error).splitlines():
                click.echo(f"listener: {line}", err=True)
            raise SystemExit(_COULD_NOT_RUN) from None

    return told


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("listener"), prog_name="listener")
def main() -> None:
    """Keep a radio station's catalogue and its cross-catalogue identities together.

    Settings come from the environment or a file .env: DATABASE_URL and LIBRARY_METADATA_URL are
    needed, the rest is optional.
    """


@main.command()
@_told
def run() -> None:
    """Follow the catalogue until stopped: the always-on daemon."""
    settings = load_settings(Settings)
    configure_logs(settings.log_level)
    asyncio.run(run_daemon(settings))


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if anything is missing.")
@_told
def migrate(*, check: bool) -> None:
    """Install schema listener and the triggers, or bring them up to this version."""
    settings = load_settings(DatabaseSettings)
    with installing(settings.database_url.get_secret_value()) as connection:
        if check:
            missing = missing_parts(connection, settings.wxyc_schema_name)
            for part in missing:
                click.echo(f"missing {part.label}")
            if missing:
                raise SystemExit(1)
            click.echo("nothing missing")
            return
        done = install(connection, settings.wxyc_schema_name)
    for line in done or ["nothing to do"]:
        click.echo(line)


@main.command(name="uninstall")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_told
def uninstall_command(*, yes: bool) -> None:
    """Remove the triggers and schema listener, with the ledger; identities stay."""
    settings = load_settings(DatabaseSettings)
    if not yes:
        click.confirm("Remove the listener's triggers and its schema with the ledger?", abort=True)
    with installing(settings.database_url.get_secret_value()) as connection:
        done = uninstall(connection, settings.wxyc_schema_name)
    for line in done or ["nothing to do"]:
        click.echo(line)
