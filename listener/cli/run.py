"""The command `run`."""

from __future__ import annotations

import asyncio

import click

from listener.adapters.host import Ending, ignore_stray_signals
from listener.adapters.log import configure_logs, drain_logs
from listener.app.daemon import run_daemon
from listener.cli.errors import examples
from listener.settings import Settings, SettingsError, load_settings


@click.command(
    name="run",
    epilog=examples(
        ("listener run", "start several: the others stand by"),
        ("LOG_LEVEL=DEBUG listener run", "log more"),
    ),
)
def run_command() -> None:
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
