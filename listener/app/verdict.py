"""Whether all is well: the one verdict, on what the database knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from listener.adapters.postgres.status import LatestRunStatus, Status, StreamStatus
from listener.adapters.postgres.story import Waiting
from listener.domain.change import Stream
from listener.domain.due import RunKind
from listener.domain.health import (
    Findings,
    LatestRun,
    LmlTrouble,
    RotationState,
    StreamState,
    Wellness,
    judge,
)
from listener.domain.pacing import BreakerState
from listener.settings import StatusSettings

# Of a job that was switched off the last time is kept.
_FORGOTTEN = timedelta(days=1)
# What a scheduled job is a run of; a backfill is an audit of a library that was never asked about.
_KINDS: Mapping[str, tuple[RunKind, ...]] = {
    "sweep": (RunKind.REFRESH, RunKind.SWEEP),
    "audit": (RunKind.AUDIT, RunKind.BACKFILL, RunKind.SWEEP),
    "rotation": (RunKind.ROTATION,),
}


def verdict_on(status: Status, settings: StatusSettings) -> Wellness:
    """Return the verdict on what was seen."""
    return judge(
        Findings(
            at=status.at,
            max_lag=settings.ready_max_lag,
            streams=[_state_of(stream) for stream in status.streams],
            missing=status.missing,
            parked=status.coverage.parked,
            failed=status.coverage.failed,
            never_asked=status.coverage.never,
            capture_missed=status.capture_missed,
            runs=[*_latest_runs(status)],
            rotation=_rotation(status, settings.rotation_min_coverage),
        )
    )


def with_verdict(status: Status, settings: StatusSettings) -> dict[str, Any]:
    """Return what `listener status --json` prints."""
    return {"wellness": asdict(verdict_on(status, settings)), **asdict(status)}


def successes(status: Status) -> dict[str, datetime]:
    """Return when each scheduled job last succeeded, or since when it could have.

    A job that is switched off is left out.
    """
    succeeded = {RunKind(run.kind): run.succeeded_at for run in status.latest_runs}
    return {
        slot.job: max(succeeded.get(kind) or status.installed_at for kind in _KINDS[slot.job])
        for slot in status.slots
        if slot.job in _KINDS and slot.next_at > status.at - _FORGOTTEN
    }


def _state_of(stream: StreamStatus) -> StreamState:
    oldest = None if stream.oldest_seconds is None else timedelta(seconds=stream.oldest_seconds)
    # What a holder that went reported last says nothing of the present; why it went does.
    alive = bool(stream.holder_alive)
    return StreamState(
        stream=Stream(stream.stream),
        backlog=stream.backlog,
        oldest=oldest,
        followed=alive,
        woken=stream.woken if alive else None,
        breaker=BreakerState(stream.breaker) if alive and stream.breaker else None,
        stalled=timedelta(seconds=stream.stalled_seconds or 0) if alive else timedelta(),
        fault=stream.fault,
        lml=lml_trouble_of(stream),
    )


def lml_trouble_of(stream: StreamStatus | Waiting) -> LmlTrouble | None:
    """Return how LML fails the daemon that follows a stream, if it does."""
    since, next_try = stream.lml_trouble_since, stream.lml_next_try
    if not stream.holder_alive or stream.lml_trouble is None or since is None or next_try is None:
        return None
    return LmlTrouble(stream.lml_trouble, since, next_try)


def _latest_runs(status: Status) -> Iterator[LatestRun]:
    for run in status.latest_runs:
        began = run.started_at or status.installed_at
        yield LatestRun(RunKind(run.kind), began, _failure(run), run.succeeded_at)


def _failure(run: LatestRunStatus) -> str | None:
    if run.outcome not in {"failed", "lost"}:
        return None
    return run.reason or "its process or its session ended"


def _rotation(status: Status, least: float) -> RotationState | None:
    walked_at = successes(status).get("rotation")
    if walked_at is None:
        return None
    coldest = status.rotation.coldest or walked_at
    return RotationState(status.rotation.coverage, least, min(walked_at, coldest))
