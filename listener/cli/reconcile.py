"""The commands `sweep` and `backfill`."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field, replace

import click

from listener.adapters.host import Ending
from listener.adapters.log import configure_logs, drain_logs, write_line
from listener.app.commands import (
    Command,
    Forecast,
    count_walk,
    forecast,
    require_ready,
    run_command,
    run_walk,
)
from listener.cli.errors import SOME_FAILED, Number, examples
from listener.cli.look import console
from listener.cli.progress import library_lines, plan_json, plan_text, rotation_lines, show_progress
from listener.domain.change import Stream
from listener.domain.due import Reason, RunKind, Scope
from listener.domain.faults import StoreUnavailableError
from listener.domain.gate import Route
from listener.domain.refreshing import RefreshStatus, RotationTally
from listener.domain.tally import Tally
from listener.engine.reconciler import RunHaltedError
from listener.settings import Settings, load_settings

_LIBRARY_ONLY = (
    "--limit, --since-id, --partition, --only and --recheck work on the library only; "
    "remove them or --stream rotation"
)


@dataclass(slots=True)
class _SweepWalk:
    """A walk as requested, with its result; a `dry` one only counts, in `found`."""

    dry: bool
    force: bool
    tally: RotationTally = field(default_factory=RotationTally)
    found: int = 0

    async def make(self, settings: Settings) -> None:
        if self.dry:
            self.found = await count_walk(settings)
            return
        with show_progress(self.tally) as expect:
            await run_walk(settings, self.tally, force=self.force, expect=expect)

    @property
    def did_something(self) -> bool:
        """Whether there was anything to refresh."""
        return bool(self.tally.scanned or self.tally.mints.total() or self.found)

    def report(self) -> dict[str, int]:
        return {"would_refresh": self.found} if self.dry else self.tally.fields()

    def lines(self) -> list[str]:
        empty = ["rotation            0 identities"]
        return rotation_lines(self.tally) if self.did_something else empty


class _Partition(click.ParamType[tuple[int, int]]):
    """I/N: share I of N, counted from 0."""

    name = "I/N"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", value)
        if match is None or not int(match[1]) < int(match[2]) <= 1000:  # noqa: PLR2004 - see below
            self.fail(f"{value!r} is not I/N with 0 <= I < N <= 1000, such as 0/4", param, ctx)
        return int(match[1]), int(match[2])


_limit = click.option("--limit", type=Number(1), help="Ask about at most this many rows.")
_since = click.option(
    "--since-id",
    type=Number(0, 2**31 - 1),
    default=0,
    help="Skip rows with a lower id.",
)
_partition = click.option(
    "--partition",
    type=_Partition(),
    help="Search only share I (from 0) of N, to split the work between machines.",
)
_dry_run = click.option(
    "--dry-run",
    is_flag=True,
    help="Ask LML but write nothing. Print the results as JSON.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the counts as a JSON object.")


@click.command(
    epilog=examples(
        ("listener sweep", "ask about everything that is due"),
        ("listener sweep --dry-run --limit 100", "try 100 rows, write nothing"),
        ("listener sweep --only failed", "ask again about what failed"),
        ("listener sweep --stream rotation", "refresh the rotation"),
    )
)
@_limit
@_since
@_partition
@click.option(
    "--only",
    type=click.Choice([str(reason) for reason in Reason]),
    help="Ask only about rows that are due for this reason.",
)
@click.option(
    "--recheck",
    is_flag=True,
    help="Ask again about every compilation asked before, whether or not it is due.",
)
@click.option(
    "--stream",
    type=click.Choice([str(stream) for stream in Stream]),
    help="Sweep only this stream.  [default: both; only the library with options that restrict it]",
)
@click.option(
    "--force",
    is_flag=True,
    help="Refresh the rotation even if too many of its rows lack an identity.",
)
@_dry_run
@_json
def sweep(  # noqa: PLR0913 - one for each option
    *,
    recheck: bool,
    limit: int | None,
    since_id: int,
    partition: tuple[int, int] | None,
    only: str | None,
    stream: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask LML now about everything that is due.

    In the library that is every row whose answer is missing or old. In the rotation every identity
    is refreshed, which costs nothing for a fresh one.

    If no daemon follows the library, its waiting changes come first. Exits 0 on success (rows
    without an identity and compilations are normal), 1 if some rows failed, 2 if it could not run
    or gave up. Rows that were not asked about stay due.
    """
    settings = load_settings(Settings)
    scope = _scope(settings, since_id, partition)
    if only is not None:
        scope = replace(scope, only=frozenset((Reason(only),)))
    dry = dry_run or settings.dry_run
    whole = limit is None and only is None and not since_id and not recheck
    if stream == Stream.ROTATION and not (whole and partition is None):
        raise click.UsageError(_LIBRARY_ONLY)
    walks = stream == Stream.ROTATION or (stream is None and whole and scope.partitions == 1)
    kind = RunKind.RECHECK if recheck else RunKind.SWEEP
    command = Command(kind, scope, limit, dry, leftovers=whole and not dry)
    walk = _SweepWalk(dry=dry, force=force) if walks else None
    _run(settings, None if stream == Stream.ROTATION else command, walk, as_json=as_json)


