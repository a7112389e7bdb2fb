"""The command `status`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from threading import Event
from typing import NoReturn

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from listener.adapters.postgres.status import (
    STATUS,
    RunStatus,
    SlotStatus,
    Status,
    StreamStatus,
    looking,
    read_status,
)
from listener.bootstrap.report import as_json as json_of
from listener.cli.look import clock, console, json_option, plain_table, printable, span
from listener.cli.manners import examples
from listener.domain.pacing import BreakerState
from listener.domain.refreshing import RotationCoverage
from listener.domain.run import RunKind
from listener.domain.tally import FAILURES
from listener.settings import DatabaseSettings, load_settings

_REFRESH = timedelta(seconds=2)
# Wide enough for whatever reads from a pipe; a terminal knows its own width.
_PIPE_WIDTH = 120
_LATE = timedelta(minutes=1)
_FORGOTTEN = timedelta(days=1)
_STYLES = {"running": "green", "stopped": "yellow", "failed": "red", "lost": "red"}


@click.command(
    name="status",
    epilog=examples(
        ("listener status", "one screen"),
        ("listener status --watch", "again every 2 seconds"),
        ("listener status --json", "for a machine"),
    ),
)
@json_option
@click.option("--watch", is_flag=True, help="Look again every 2 seconds until Ctrl-C.")
def status_command(*, as_json: bool, watch: bool) -> None:
    """Show backlog, coverage, runs and replicas.

    As the database knows them: needs DATABASE_URL only, changes nothing, and exits 0, or 2 if it
    could not look.
    """
    settings = load_settings(DatabaseSettings)
    backend = settings.wxyc_schema_name
    with looking(settings.database_url.get_secret_value(), backend, STATUS) as connection:

        def look() -> Status:
            return read_status(connection, backend)

        if watch:
            _watch(look, as_json=as_json)
        else:
            _print(look(), as_json=as_json)


def screen(status: Status) -> Group:
    """Return the status for a person: fewer than 40 lines."""
    return Group(*_parts(status))


def _watch(look: Callable[[], Status], *, as_json: bool) -> NoReturn:
    never = Event()
    if as_json or not sys.stdout.isatty():
        while True:
            _print(look(), as_json=as_json)
            never.wait(_REFRESH.total_seconds())
            if not as_json:
                click.echo()
    with Live(console=console(_PIPE_WIDTH), auto_refresh=False) as live:
        while True:
            live.update(screen(look()), refresh=True)
            never.wait(_REFRESH.total_seconds())


def _print(status: Status, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_of(status))
    else:
        console(_PIPE_WIDTH).print(screen(status))


def _parts(status: Status) -> Iterator[RenderableType]:
    yield Text(f"listener on {printable(status.database)}, {clock(status.at)}", style="bold")
    if status.missing:
        missing = f"not complete: {', '.join(status.missing)}; run `listener migrate`"
        yield Text(missing, style="red")
    yield ""
    yield _streams(status.streams)
    replicas = ", ".join(printable(name) for name in status.replicas)
    yield f"{len(status.replicas)} at work: {replicas}" if replicas else "nobody at work"
    yield ""
    yield _coverage(status)
    yield f"{_share_asked(status)}; {status.due_by_time:,} due by their time now"
    if status.capture_missed:
        missed = f"{status.capture_missed:,} rows had changed without a record in the last day"
        yield Text(f"{missed}; see runbooks/capture-missed.md", style="red")
    yield ""
    yield _staleness(status)
    yield ""
    yield _rotation(status.rotation)
    yield ""
    yield _runs(status) if status.runs else "no runs yet"
    yield ""
    yield _slots(status) if status.slots else "nothing scheduled yet"


def _streams(streams: tuple[StreamStatus, ...]) -> Table:
    table = plain_table("stream", ">waiting", ">oldest", "LML", "followed by")
    for stream in streams:
        oldest = Text("-")
        if stream.oldest_seconds is not None:
            age = timedelta(seconds=stream.oldest_seconds)
            oldest = Text(span(age), style="yellow" if age > _LATE else "")
        table.add_row(stream.stream, f"{stream.backlog:,}", oldest, _lml(stream), _follower(stream))
    return table


def _lml(stream: StreamStatus) -> Text:
    match stream.breaker:
        case BreakerState.OPEN:
            return Text("fails, left alone", style="red")
        case BreakerState.HALF_OPEN:
            return Text("being tried", style="yellow")
        case BreakerState.CLOSED:
            return Text("ok")
        case _:
            return Text("-")


def _follower(stream: StreamStatus) -> Text:
    if stream.holder is None:
        return Text("nobody", style="yellow")
    if not stream.holder_alive:
        return Text(f"{printable(stream.holder)}, but its session is gone", style="red")
    return Text(printable(stream.holder))


def _coverage(status: Status) -> Table:
    known = status.coverage
    columns = {
        "rows": known.rows,
        "no artist name": known.nameless,
        "resolved": known.resolved,
        "unresolved": known.unresolved,
        "compilation": known.compilation,
        "visited": known.visited,
        "failed": known.failed,
        "parked": known.parked,
        "never asked": known.never,
    }
    table = plain_table(*(f">{name}" for name in columns))
    table.add_row(*(f"{count:,}" for count in columns.values()))
    return table


def _share_asked(status: Status) -> str:
    named = status.coverage.rows - status.coverage.nameless
    if not named:
        return "nothing to ask about"
    # Never rounded up to all.
    share = int(1000 * status.coverage.asked / named) / 10
    return f"{share:.1f} % of the rows with an artist name asked"


def _staleness(status: Status) -> Table:
    table = plain_table("days since the answer", *(f">{age}" for age in status.staleness_days))
    table.add_row("rows", *(f"{count:,}" for count in status.staleness_days.values()))
    return table


def _rotation(rotation: RotationCoverage) -> Table:
    columns = {
        "in rotation": f"{rotation.active:,}",
        "with Discogs release": f"{rotation.with_discogs_id:,}",
        "with identity": f"{rotation.with_identity:,}",
        # Never rounded up to all.
        "coverage": f"{int(1000 * rotation.coverage) / 10:.1f} %",
        "identities": f"{rotation.identities:,}",
        "warmed in 24 h": f"{rotation.warmed_24h:,}",
    }
    table = plain_table(*(f">{name}" for name in columns))
    table.add_row(*columns.values())
    return table


def _runs(status: Status) -> Table:
    table = plain_table(
        *("run", "cause", ">started", ">took", "outcome"),
        *(">asked", ">resolved", ">unresolved", ">failed", "reason"),
    )
    for run in status.runs:
        table.add_row(
            printable(run.kind),
            printable(run.cause),
            f"{span(status.at - run.started_at)} ago",
            _took(run, status),
            Text(run.outcome, style=_STYLES.get(run.outcome, "")),
            *_counts(run),
            Text(printable(run.reason or ""), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _took(run: RunStatus, status: Status) -> str:
    if run.ended_at is not None:
        return span(run.ended_at - run.started_at)
    return span(status.at - run.started_at) if run.outcome == "running" else "-"


def _counts(run: RunStatus) -> list[str]:
    if run.kind == RunKind.ROTATION.value:
        names = ("identities_scanned", "identities_resolved", "not_found")
        failed = run.tally.get("lml_error", 0)
    else:
        names = ("scanned", "rows_resolved", "rows_unresolved")
        failed = sum(run.tally.get("rows_skipped", {}).get(reason, 0) for reason in FAILURES)
    counts = [run.tally.get(name, 0) for name in names]
    # Those whose tracks are known stand with those that have one artist.
    counts[1] += run.tally.get("rows_resolved_compilation", 0)
    return [f"{count:,}" for count in (*counts, failed)]


def _slots(status: Status) -> Table:
    table = plain_table("job", "next", "last")
    for slot in status.slots:
        table.add_row(printable(slot.job), _next(slot, status.at), _last(slot))
    return table


def _next(slot: SlotStatus, at: datetime) -> str:
    if slot.next_at > at:
        return f"in {span(slot.next_at - at)}"
    # Of a job that was switched off the last time is kept.
    return "overdue" if slot.next_at > at - _FORGOTTEN else "nobody takes it"


def _last(slot: SlotStatus) -> str:
    done = "done" if slot.done else "not finished"
    return f"{clock(slot.slot)}, {done} by {printable(slot.holder)}"
