"""Judges the health of a daemon and of the whole pipeline, and gives the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from listener.domain.change import Stream
from listener.domain.durations import SPOKEN
from listener.domain.pacing import BreakerState
from listener.domain.words import plural

# A healthy loop turns at least every 5 s, whatever it waits for.
TURN = timedelta(seconds=5)
_STALLED = timedelta(seconds=12)
# Refreshes keep within the Discogs budget, so their long waits are intended.
_PACED = frozenset((Stream.ROTATION,))
# Twice as long as it may take to read the database.
_UNHEARD = timedelta(seconds=30)
# The daemon handles a smaller backlog before a person has noticed it.
_MANY = 500
_SLOW = timedelta(seconds=30)
# A few rows may be bad; this many share a cause in LML or the database.
_MANY_FAIL = 10


class WakeMode(StrEnum):
    """How a daemon learns of changes: it is woken, it polls, or it has no session."""

    NOTIFY = "notify"
    POLL = "poll"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Pulse:
    """How this daemon follows one stream.

    `stalled` is the time since the slower of its loops last turned, `looked` the time since it last
    read the outbox. `claimed` counts changes since the start, `held` those of them that are not
    settled. `fault` says what prevents it from handling any change.
    """

    stream: Stream
    wake_mode: WakeMode
    breaker: BreakerState
    stalled: timedelta
    looked: timedelta | None
    claimed: int
    held: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the database knows of one stream."""

    stream: Stream
    backlog: int
    oldest: timedelta | None
    followed: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database reported `age` ago, or in `fault` why the last attempt failed.

    `discogs_calls` estimates what refreshes cost in the last minute.
    """

    waiting: Sequence[Waiting]
    parked: int
    age: timedelta
    fault: str | None = None
    discogs_calls: int = 0

    def of(self, stream: Stream) -> Waiting | None:
        """Return what was read about a stream."""
        return next((each for each in self.waiting if each.stream is stream), None)


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
        return ["the database is not available"]
    if reading.age > _UNHEARD:
        return [f"the database has not answered for {_span(reading.age)}"]
    following = {pulse.stream: pulse for pulse in pulses}
    limit = f", more than READY_MAX_LAG, {_span(max_lag)}"
    reasons: list[str] = []
    for waiting in reading.waiting:
        pulse = following.get(waiting.stream)
        if pulse is not None:
            reasons += _troubles(pulse, waiting.oldest, max_lag, limit)
        elif not waiting.followed:
            reasons.append(f"no daemon follows {waiting.stream}")
    return reasons


class Word(StrEnum):
    """The state of the pipeline in one word; the page gives each word its own colour."""

    WELL = "well"
    BUSY = "busy"
    STRAINED = "strained"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Wellness:
    """The word, and the reasons as sentences for a person, most important first."""

    word: Word
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamState(Waiting):
    """One stream across all daemons; wake mode and breaker are None if no daemon follows it.

    `fault` says what prevents the daemon from handling any change.
    """

    wake_mode: WakeMode | None = None
    breaker: BreakerState | None = None
    stalled: timedelta = timedelta()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """The facts besides the streams that decide wellness; the last two cover the last day."""

    missing: Sequence[str]
    parked: int
    failed: int
    never_asked: int
    failed_run: str | None
    capture_missed: int


def judge_wellness(
    streams: Sequence[StreamState], findings: Findings, max_lag: timedelta
) -> Wellness:
    """Judge the pipeline by its worst finding."""
    failing = [*_failing(streams, findings, max_lag)]
    strained = [*_strained(streams, findings)]
    busy = [*_busy(streams)]
    notes = [*_notes(findings)]
    for word, whys in ((Word.FAILING, failing), (Word.STRAINED, strained), (Word.BUSY, busy)):
        if whys:
            return Wellness(word, (*failing, *strained, *busy, *notes))
    waiting = any(each.backlog for each in streams) or findings.failed
    answered = "changes are answered as they come" if waiting else "every change is answered"
    return Wellness(Word.WELL, (answered, *notes))


def _failing(
    streams: Sequence[StreamState], findings: Findings, max_lag: timedelta
) -> Iterator[str]:
    if findings.missing:
        yield f"not complete: {', '.join(findings.missing)}; run listener migrate"
    for each in streams:
        if not each.followed:
            yield f"no daemon follows {each.stream}; start one"
        yield from _troubles(each, each.oldest, max_lag)


def _troubles(
    state: Pulse | StreamState, oldest: timedelta | None, max_lag: timedelta, limit: str = ""
) -> Iterator[str]:
    """Yield the faults in following a stream; `limit` completes the sentence about its lag."""
    stream = state.stream
    if state.stalled > _STALLED:
        yield f"the {stream} loops have been stuck for {_span(state.stalled)}"
    if state.fault is not None:
        # No details for a probe, which needs no token: the reason may name hosts.
        reason = "" if limit else f": {state.fault}"
        yield f"the database refuses every change of {stream}{reason}"
    if state.wake_mode is WakeMode.DOWN:
        yield f"the session that wakes {stream} does not respond"
    excused = _lml_is_unavailable(state) or stream in _PACED
    if oldest is not None and oldest > max_lag and not excused:
        yield f"the oldest change of {stream} has waited {_span(oldest)}{limit}"


def _lml_is_unavailable(state: Pulse | StreamState) -> bool:
    return state.breaker not in {None, BreakerState.CLOSED}


def _strained(streams: Sequence[StreamState], findings: Findings) -> Iterator[str]:
    if any(map(_lml_is_unavailable, streams)):
        yield "LML does not answer; changes are kept until it does"
    for each in streams:
        if each.wake_mode is WakeMode.POLL:
            yield f"wake-ups for {each.stream} do not arrive; polling every second"
    if findings.capture_missed:
        rows = plural(findings.capture_missed, "row")
        yield f"{rows} had changed without a record in the last day; see capture missed"
    if findings.failed_run is not None:
        yield f"the last run failed: {findings.failed_run}"
    if findings.failed >= _MANY_FAIL:
        yield _failed(findings.failed)


def _busy(streams: Sequence[StreamState]) -> Iterator[str]:
    for each in streams:
        if each.backlog > _MANY or (each.oldest is not None and each.oldest > _SLOW):
            waiting = plural(each.backlog, "change")
            yield f"{waiting} of {each.stream} waiting, the oldest for {_span(each.oldest)}"


def _notes(findings: Findings) -> Iterator[str]:
    if 0 < findings.failed < _MANY_FAIL:
        yield _failed(findings.failed)
    if findings.parked:
        yield f"{plural(findings.parked, 'row')} parked for a person to look at"
    if findings.never_asked:
        yield f"{plural(findings.never_asked, 'row')} not asked about yet"


def _failed(rows: int) -> str:
    return f"{plural(rows, 'row')} could not be answered and will be tried again"


def _span(duration: timedelta | None) -> str:
    seconds = (duration or timedelta()).total_seconds()
    for unit in ("h", "min"):
        if seconds >= 2 * SPOKEN[unit]:
            return f"{seconds / SPOKEN[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
