"""The numbers of a daemon that are read on each scrape, as metric families of Prometheus."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from listener import DISTRIBUTION
from listener.domain.change import Stream
from listener.domain.health import Cause, Wellness, Word
from listener.domain.pacing import BreakerState
from listener.domain.pulse import Pulse, Reading, WakeMode
from listener.domain.refreshing import RefreshStatus, RotationCoverage
from listener.domain.tally import Duty, Skip, Tally
from listener.domain.tracks import TrackCount

# Read once: another version may be installed while this one runs.
_RUNNING = {"version": version(DISTRIBUTION), "python": platform.python_version()}
# For the statuses of refreshes that we do not know.
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is read on each scrape.

    `claimed` and `captured` count changes since the start. `tallies` are those that still grow.
    `tokens` is how many Discogs calls refreshes may still cost, None before it is known.
    `uncaptured` are the streams without triggers, None if this daemon does not watch them.
    `successes` are those of the scheduled jobs. `library` counts rows by outcome, `due` by reason.
    """

    ready: bool
    pulses: Sequence[Pulse] = ()
    claimed: Mapping[Stream, int] = field(default_factory=dict)
    captured: Mapping[Stream, int] = field(default_factory=dict)
    reading: Reading | None = None
    tallies: Sequence[Tally] = ()
    refreshed: Mapping[str, int] = field(default_factory=dict)
    neglected: Mapping[Duty, int] = field(default_factory=dict)
    calls_in_flight: int = 0
    tokens: int | None = None
    log_lines_dropped: int = 0
    uncaptured: AbstractSet[Stream] | None = None
    wellness: Wellness | None = None
    successes: Mapping[str, datetime] = field(default_factory=dict)
    library: Mapping[str, int] = field(default_factory=dict)
    due: Mapping[str, int] = field(default_factory=dict)
    rotation: RotationCoverage | None = None


def families(numbers: Numbers, total: Tally) -> Iterator[Metric]:
    """Yield all families; `total` is the tally of library rows since the start."""
    yield InfoMetricFamily("listener_build", "The running version.", _RUNNING)
    yield _one("ready", "Whether /readyz answers yes.", numbers.ready)
    yield from _of_verdict(numbers)
    yield from _of_pulses(numbers)
    yield from _of_reading(numbers.reading)
    yield from _of_tables(numbers)
    yield from _of_tally(total)
    yield from _of_process(numbers)


def _of_verdict(numbers: Numbers) -> Iterator[Metric]:
    when = "When a job last succeeded, or could first have; absent while it is switched off."
    successes = {job: at.timestamp() for job, at in numbers.successes.items()}
    yield _gauges("last_success_timestamp_seconds", when, "kind", successes)
    wellness = numbers.wellness
    if wellness is None:
        return
    level = list(Word).index(wellness.word)
    yield _one("wellness", "The verdict: 0 well, 1 strained, 2 failing.", level)
    present = {why.cause for why in wellness.why}
    causes = {str(cause): cause in present for cause in Cause}
    yield _gauges(
        "cause", "Why the pipeline is not well, 1 for each present cause.", "cause", causes
    )


def _of_pulses(numbers: Numbers) -> Iterator[Metric]:
    following = {pulse.stream: pulse for pulse in numbers.pulses}
    is_here = _family("following", "Whether this process follows the stream.", "stream")
    held = _family("changes_held", "Changes claimed and not yet settled.", "stream")
    stalled = _family("loop_turn_age_seconds", "Time since the slower loop last turned.", "stream")
    rung = _family(
        "rung", "How the daemon learns of changes, 1 for the current way.", "stream", "rung"
    )
    breaker = _family(
        "breaker", "The circuit breaker towards LML, 1 for the current state.", "stream", "state"
    )
    for stream in Stream:
        pulse = following.get(stream)
        is_here.add_metric([stream], pulse is not None)
        held.add_metric([stream], 0 if pulse is None else pulse.held)
        for step in WakeMode:
            rung.add_metric([stream, step], pulse is not None and pulse.wake_mode is step)
        for state in BreakerState:
            breaker.add_metric([stream, state], pulse is not None and pulse.breaker is state)
        if pulse is not None:
            stalled.add_metric([stream], pulse.stalled.total_seconds())
    yield from (is_here, held, stalled, rung, breaker)
    yield _counts("changes_captured", "Changes recorded.", "stream", numbers.captured)
    yield _counts("changes_claimed", "Changes read from the outbox.", "stream", numbers.claimed)


