"""A run's progress on standard error: a live line on a terminal, else a line now and then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from listener.adapters.log import write_line
from listener.domain.refreshing import RefreshStatus, RotationTally
from listener.domain.tally import Skip, Tally

_MOVE_EVERY = timedelta(milliseconds=200)
_LINE_EVERY = timedelta(seconds=10)


@contextmanager
def show_progress(tally: Tally | RotationTally) -> Iterator[Callable[[int], None] | None]:
    """Show the tally for the length of the block, within a running loop.

    Yields a function that takes the number of expected rows, or None if it is not needed.
    """
    if not sys.stderr.isatty():
        with _every(_LINE_EVERY, lambda: write_line(_line(tally))):
            yield None
        return
    words = TextColumn("{task.description}", table_column=Column(overflow="fold"))
    columns = (BarColumn(), words, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(_line(tally), total=None)

        def move() -> None:
            progress.update(task, description=_line(tally), completed=tally.scanned)

        def expect(rows: int) -> None:
            progress.update(task, total=tally.scanned + rows)

        with _every(_MOVE_EVERY, move):
            yield expect


@contextmanager
def _every(interval: timedelta, show: Callable[[], None]) -> Iterator[None]:
    # Not a task: a task group would wrap errors of the block in an exception group.
    loop = asyncio.get_running_loop()
    next_time: asyncio.TimerHandle

    def tick() -> None:
        nonlocal next_time
        show()
        next_time = loop.call_later(interval.total_seconds(), tick)

    next_time = loop.call_later(interval.total_seconds(), tick)
    try:
        yield
    finally:
        next_time.cancel()


def _line(tally: Tally | RotationTally) -> str:
    if isinstance(tally, RotationTally):
        warmed, not_found, failed = map(
            tally.with_status, (RefreshStatus.WARMED, RefreshStatus.NOT_FOUND, RefreshStatus.ERROR)
        )
        return (
            f"{tally.scanned:,} identities refreshed: {warmed:,} warmed, "
            f"{not_found:,} not found, {failed:,} failed"
        )
    if not tally.scanned:
        return "searching for due rows"
    compilations = tally.resolved_compilations + tally.skipped[Skip.COMPILATION]
    return (
        f"{tally.scanned:,} asked: {tally.resolved:,} resolved, {tally.unresolved:,} unresolved, "
        f"{compilations:,} compilations, {tally.failed:,} failed"
    )
