"""Judges for the doctor whether daemons are at work, and how they get on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from listener.adapters.postgres.status import Status, StreamStatus
from listener.app.verdict import verdict_on
from listener.domain.change import Stream
from listener.domain.finding import MIGRATE, UNDO_MIGRATION, Finding, State
from listener.domain.health import Cause, Why, Word, word_for
from listener.domain.pacing import BreakerState
from listener.domain.words import plural
from listener.settings import StatusSettings

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
        return "held by nobody"
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