def _of_reading(reading: Reading | None) -> Iterator[Metric]:
    up = reading is not None and reading.fault is None
    yield _one("database_up", "Whether the database answered the last reading.", up)
    if reading is None or not reading.waiting:
        return
    backlog = {each.stream: each.backlog for each in reading.waiting}
    yield _gauges("backlog_changes", "Changes in the outbox.", "stream", backlog)
    ages = {
        each.stream: 0.0 if each.oldest is None else (each.oldest + reading.age).total_seconds()
        for each in reading.waiting
    }
    yield _gauges(
        "oldest_change_age_seconds", "Age of the oldest change; 0 if there is none.", "stream", ages
    )
    retrying = {each.stream: each.retrying for each in reading.waiting}
    again = "Rows that failed and wait for a retry, without parked ones."
    yield _gauges("retrying_rows", again, "stream", retrying)
    yield _one("parked_rows", "Rows set aside for a person.", reading.parked)
    age = reading.age.total_seconds()
    yield _one("reading_age_seconds", "Time since the database was last read.", age)


def _of_tables(numbers: Numbers) -> Iterator[Metric]:
    if numbers.library:
        yield _gauges("library_rows", "Rows by outcome.", "outcome", numbers.library)
        due = "Rows due by time, by reason, and rows never asked."
        yield _gauges("due_rows", due, "reason", numbers.due)
    rotation = numbers.rotation
    if rotation is None:
        return
    share = "Share of the rotation on Discogs that has an identity, 0 to 1."
    yield _one("rotation_coverage", share, rotation.coverage)
    if rotation.coldest is not None:
        coldest = "When the least recently refreshed identity in rotation was refreshed."
        at = rotation.coldest.timestamp()
        yield _one("rotation_coldest_timestamp_seconds", coldest, at)


def _of_tally(total: Tally) -> Iterator[Metric]:
    yield _counts("verdicts", "Outcomes of rows.", "outcome", _outcomes(total))
    credited = "Outcomes of the credits of compilations."
    yield _counts("compilation_tracks", credited, "outcome", _tracks(total))
    for name, meaning, count in total.counters():
        yield _count(name, meaning, count)


def _of_process(numbers: Numbers) -> Iterator[Metric]:
    yield _counts("rotation_refreshes", "Refreshed identities.", "status", _refreshed(numbers))
    neglected = {str(duty): numbers.neglected.get(duty, 0) for duty in Duty}
    failed = "Failed attempts to delete what is no longer needed."
    yield _counts("housekeeping_failures", failed, "duty", neglected)
    in_flight = "Calls to LML in flight."
    yield _one("lml_calls_in_flight", in_flight, numbers.calls_in_flight)
    dropped = "Log lines dropped because standard error did not accept them."
    yield _count("log_lines_dropped", dropped, numbers.log_lines_dropped)
    if numbers.uncaptured is not None:
        capturing = {stream: stream not in numbers.uncaptured for stream in Stream}
        yield _gauges("capturing", "Whether the triggers capture changes.", "stream", capturing)
    if numbers.tokens is not None:
        left = "Discogs calls that refreshes may still cost now, within the budget."
        yield _one("pace_tokens", left, numbers.tokens)


def _outcomes(tally: Tally) -> dict[str, int]:
    skipped = {str(reason): tally.skipped[reason] for reason in Skip}
    found = {"resolved": tally.resolved, "resolved_compilation": tally.resolved_compilations}
    return {**found, "unresolved": tally.unresolved, **skipped}


def _tracks(tally: Tally) -> dict[str, int]:
    return {count.removeprefix("compilation_track_"): tally.tracks[count] for count in TrackCount}


def _refreshed(numbers: Numbers) -> dict[str, int]:
    counts = dict.fromkeys((*map(str, RefreshStatus), _OTHER), 0)
    for status, count in numbers.refreshed.items():
        counts[status if status in counts else _OTHER] += count
    return counts


def _family(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"listener_{name}", meaning, labels=labels)


def _gauges(
    name: str, meaning: str, label: str, values: Mapping[str, float] | Mapping[Stream, float]
) -> GaugeMetricFamily:
    family = _family(name, meaning, label)
    for labelled, value in values.items():
        family.add_metric([labelled], value)
    return family


def _one(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"listener_{name}", meaning, value)


def _count(name: str, meaning: str, count: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"listener_{name}", meaning, count)


def _counts(
    name: str, meaning: str, label: str, counts: Mapping[str, int] | Mapping[Stream, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"listener_{name}", meaning, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
