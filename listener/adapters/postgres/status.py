"""The state of the listener, as far as the database shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from listener.adapters.postgres.installation import missing_parts
from listener.adapters.postgres.sessions import Connection, only_row, query, read
from listener.domain.due import Reason, RunKind
from listener.domain.refreshing import RotationCoverage

# Why rows are asked about again, by their state; a row without a name never is.
_REASONS: Mapping[str, str] = {
    "never": Reason.NEVER,
    "resolved": Reason.RESOLVED,
    "visited_compilation": Reason.RESOLVED,
    "unresolved": Reason.UNRESOLVED,
    "compilation": Reason.UNRESOLVED,
    "failed": Reason.FAILED,
    "parked": Reason.FAILED,
}

AGES = ("0-1", "1-2", "2-3", "3-4", "4-5", "5-6", "6-7", "7+")


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The backlog of one stream, and who follows it; `holder_alive` is None without a holder.

    All other fields are as of the holder's last beat. `breaker` is the state towards LML: closed,
    open or half-open; `fault` is what prevented it from handling any change, or made it give up the
    stream; `stalled_seconds` is how long ago the slower of its loops turned; `woken` says whether
    wake-ups arrive; `lml_trouble` is how LML fails to answer.
    """

    stream: str
    backlog: int
    oldest_seconds: float | None
    holder: str | None
    holder_alive: bool | None
    breaker: str | None
    fault: str | None
    held_since: datetime | None = None
    stalled_seconds: float | None = None
    woken: bool | None = None
    lml_trouble: str | None = None
    lml_trouble_since: datetime | None = None
    lml_next_try: datetime | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Rows of the library by their state.

    rows = nameless + asked + never; asked = resolved + unresolved + compilation + failed + parked.
    `visited` are those of the compilations whose tracks LML has visited.
    """

    rows: int
    nameless: int
    asked: int
    resolved: int
    unresolved: int
    compilation: int
    visited: int
    failed: int
    parked: int
    never: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One search for due rows; outcome: done, stopped, failed, running, or lost with its process.

    `tally` is as `Tally.report` returns it, or empty if the run has recorded nothing yet.
    """

    run_id: int
    kind: str
    cause: str
    holder: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    reason: str | None
    tally: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LatestRunStatus:
    """The last run of a kind that was not started by a command and that ended.

    Its fields are None if there was none. `succeeded_at` is the time of the last success, including
    runs started by a command.
    """

    kind: str
    started_at: datetime | None
    outcome: str | None
    reason: str | None
    succeeded_at: datetime | None


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """The last scheduled time of a job that a daemon took, and the next one."""

    job: str
    slot: datetime
    next_at: datetime
    done: bool
    holder: str


@dataclass(frozen=True, slots=True)
class Status:
    """The whole state at one time, by the database's clock.

    `missing` are the parts of the installation that are missing or disabled. `staleness_days`
    counts rows by the age of their last answer, under the keys `AGES`. `due_by_time` counts the
    rows within the scope that are due by time; `due` counts these by reason, and all rows that were
    never asked about. `runs` begins with the latest; `latest_runs` has one of each kind that was
    ever made. `capture_missed` counts the rows of the last day that had changed without a record.
    """

    at: datetime
    installed_at: datetime
    database: str
    missing: tuple[str, ...]
    streams: tuple[StreamStatus, ...]
    replicas: tuple[str, ...]
    coverage: Coverage
    staleness_days: Mapping[str, int]
    due_by_time: int
    due: Mapping[str, int]
    rotation: RotationCoverage
    runs: tuple[RunStatus, ...]
    latest_runs: tuple[LatestRunStatus, ...]
    capture_missed: int
    slots: tuple[SlotStatus, ...]


async def read_status(
    connection: Connection, backend: str, *, include_null_canonical: bool = True
) -> Status:
    """Read everything once; `include_null_canonical` is that of the searches' scope."""

    async def each(kind: type[Any], name: str, **parameters: object) -> tuple[Any, ...]:
        return tuple(await read(connection, kind, query(name, backend), parameters))

    async def rows(name: str, parameters: Mapping[str, object] | None = None) -> list[Any]:
        return await (await connection.execute(query(name, backend), parameters)).fetchall()

    database, at, installed_at = await only_row(
        await connection.execute(
            "SELECT current_database(), now(), min(i.installed_at) FROM listener.installed AS i"
        )
    )
    counted = await rows("count_coverage", {"include_null_canonical": include_null_canonical})
    kinds = [kind.value for kind in RunKind]
    return Status(
        at=at,
        installed_at=installed_at,
        database=database,
        missing=tuple(part.label for part in await missing_parts(connection, backend)),
        streams=await each(StreamStatus, "read_streams"),
        replicas=tuple(name for (name,) in await rows("list_replicas")),
        coverage=coverage_of(counted),
        staleness_days=_staleness(counted),
        due_by_time=sum(due for *_, due in counted),
        due=_due(counted),
        rotation=(await each(RotationCoverage, "count_rotation"))[0],
        runs=await each(RunStatus, "read_runs"),
        latest_runs=await each(LatestRunStatus, "read_latest_runs", kinds=kinds),
        capture_missed=(await rows("count_missed"))[0][0],
        slots=await each(SlotStatus, "read_slots"),
    )


def _due(counted: list[Any]) -> dict[str, int]:
    due = dict.fromkeys(_REASONS.values(), 0)
    for state, _, found, by_time in counted:
        if state in _REASONS:
            due[_REASONS[state]] += found if state == "never" else by_time
    return due


def _staleness(counted: list[Any]) -> dict[str, int]:
    return {
        age: sum(found for _, days, found, _ in counted if days == first_day)
        for first_day, age in enumerate(AGES)
    }


def coverage_of(counted: list[Any]) -> Coverage:
    """Sum up what `count_coverage` returns: rows of (state, days, found, due)."""

    def of(state: str) -> int:
        return sum(found for its_state, _, found, _ in counted if its_state == state)

    rows = sum(found for _, _, found, _ in counted)
    return Coverage(
        rows=rows,
        nameless=of("nameless"),
        asked=rows - of("nameless") - of("never"),
        resolved=of("resolved"),
        unresolved=of("unresolved"),
        compilation=of("compilation") + of("visited_compilation"),
        visited=of("visited_compilation"),
        failed=of("failed"),
        parked=of("parked"),
        never=of("never"),
    )
