"""Judges the health of a daemon and of the whole pipeline, and gives the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from listener.domain.change import Stream
from listener.domain.due import RunKind
from listener.domain.pacing import BreakerState
from listener.domain.pulse import STALLED, Pulse, Reading, StreamReading, WakeMode
from listener.domain.words import plural, span

# Refreshes keep within the Discogs budget, so their long waits are intended.
_PACED = frozenset((Stream.ROTATION,))
# Twice as long as it may take to read the database.
_UNHEARD = timedelta(seconds=30)
# The daemon handles a smaller backlog before a person has noticed it.
_MANY = 500
_SLOW = timedelta(seconds=30)
# A few rows may be bad; this many share a cause in LML or the database.
_MANY_FAIL = 10
# A scheduled run that fails is retried within the hour, so an older failure no longer matters.
_LATELY = timedelta(days=1)
# Everything that is played is refreshed once a day.
_WARM = timedelta(hours=36)


def unready(
    reading: Reading | None, pulses: Sequence[Pulse], max_lag: timedelta, *, stopping: bool = False
) -> list[str]:
    """Return why this daemon is not ready; an empty list if it is.

    A standby is ready while another daemon follows the stream. A daemon stays ready while LML is
    down and while refreshes wait for the budget.
    """
    if stopping:
        return ["stopping"]
    if reading is None:
        return ["starting: the database has not been read yet"]
    if reading.fault is not None:
        # No details: a probe needs no token, and the reason may name hosts and roles.
        return ["the database cannot be read"]
    if reading.age > _UNHEARD:
        return [f"the database has not answered for {_span(reading.age)}"]
    following = {pulse.stream: pulse for pulse in pulses}
    limit = f", more than READY_MAX_LAG, {_span(max_lag)}"
    reasons: list[str] = []
    for waiting in reading.waiting:
        pulse = following.get(waiting.stream)
        if pulse is not None:
            reasons += (words for _, words in _troubles(pulse, waiting.oldest, max_lag, limit))
            if pulse.wake_mode is WakeMode.DOWN:
                reasons.append(f"the session that wakes {waiting.stream} does not respond")
        elif not waiting.followed:
            reasons.append(f"no daemon follows {waiting.stream}")
    return reasons


class Word(StrEnum):
    """The state of the pipeline in one word; the page gives each word its own colour."""

    WELL = "well"
    STRAINED = "strained"
    FAILING = "failing"


class Cause(StrEnum):
    """Why the pipeline is not well, most important first; alerts have a series for each."""

    UNREADABLE = "unreadable"
    INCOMPLETE = "incomplete"
    UNFOLLOWED = "unfollowed"
    STALLED = "stalled"
    REFUSED = "refused"
    LAG = "lag"
    LML = "lml"
    POLLING = "polling"
    CAPTURE = "capture"
    RUNS = "runs"
    FAILURES = "failures"
    COVERAGE = "coverage"
    WARMTH = "warmth"


_FAILING = frozenset(list(Cause)[: list(Cause).index(Cause.LML)])
_Wrong = tuple[Cause, str]


@dataclass(frozen=True, slots=True)
class Why:
    """A sentence for a person; without a cause it is a remark, and nothing is wrong."""

    cause: Cause | None
    words: str


@dataclass(frozen=True, slots=True)
class Wellness:
    """The word, and the reasons, most important first."""

    word: Word
    why: tuple[Why, ...]


@dataclass(frozen=True, slots=True)
class LmlTrouble:
    """How LML fails, such as `answered 503`, and since when."""

    cause: str
    since: datetime
    next_try: datetime

    def sentence(self, at: datetime) -> str:
        """Return the trouble as a sentence, as of the time `at`."""
        since = self.since.astimezone(UTC)
        day = f"{since:%Y-%m-%d} " if at - since > _LATELY else ""
        left = self.next_try - at
        then = f"next try in {_span(left)}" if left > timedelta() else "being tried now"
        lasting = _span(max(timedelta(), at - since))
        return f"LML has {self.cause} since {day}{since:%H:%M} UTC ({lasting}); {then}"


@dataclass(frozen=True, slots=True)
class StreamState(StreamReading):
    """One stream across all daemons; `woken` and `breaker` are None if no daemon follows it.

    `fault` says what prevents the daemon from handling any change.
    """

    woken: bool | None = None
    breaker: BreakerState | None = None
    stalled: timedelta = timedelta()
    fault: str | None = None
    lml: LmlTrouble | None = None


@dataclass(frozen=True, slots=True)
class LatestRun:
    """The last scheduled run of a kind that has ended.

    `failure` is None if it succeeded. `succeeded_at` is the time of the last success, scheduled or
    started by a command.
    """

    kind: RunKind
    started_at: datetime
    failure: str | None
    succeeded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RotationState:
    """The state of the rotation, if it is refreshed daily.

    `coverage` is the share that can be refreshed, `least` what that must be; since `warm_since` all
    of it was refreshed.
    """

    coverage: float
    least: float
    warm_since: datetime


@dataclass(frozen=True, slots=True)
class Findings:
    """The facts that decide wellness at the time `at`.

    `capture_missed` covers the last day; `rotation` is None if it is not refreshed daily.
    """

    at: datetime
    max_lag: timedelta
    streams: Sequence[StreamState]
    missing: Sequence[str] = ()
    parked: int = 0
    failed: int = 0
    never_asked: int = 0
    capture_missed: int = 0
    runs: Sequence[LatestRun] = ()
    rotation: RotationState | None = None


def blind(fault: str) -> Wellness:
    """Return the wellness while the database cannot be read."""
    return Wellness(Word.FAILING, (Why(Cause.UNREADABLE, f"cannot read the database: {fault}"),))


def judge(findings: Findings) -> Wellness:
    """Judge the pipeline by its worst finding."""
    wrong = [*_of_streams(findings), *_of_searches(findings), *_of_rotation(findings)]
    why = [Why(*each) for each in sorted(wrong, key=lambda each: list(Cause).index(each[0]))]
    notes = [Why(None, words) for words in _notes(findings)]
    if not why:
        waiting = any(each.backlog for each in findings.streams) or findings.failed
        words = "changes are waiting, none for too long" if waiting else "every change is answered"
        why = [Why(None, words)]
    return Wellness(word_for(why), (*why, *notes))


def word_for(whys: Iterable[Why]) -> Word:
    """Return the word for these reasons, by the worst of them; remarks do not count."""
    causes = {why.cause for why in whys} - {None}
    if causes & _FAILING:
        return Word.FAILING
    return Word.STRAINED if causes else Word.WELL


def _of_streams(findings: Findings) -> Iterator[_Wrong]:
    for each in findings.streams:
        if not each.followed:
            yield Cause.UNFOLLOWED, f"no daemon follows {each.stream}; start one"
        yield from _troubles(each, each.oldest, findings.max_lag)
        if each.woken is False:
            yield Cause.POLLING, f"wake-ups for {each.stream} do not arrive; polling every second"
    # Both streams ask the same LML.
    troubles = sorted((each.lml for each in findings.streams if each.lml), key=lambda t: t.since)
    for trouble in {trouble.cause: trouble for trouble in reversed(troubles)}.values():
        yield Cause.LML, trouble.sentence(findings.at)


def _troubles(
    state: Pulse | StreamState, oldest: timedelta | None, max_lag: timedelta, limit: str = ""
) -> Iterator[_Wrong]:
    """Yield what is wrong with how a stream is followed; `limit` ends the sentence on its lag."""
    stream = state.stream
    if state.stalled > STALLED:
        yield Cause.STALLED, f"the {stream} loops have been stuck for {_span(state.stalled)}"
    if state.fault is not None:
        # No details for a probe, which needs no token: the reason may name hosts.
        reason = "" if limit else f": {state.fault}"
        yield Cause.REFUSED, f"the database refuses every change of {stream}{reason}"
    excused = state.breaker not in {None, BreakerState.CLOSED} or stream in _PACED
    if oldest is not None and oldest > max_lag and not excused:
        yield Cause.LAG, f"the oldest change of {stream} has waited {_span(oldest)}{limit}"


def _of_searches(findings: Findings) -> Iterator[_Wrong]:
    if findings.missing:
        missing = ", ".join(findings.missing)
        yield Cause.INCOMPLETE, f"not complete: {missing}; run listener migrate"
    if findings.capture_missed:
        missed = f"changes of {plural(findings.capture_missed, 'row')} were not captured"
        yield Cause.CAPTURE, f"{missed} in the last day; see `listener runbook capture-missed`"
    for run in findings.runs:
        if run.failure is not None and _still_counts(run, findings):
            yield Cause.RUNS, f"the last {run.kind.value} run failed: {run.failure}"
    if findings.failed >= _MANY_FAIL:
        yield Cause.FAILURES, _failed(findings.failed)


def _still_counts(run: LatestRun, findings: Findings) -> bool:
    # Another kind may have searched for the same, and more, since then.
    successes = (
        other.succeeded_at
        for other in findings.runs
        if other.succeeded_at and run.kind.searches <= other.kind.searches
    )
    return run.started_at > max((findings.at - _LATELY, *successes))


def _of_rotation(findings: Findings) -> Iterator[_Wrong]:
    rotation = findings.rotation
    if rotation is None:
        return
    if rotation.coverage < rotation.least:
        # Never rounded up to enough.
        share = f"{int(1000 * rotation.coverage) / 10:.1f} % of the rotation on Discogs"
        least = f"ROTATION_MIN_COVERAGE, {100 * rotation.least:g} %"
        yield Cause.COVERAGE, f"{share} has an identity, less than {least}"
    age = findings.at - rotation.warm_since
    if age > _WARM:
        yield Cause.WARMTH, f"the rotation was last fully refreshed {_span(age)} ago"


def _notes(findings: Findings) -> Iterator[str]:
    for each in findings.streams:
        if each.backlog > _MANY or (each.oldest is not None and each.oldest > _SLOW):
            waiting = plural(each.backlog, "change")
            yield f"{waiting} of {each.stream} waiting, the oldest for {_span(each.oldest)}"
    if 0 < findings.failed < _MANY_FAIL:
        yield _failed(findings.failed)
    if findings.parked:
        yield f"{plural(findings.parked, 'row')} parked for a person to look at"
    if findings.never_asked:
        yield f"{plural(findings.never_asked, 'row')} not asked about yet"


def _failed(rows: int) -> str:
    return f"{plural(rows, 'row')} failed and will be retried"


def _span(duration: timedelta | None) -> str:
    return span(duration or timedelta(), largest="h")
