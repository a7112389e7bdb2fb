"""Prints a run's progress on standard error and its counts, and the estimate of a planned run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from listener.adapters.log import write_line
from listener.app.commands import Forecast
from listener.domain.refreshing import RefreshStatus, RotationTally
from listener.domain.tally import FAILURES, Skip, Tally
from listener.domain.tracks import TrackCount
from listener.domain.words import plural

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


def library_lines(tally: Tally) -> list[str]:
    """Return the counts of library rows for a person, one a line."""
    counts = {
        "scanned": tally.scanned,
        "resolved": tally.resolved,
        "by track": tally.resolved_compilations,
        "unresolved": tally.unresolved,
        "compilation": tally.skipped[Skip.COMPILATION],
    }
    counts |= {
        f"{reason}{' (failed)' if reason in FAILURES else ''}": count
        for reason, count in sorted(tally.skipped.items())
        if reason is not Skip.COMPILATION
    }
    counts |= {_spoken(count): tally.tracks[count] for count in TrackCount if tally.tracks[count]}
    width = max(map(len, counts))
    lines = [f"{name:<{width}} {count:>9,}" for name, count in counts.items()]
    if tally.capture_missed:
        missed = plural(tally.capture_missed, "change")
        lines.append(f"capture missed {missed}; see `listener runbook capture-missed`")
    lines += _about_identities(tally)
    return [*lines, _calls(tally.lml_calls, "call", tally.latency_ms)]


def _spoken(count: TrackCount) -> str:
    return count.removeprefix("compilation_").replace("_cta_", "_row_").replace("_", " ")


def _about_identities(tally: Tally) -> Iterator[str]:
    for count, one, several in (
        (tally.identities_withdrawn, "identity withdrawn", "identities withdrawn"),
        (
            tally.resolved_now_unresolved,
            "identity kept, although LML now finds none",
            "identities kept, although LML now finds none",
        ),
        (
            tally.kept_manual,
            "identity kept, because a person set it",
            "identities kept, because a person set them",
        ),
    ):
        if count:
            yield f"{count:,} {one if count == 1 else several}"


def rotation_lines(tally: RotationTally) -> list[str]:
    """Return the counts of a walk for a person, one a line."""
    counts = tally.fields()
    return [
        f"rotation    {tally.scanned:>9,} identities",
        f"warmed      {tally.with_status(RefreshStatus.WARMED):>9,}",
        f"releases    {counts['warmed_releases']:>9,}",
        f"artists     {counts['warmed_artists']:>9,}",
        f"not found   {counts['not_found']:>9,}",
        f"not implemented {counts['not_implemented']:>5,}",
        f"failed      {counts['lml_error']:>9,}",
        *(f"{name:<11} {tally.mints[name]:>9,}" for name in tally.mints if tally.mints[name]),
        _calls(tally.calls, "refresh call", tally.latency.total_seconds() * 1000),
    ]


def _calls(count: int, kind: str, milliseconds: float) -> str:
    made = f"{plural(count, kind)} to LML"
    return f"{made}, {milliseconds / count:,.0f} ms each" if count else made


def plan_text(expected: Forecast) -> str:
    """Return an estimate for a person."""
    if not expected.rows:
        return "nothing to do"
    duration = timedelta(seconds=round(expected.duration.total_seconds()))
    return (
        f"{plural(expected.rows, 'row')}, {expected.compilations:,} of them compilations\n"
        f"{plural(expected.calls, 'call')} to LML, {expected.in_flight} at a time\n"
        f"about {duration} at {expected.call.total_seconds():.1f} s a call"
    )


def plan_json(expected: Forecast) -> str:
    """Return an estimate as a JSON object."""
    return json.dumps(
        {
            "rows": expected.rows,
            "compilations": expected.compilations,
            "lml_calls": expected.calls,
            "in_flight": expected.in_flight,
            "seconds_a_call": round(expected.call.total_seconds(), 3),
            "seconds": round(expected.duration.total_seconds(), 1),
        }
    )
