"""The screen of `listener status`: the verdict and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.text import Text

from listener.adapters.postgres.status import (
    RunStatus,
    SlotStatus,
    Status,
    StreamStatus,
)
from listener.app.verdict import lml_trouble_of
from listener.app.wording import clock, printable
from listener.cli.look import FittingTable
from listener.domain.due import RunKind
from listener.domain.health import Wellness, Word
from listener.domain.pacing import BreakerState
from listener.domain.refreshing import RotationCoverage
from listener.domain.tally import FAILURES
from listener.domain.words import plural, span

# How many of the recorded runs fit one screen.
_RUNS_SHOWN, _FEW_RUNS = 6, 2
_LATE = timedelta(minutes=1)
_FORGOTTEN = timedelta(days=1)
_WORD_STYLES = {Word.WELL: "green", Word.STRAINED: "yellow", Word.FAILING: "red"}
_STYLES = {"running": "green", "stopped": "yellow", "failed": "red", "lost": "red"}


def screen(status: Status, wellness: Wellness, *, spaced: bool = True) -> Group:
    """Return the status for a person, verdict first, oldest runs last: at most 40 lines."""
    parts = _parts(status, wellness, separator="\n  " if spaced else "; ")
    return Group(*(part for part in parts if part or spaced))


def _parts(status: Status, wellness: Wellness, separator: str) -> Iterator[RenderableType]:
    # What waits for a person but is not wrong is in the tables.
    first, *others = (
        printable(why.words)
        for number, why in enumerate(wellness.why)
        if why.cause is not None or not number
    )
    style = _WORD_STYLES[wellness.word]
    yield Text.assemble(
        (f"{wellness.word.capitalize()}: ", f"bold {style}"),
        (separator.join((first, *others)), style),
    )
    yield Text(f"listener on {printable(status.database)}, {clock(status.at)}", style="bold")
    yield ""
    yield _streams(status.streams)
    if status.replicas:
        yield _daemons(status)
    yield ""
    yield from _coverage(status)
    yield f"{_share_asked(status)}; {status.due_by_time:,} due now"
    yield _staleness(status)
    yield ""
    yield _rotation(status.rotation)
    yield ""
    yield _slots(status) if status.slots else "nothing scheduled yet"
    yield ""
    yield from _last_failure(status)
    # The more is wrong, the fewer fit one screen.
    shown = max(_FEW_RUNS, _RUNS_SHOWN - len(others))
    yield _runs(status, shown) if status.runs else "no runs yet"


def _streams(streams: tuple[StreamStatus, ...]) -> FittingTable:
    columns = ("stream", ">waiting", ">oldest", "LML", "followed by")
    rows = []
    for stream in streams:
        oldest = Text("-")
        if stream.oldest_seconds is not None:
            age = timedelta(seconds=stream.oldest_seconds)
            oldest = Text(span(age), style="yellow" if age > _LATE else "")
        backlog = f"{stream.backlog:,}"
        rows.append((stream.stream, backlog, oldest, _lml(stream), _follower(stream)))
    return FittingTable(columns, rows)


def _daemons(status: Status) -> str:
    following = {stream.holder for stream in status.streams if stream.holder_alive}
    named = ", ".join(
        f"{printable(name)} {'follows' if name in following else 'stands by'}"
        for name in status.replicas
    )
    return f"{plural(len(status.replicas), 'daemon')}: {named}"


def _lml(stream: StreamStatus) -> Text:
    trouble = lml_trouble_of(stream)
    if trouble is not None:
        return Text(f"has {printable(trouble.cause)}", style="red")
    return Text("ok" if stream.breaker == BreakerState.CLOSED and stream.holder_alive else "-")


def _follower(stream: StreamStatus) -> Text:
    if stream.holder is None:
        return Text("no daemon", style="yellow")
    if not stream.holder_alive:
        return Text(f"{printable(stream.holder)}, disconnected", style="red")
    return Text(printable(stream.holder))


def _coverage(status: Status) -> Iterator[FittingTable]:
    known = status.coverage
    yield _counts(
        {
            "rows": known.rows,
            "no artist name": known.nameless,
            "never asked": known.never,
            "failed": known.failed,
            "parked": known.parked,
        }
    )
    yield _counts(
        {
            "resolved": known.resolved,
            "unresolved": known.unresolved,
            "compilation": known.compilation,
            "visited": known.visited,
        }
    )


def _counts(counts: Mapping[str, int]) -> FittingTable:
    return FittingTable(
        [f">{name}" for name in counts], [[f"{count:,}" for count in counts.values()]]
    )


def _share_asked(status: Status) -> str:
    named = status.coverage.rows - status.coverage.nameless
    if not named:
        return "no rows to ask about"
    # Rounded down: 100 % means all.
    share = int(1000 * status.coverage.asked / named) / 10
    return f"asked about {share:.1f} % of the rows with an artist name"


def _staleness(status: Status) -> FittingTable:
    ages = status.staleness_days
    return FittingTable(
        ["days since last answer", *(f">{age}" for age in ages)],
        [["rows", *(f"{count:,}" for count in ages.values())]],
    )


def _rotation(rotation: RotationCoverage) -> FittingTable:
    columns = {
        "in rotation": f"{rotation.active:,}",
        "on Discogs": f"{rotation.with_discogs_id:,}",
        "with identity": f"{rotation.with_identity:,}",
        # Rounded down: 100 % means all.
        "coverage": f"{int(1000 * rotation.coverage) / 10:.1f} %",
        "identities": f"{rotation.identities:,}",
        "warmed in 24 h": f"{rotation.warmed_24h:,}",
    }
    return FittingTable([f">{name}" for name in columns], [list(columns.values())])


def _last_failure(status: Status) -> Iterator[str]:
    failed = next((run for run in status.runs if run.outcome in {"failed", "lost"}), None)
    if failed is not None:
        reason = "its process died or lost its connection"
        if failed.outcome == "failed":
            reason = printable(failed.reason or "no reason recorded")
        started = span(status.at - failed.started_at)
        yield f"last failure: {printable(failed.kind)}, started {started} ago: {reason}"


def _runs(status: Status, shown: int) -> FittingTable:
    columns = (
        *("run", "cause", ">started", ">took", "outcome"),
        *(">asked", ">resolved", ">unresolved", ">failed"),
    )
    rows: list[tuple[str | Text, ...]] = [
        (
            printable(run.kind),
            printable(run.cause),
            f"{span(status.at - run.started_at)} ago",
            _took(run, status),
            Text(run.outcome, style=_STYLES.get(run.outcome, "")),
            *_results(run),
        )
        for run in status.runs[:shown]
    ]
    return FittingTable(columns, rows)


def _took(run: RunStatus, status: Status) -> str:
    if run.ended_at is not None:
        return span(run.ended_at - run.started_at)
    return span(status.at - run.started_at) if run.outcome == "running" else "-"


def _results(run: RunStatus) -> list[str]:
    if run.kind == RunKind.ROTATION.value:
        names = ("identities_scanned", "identities_resolved", "not_found")
        failed = run.tally.get("lml_error", 0)
    else:
        names = ("scanned", "rows_resolved", "rows_unresolved")
        failed = sum(run.tally.get("rows_skipped", {}).get(reason, 0) for reason in FAILURES)
    counts = [run.tally.get(name, 0) for name in names]
    # Compilations whose tracks are known count as resolved.
    counts[1] += run.tally.get("rows_resolved_compilation", 0)
    return [f"{count:,}" for count in (*counts, failed)]


def _slots(status: Status) -> FittingTable:
    rows = [(printable(slot.job), _next(slot, status.at), _last(slot)) for slot in status.slots]
    return FittingTable(("job", "next", "last"), rows)


def _next(slot: SlotStatus, at: datetime) -> str:
    if slot.next_at > at:
        return f"in {span(slot.next_at - at)}"
    # A job that was switched off keeps its last slot.
    return "overdue" if slot.next_at > at - _FORGOTTEN else "off"


def _last(slot: SlotStatus) -> str:
    done = "done" if slot.done else "not finished"
    return f"slot of {clock(slot.slot)}, {done} by {printable(slot.holder)}"
