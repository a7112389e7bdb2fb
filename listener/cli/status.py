"""The command `status`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from threading import Event

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from listener.adapters.postgres.status import Status, read_status
from listener.app.verdict import verdict_on, with_verdict
from listener.app.wording import dumped, printable
from listener.cli.errors import complain, examples
from listener.cli.look import console, json_option
from listener.cli.screen import screen
from listener.cli.session import look
from listener.domain.faults import FixableError
from listener.settings import StatusSettings, load_settings

_REFRESH = timedelta(seconds=2)
# For a pipe; a terminal knows its own width.
_PIPE_WIDTH = 120


@click.command(
    name="status",
    epilog=examples(
        ("listener status", "one screen"),
        ("listener status --watch", "refresh every 2 seconds"),
        ("listener status --json", "machine-readable"),
    ),
)
@json_option
@click.option("--watch", is_flag=True, help="Refresh every 2 seconds until Ctrl-C.")
def status_command(*, as_json: bool, watch: bool) -> None:
    """Show health, backlog, coverage, runs and replicas.

    Reads the database only: needs just DATABASE_URL and changes nothing. Exits 0, or 2 if it cannot
    read the database. With --watch, only a failure of the first read ends it.
    """
    settings = load_settings(StatusSettings)
    scope = settings.include_null_canonical

    def read() -> Status:
        return look(settings, partial(read_status, include_null_canonical=scope))

    def printed(status: Status) -> None:
        if as_json:
            click.echo(dumped(with_verdict(status, settings)))
        else:
            console(_PIPE_WIDTH).print(screen(status, verdict_on(status, settings)))

    status = read()
    if not watch:
        printed(status)
    elif as_json or not sys.stdout.isatty():
        _watch_printing(_looks(status, read), printed, spaced=not as_json)
    else:
        _watch_in_place(_looks(status, read), settings)


def _looks(status: Status, read: Callable[[], Status]) -> Iterator[tuple[Status, str]]:
    """Yield the last status read, and the error that has prevented reading since, if any."""
    never = Event()
    trouble = ""
    while True:
        yield status, trouble
        never.wait(_REFRESH.total_seconds())
        try:
            status, trouble = read(), ""
        except FixableError as error:
            trouble = f"cannot read the status, retrying: {printable(str(error))}"


def _watch_printing(
    looks: Iterator[tuple[Status, str]], printed: Callable[[Status], None], *, spaced: bool
) -> None:
    for status, trouble in looks:
        if trouble:
            complain(trouble)
            continue
        printed(status)
        if spaced:
            click.echo()


def _watch_in_place(looks: Iterator[tuple[Status, str]], settings: StatusSettings) -> None:
    with Live(console=console(_PIPE_WIDTH), auto_refresh=False) as live:
        for status, trouble in looks:
            said = [Text(trouble, style="red")] if trouble else []
            wellness = verdict_on(status, settings)
            shown = Group(*said, screen(status, wellness))
            if len(live.console.render_lines(shown)) > live.console.height:
                shown = Group(*said, screen(status, wellness, spaced=False))
            live.update(shown, refresh=True)