@click.command(
    epilog=examples(
        ("listener backfill --plan", "estimate rows, calls and time"),
        ("listener backfill", "ask about every row never asked"),
        ("listener backfill --partition 0/2", "the first of two halves"),
    )
)
@_limit
@_since
@_partition
@click.option("--plan", is_flag=True, help="Estimate rows, calls and time without asking LML.")
@_dry_run
@_json
def backfill(
    *,
    limit: int | None,
    since_id: int,
    partition: tuple[int, int] | None,
    plan: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask LML about every row never asked: the initial load.

    Can be stopped and run again at any time: it skips rows already answered. Exits with the same
    codes as sweep.
    """
    settings = load_settings(Settings)
    scope = replace(_scope(settings, since_id, partition), only=frozenset((Reason.NEVER,)))
    if plan:
        configure_logs(_quieter(settings.log_level))
        expected = asyncio.run(_forecast(settings, scope))
        click.echo(plan_json(expected) if as_json else plan_text(expected))
        return
    dry = dry_run or settings.dry_run
    _run(settings, Command(RunKind.BACKFILL, scope, limit, dry), None, as_json=as_json)


async def _forecast(settings: Settings, scope: Scope) -> Forecast:
    await require_ready(settings, [], dry=True)
    return await forecast(settings, RunKind.BACKFILL, scope)


def _scope(settings: Settings, since_id: int, partition: tuple[int, int] | None) -> Scope:
    index, count = partition or (settings.partition_index, settings.partition_count)
    return Scope(
        include_null_canonical=settings.include_null_canonical,
        since_id=since_id,
        partition=index,
        partitions=count,
    )


def _run(
    settings: Settings, command: Command | None, walk: _SweepWalk | None, *, as_json: bool
) -> None:
    configure_logs(_quieter(settings.log_level))
    tally = Tally()
    ending = Ending(settings.shutdown_timeout, _report_stop)
    try:
        asyncio.run(_running(settings, command, walk, tally, ending))
    except asyncio.CancelledError:
        _print(command, tally, walk, as_json=as_json)
        _report_stop()
        raise SystemExit(128 + (ending.heard or 0)) from None
    except (RunHaltedError, StoreUnavailableError) as fault:
        # Zeros would read as the result of a search that was never made.
        if isinstance(fault, RunHaltedError) or tally.scanned or (walk and walk.did_something):
            _print(command, tally, walk, as_json=as_json)
        raise
    _print(command, tally, walk, as_json=as_json)
    if tally.failed or (walk is not None and walk.tally.with_status(RefreshStatus.ERROR)):
        raise SystemExit(SOME_FAILED)


def _report_stop() -> None:
    write_line("listener: stopped; rows not yet asked about stay due")
    drain_logs()


async def _running(
    settings: Settings,
    command: Command | None,
    walk: _SweepWalk | None,
    tally: Tally,
    ending: Ending,
) -> None:
    running = asyncio.current_task()
    if running is not None:
        ending.calls(running.cancel)
    asks_for_library = [Route.LIBRARY] if command is not None else []
    asks_for_rotation = [Route.ROTATION, Route.MINT] if walk is not None and not walk.dry else []
    await require_ready(settings, asks_for_library + asks_for_rotation, dry=_is_dry(command, walk))
    if command is not None:
        with show_progress(tally) as expect:
            await run_command(settings, command, tally, expect)
    if walk is not None:
        await walk.make(settings)


def _is_dry(command: Command | None, walk: _SweepWalk | None) -> bool:
    return command.dry if command is not None else walk is not None and walk.dry


def _print(
    command: Command | None, tally: Tally, walk: _SweepWalk | None, *, as_json: bool
) -> None:
    # An empty rotation is reported only where nothing else is.
    shown = walk if walk is not None and (walk.did_something or command is None) else None
    dry = _is_dry(command, walk)
    if dry or as_json:
        counted = tally.dry_report() if dry else tally.report()
        report: dict[str, object] = {} if command is None else dict(counted)
        if shown is not None:
            report["rotation"] = shown.report()
        click.echo(json.dumps(report))
        return
    lines = library_lines(tally) if command is not None else []
    if shown is not None:
        lines += shown.lines()
    console().print("\n".join(lines))


def _quieter(level: str) -> str:
    # A person sees in the counts what the daemon logs.
    return "WARNING" if level == "INFO" else level
