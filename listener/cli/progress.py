"""How far a run is, on standard error: a moving line on a terminal, else one now and then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from listener.domain.tally import Skip, Tally

_MOVE_EVERY = timedelta(milliseconds=200)
_LINE_EVERY = timedelta(seconds=10)


@asynccontextmanager
async def show_progress(tally: Tally) -> AsyncIterator[None]:
    """Show the tally for the length of the block."""
    async with asyncio.TaskGroup() as tasks:
        showing = tasks.create_task(_move(tally) if sys.stderr.isatty() else _print_lines(tally))
        try:
            yield
        finally:
            showing.cancel()


async def _move(tally: Tally) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("looking for due rows")
        while True:
            await asyncio.sleep(_MOVE_EVERY.total_seconds())
            if tally.scanned:
                progress.update(task, description=_line(tally))


async def _print_lines(tally: Tally) -> None:
    while True:
        await asyncio.sleep(_LINE_EVERY.total_seconds())
        click.echo(_line(tally), err=True)


def _line(tally: Tally) -> str:
    return (
        f"{tally.scanned:,} asked: {tally.resolved:,} resolved, {tally.unresolved:,} unresolved, "
        f"{tally.skipped[Skip.COMPILATION]:,} compilations, {tally.failed:,} failed"
    )
