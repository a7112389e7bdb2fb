"""How a daemon and the whole pipeline are: ready or not and why, well or not and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from listener.domain.change import Stream
from listener.domain.durations import SPOKEN
from listener.domain.pacing import BreakerState
from listener.domain.words import plural

# A loop that works turns every 5 s at the latest, whatever it waits for.
TURN = timedelta(seconds=5)
_STALLED = timedelta(seconds=12)
# Refreshes keep within Discogs' budget: that they wait for long is meant so.
_PACED = frozenset((Stream.ROTATION,))
# Twice as long as a reading of the database may take.
_UNHEARD = timedelta(seconds=30)
# More changes than these take a person's eye longer to believe in than the daemon to handle.
_MANY = 500
_SLOW = timedelta(seconds=30)
# A few rows may be bad; so many are one fault of LML's or the database's.
_MANY_FAIL = 10


class WakeMode(StrEnum):
    """How a follower learns of changes: it is woken, it only looks, or it has no session."""

    NOTIFY = "notify"
    POLL = "poll"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Pulse:
    """How one stream is followed by this daemon.

    `stalled` is the age of the last turn of the slower of its loops, `looked` that of the last
    look at the outbox that came back. `claimed` counts changes since the start, `held` those of
    them that are not settled. `fault` is what keeps all of them from being handled.
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
    """What the database told when it was last asked, `age` ago, or why it told nothing.

    `discogs_calls` is what refreshes are taken to have cost in the last minute.
    """

    waiting: Sequence[Waiting]
    parked: int
    age: timedelta
    fault: str | None = None
    discogs_calls: int = 0

    def of(self, stream: Stream) -> Waiting | None:
        """Return what was told of a stream."""
        return next((each for each in self.waiting if each.stream is stream), None)


def unready(
    reading: Reading | None, pulses: Sequence[Pulse], max_lag: timedelta, *, stopping: bool = False
) -> list[str]:
    """Return why this daemon is not ready, nothing if it is.

    One that stands by is ready while somebody follows. That LML is down, or that refreshes wait
    for their pace, makes nobody unready.
    """
    if stopping:
        return ["stopping"]
    if reading is None:
        return ["starting: the database was not read yet"]
    if reading.fault is not None:
        # No more than that: a probe needs no token, and the reason may name hosts and roles.
        return ["the database is not available"]
    if reading.age > _UNHEARD:
        return [f"the database does not answer for {_span(reading.age)}"]
    following = {pulse.stream: pulse for pulse in pulses}
    limit = f", more than READY_MAX_LAG, {_span(max_lag)}"
    reasons: list[str] = []
    for waiting in reading.waiting:
        pulse = following.get(waiting.stream)
        if pulse is not None:
            reasons += _troubles(pulse, waiting.oldest, max_lag, limit)
        elif not waiting.followed:
            reasons.append(f"nobody follows {waiting.stream}")
    return reasons


class Word(StrEnum):
    """How the pipeline is, in one word for a person; each has a colour of its own."""

    WELL = "well"
    BUSY = "busy"
    STRAINED = "strained"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Wellness:
    """The word, and why: sentences for a person, the weightiest first."""

    word: Word
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamState(Waiting):
    """One stream as the whole fleet knows it; rung and breaker are None where nobody follows it.

    `fault` is what keeps all changes from being handled.
    """

    wake_mode: WakeMode | None = None
    breaker: BreakerState | None = None
    stalled: timedelta = timedelta()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What wellness is judged by, beside the streams; the last two are of the last day."""

    missing: Sequence[str]
    parked: int
    failed: int
    never_asked: int
    failed_run: str | None
    capture_missed: int


def judge_wellness(
    streams: Sequence[StreamState], findings: Findings, max_lag: timedelta
) -> Wellness:
    """Return how the pipeline is, by the worst that is known of it."""
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
            yield f"nobody follows {each.stream}; start a daemon"
        yield from _troubles(each, each.oldest, max_lag)


def _troubles(
    state: Pulse | StreamState, oldest: timedelta | None, max_lag: timedelta, limit: str = ""
) -> Iterator[str]:
    """Yield what is wrong with how a stream is followed; `limit` ends the sentence on its lag."""
    stream = state.stream
    if state.stalled > _STALLED:
        yield f"the loops of {stream} stand still for {_span(state.stalled)}"
    if state.fault is not None:
        # No more than that where a probe reads it without a token: the reason may name hosts.
        reason = "" if limit else f": {state.fault}"
        yield f"the database refuses every change of {stream}{reason}"
    if state.wake_mode is WakeMode.DOWN:
        yield f"the session that {stream} is woken by does not answer"
    excused = _lml_is_unavailable(state) or stream in _PACED
    if oldest is not None and oldest > max_lag and not excused:
        yield f"the oldest change of {stream} waits for {_span(oldest)}{limit}"


def _lml_is_unavailable(state: Pulse | StreamState) -> bool:
    return state.breaker not in {None, BreakerState.CLOSED}


def _strained(streams: Sequence[StreamState], findings: Findings) -> Iterator[str]:
    if any(map(_lml_is_unavailable, streams)):
        yield "LML does not answer; changes are kept until it does"
    for each in streams:
        if each.wake_mode is WakeMode.POLL:
            yield f"wake-ups for {each.stream} do not arrive, it looks every second"
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
        yield f"{plural(findings.parked, 'row')} set aside for a person to look at"
    if findings.never_asked:
        yield f"{plural(findings.never_asked, 'row')} never asked yet"


def _failed(rows: int) -> str:
    return f"{plural(rows, 'row')} could not be answered and will be tried again"


def _span(duration: timedelta | None) -> str:
    seconds = (duration or timedelta()).total_seconds()
    for unit in ("h", "min"):
        if seconds >= 2 * SPOKEN[unit]:
            return f"{seconds / SPOKEN[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
