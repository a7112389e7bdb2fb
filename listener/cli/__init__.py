"""The command line."""

from __future__ import annotations

import resource

import click

from listener import DISTRIBUTION
from listener.cli.errors import Commands, complain, examples

# 128 viewers of the page, as many calls to LML, some 30 sessions; Sentry, and Python's own files.
_FILES = 512
# By name: the module under listener.cli, and the function in it.
_COMMANDS = {
    "backfill": ("reconcile", "backfill"),
    "completion": ("completion", "completion_command"),
    "demo": ("demo", "demo_command"),
    "doctor": ("doctor", "doctor_command"),
    "find": ("find", "find_command"),
    "history": ("history", "history_command"),
    "list": ("worklists", "list_command"),
    "migrate": ("migrate", "migrate_command"),
    "parked": ("parked", "parked_command"),
    "requeue": ("parked", "requeue_command"),
    "roles": ("roles", "roles_command"),
    "run": ("run", "run_command"),
    "runbook": ("runbook", "runbook_command"),
    "settings": ("settings", "settings_command"),
    "status": ("status", "status_command"),
    "sweep": ("reconcile", "sweep"),
    "uninstall": ("migrate", "uninstall_command"),
    "why": ("why", "why_command"),
}


@click.group(
    cls=Commands,
    places={name: (f"{__name__}.{module}", made) for name, (module, made) in _COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("listener doctor", "check the installation"),
        ("listener run", "start the daemon"),
        ("listener status --watch", "watch backlog, coverage, runs and replicas"),
        ("listener --debug sweep", "show the traceback of an error"),
    ),
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error. It may quote rows.")
@click.version_option(package_name=DISTRIBUTION, prog_name="listener")
def main(*, debug: bool) -> None:
    """Keep a radio station's catalogue in step with its cross-catalogue identities.

    Settings come from the environment or a file .env. DATABASE_URL (or DB_HOST, DB_PORT,
    DB_NAME, DB_USERNAME and DB_PASSWORD) and LIBRARY_METADATA_URL are required.
    """
    # Only a command needs these, and they take longer to import than `--version` takes.
    from listener.settings import resembling

    # The error handler reads it from the context.
    del debug
    _require_files()
    for name, meant in resembling().items():
        complain(f".env sets {name}, which is not a setting; did you mean {meant}?")


def _require_files() -> None:
    """Raise this process's limit of open files if needed; raises `SettingsError` if it may not."""
    from listener.settings import SettingsError

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FILES:
        return
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        raise SettingsError(
            f"this process may open {hard} files, and listener needs {_FILES} for its "
            "connections; raise the limit: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile="
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, hard))
