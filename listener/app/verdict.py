"""The verdict on the pipeline, as far as the database shows it, and the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from listener.adapters.postgres.status import LatestRunStatus, Status, StreamStatus
from listener.adapters.postgres.story import Waiting
from listener.domain.change import Stream
from listener.domain.due import RunKind
from listener.domain.finding import MIGRATE, UNDO_MIGRATION, Finding, State
from listener.domain.health import (
    Cause,
    Findings,
    LatestRun,
    LmlTrouble,
    RotationState,
    StreamState,
    Wellness,
    Why,
    Word,
    judge,
    word_for,
)
from listener.domain.pacing import BreakerState
from listener.domain.words import plural
from listener.settings import StatusSettings

# A job that was switched off keeps its last slot.
_FORGOTTEN = timedelta(days=1)
# The runs of each scheduled job; a backfill is the audit of a library never asked about.
_KINDS: Mapping[str, tuple[RunKind, ...]] = {
    "sweep": (RunKind.REFRESH, RunKind.SWEEP),
    "audit": (RunKind.AUDIT, RunKind.BACKFILL, RunKind.SWEEP),
    "rotation": (RunKind.ROTATION,),
}
AT_WORK = ("verdict", *(f"{stream} lane" for stream in Stream), "last runs", "parked", "rotation")
_STATES = {Word.WELL: State.OK, Word.STRAINED: State.WARN, Word.FAILING: State.FAIL}
_ADVICE = {
    Cause.UNREADABLE: "see `listener runbook database-down`",
    Cause.INCOMPLETE: MIGRATE,
    Cause.UNFOLLOWED: "start a daemon: `listener run`; see `listener runbook nobody-follows`",
    Cause.STALLED: "restart the daemon; see `listener runbook nobody-follows`",
    Cause.REFUSED: UNDO_MIGRATION,
    Cause.LAG: "see `listener runbook lag-growing`",
    Cause.LML: "see `listener runbook lml-down`",
    Cause.POLLING: "see `listener runbook wakeups-silent`",
    Cause.CAPTURE: "see `listener runbook capture-missed`",
    Cause.RUNS: "see `listener runbook lml-errors`",
    Cause.FAILURES: "see `listener runbook lml-errors`",
    Cause.COVERAGE: "see `listener runbook rotation-warm-lag`",
    Cause.WARMTH: "see `listener runbook rotation-warm-lag`",
}
_OF_LANES = frozenset(
    (Cause.UNFOLLOWED, Cause.STALLED, Cause.REFUSED, Cause.LAG, Cause.LML, Cause.POLLING)
)


def verdict_on(status: Status, settings: StatusSettings) -> Wellness:
    """Return the verdict on a status."""
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
    """Return how LML fails to answer the daemon that follows a stream, if it does."""
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


def judge_work(status: Status, settings: StatusSettings) -> Iterator[Finding]:
    """Judge what the database knows of daemons and their work; the verdict comes first."""
    verdict = verdict_on(status, settings)
    reasons = "; ".join(why.words for why in verdict.why)
    yield _judged("verdict", [f"{verdict.word}: {reasons}"], verdict.why)
    for stream in status.streams:
        yield _lane(stream, status, settings)
    yield _part("last runs", _runs(status), verdict.why, Cause.RUNS)
    parked = plural(status.coverage.parked, "row")
    advice = "`listener parked` lists them, with reasons" if status.coverage.parked else ""
    yield Finding("parked", State.WARN if advice else State.OK, parked, advice)
    played = f"{100 * status.rotation.coverage:.1f} % of {status.rotation.with_discogs_id:,} rows"
    yield _part("rotation", f"{played} covered", verdict.why, Cause.COVERAGE, Cause.WARMTH)


def _lane(stream: StreamStatus, status: Status, settings: StatusSettings) -> Finding:
    alone = replace(status, streams=(stream,))
    wrong = [why for why in verdict_on(alone, settings).why if why.cause in _OF_LANES]
    waiting = f"{plural(stream.backlog, 'change')} waiting"
    if stream.oldest_seconds is not None:
        waiting += f", the oldest for {stream.oldest_seconds:.0f} s"
    parts = [_holder(stream), waiting, *(why.words for why in wrong)]
    if stream.holder_alive and stream.breaker == BreakerState.CLOSED:
        parts.append("LML answers")
    return _judged(f"{stream.stream} lane", parts, wrong)


def _holder(stream: StreamStatus) -> str:
    if stream.holder is None:
        return "held by no daemon"
    if not stream.holder_alive:
        return f"held by {stream.holder}, whose session is gone"
    since = "" if stream.held_since is None else f" since {_moment(stream.held_since)}"
    return f"held by {stream.holder}{since}"


def _runs(status: Status) -> str:
    runs = [
        f"{run.kind} {run.outcome} {_moment(run.started_at)}"
        for run in status.latest_runs
        if run.outcome is not None and run.started_at is not None
    ]
    return ", ".join(runs) or "none yet"


def _part(check: str, finding: str, whys: Sequence[Why], *causes: Cause) -> Finding:
    wrong = [why for why in whys if why.cause in causes]
    return _judged(check, [finding, *(why.words for why in wrong)], wrong)


def _judged(check: str, parts: Sequence[str], whys: Sequence[Why]) -> Finding:
    advice = dict.fromkeys(_ADVICE[why.cause] for why in whys if why.cause is not None)
    return Finding(check, _STATES[word_for(whys)], "; ".join(parts), "; ".join(advice))


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
