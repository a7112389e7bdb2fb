"""The spans of a run or a window, made all at once when it is over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sentry_sdk
import structlog
from sentry_sdk.tracing import NoOpSpan

from listener.domain.refreshing import RotationTally
from listener.domain.run import RunKind
from listener.domain.tally import Skip, Tally
from listener.domain.tracks import TrackCount

_log = structlog.stdlib.get_logger()

_RUN = "library-identity-consumer.run"
_TASK = "task"
# What dashboards of the rotation look for.
_ROTATION = "rotation-artist-backfill"
# The SDK drops what comes after 1000 spans, and the totals come last.
_CALLS = 500
# What a daemon does so often that a share of it shows the rest. All else is rare, and a count of it
# is only right if none is missing.
_SAMPLED_KINDS = frozenset(("window", RunKind.REFRESH.value))


@dataclass(frozen=True, slots=True)
class Period:
    """When something began and ended."""

    began: datetime
    ended: datetime


class Clock:
    """Measures periods that a clock set anew cannot turn round."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self._began_at = time.monotonic()

    def period(self) -> Period:
        """Return the time since this was made."""
        passed = timedelta(seconds=time.monotonic() - self._began_at)
        return Period(self._began, self._began + passed)


@dataclass(frozen=True, slots=True)
class Part:
    """What hangs on the span of a run: calls, and the totals."""

    name: str
    op: str
    period: Period
    status: str
    attributes: Mapping[str, float]


@dataclass(slots=True)
class Calls:
    """The calls of a run or a window; of very many the first ones."""

    kept: list[Part] = field(default_factory=list)

    def add(self, call: Part) -> None:
        """Keep a call, unless there are too many."""
        if len(self.kept) < _CALLS:
            self.kept.append(call)

    def forget_before(self, moment: datetime) -> None:
        """Keep none that ended before."""
        self.kept = [call for call in self.kept if call.period.ended >= moment]


def call(period: Period, status: str, batch_size: int, cache_stats: Mapping[str, float]) -> Part:
    """Return the part that stands for a call of LML."""
    attributes: dict[str, float] = {"lml.batch_size": batch_size}
    attributes |= {f"lml.cache.{name}": number for name, number in cache_stats.items()}
    return Part("lml.bulk_resolve_libraries", "http.client", period, status, attributes)


def refresh(period: Period, status: str, identities: int) -> Part:
    """Return the part that stands for a call of LML that refreshes identities."""
    attributes = {"lml.batch_size": identities}
    return Part("lml.refresh_for_identities", "http.client", period, status, attributes)


def totals(ended: datetime, status: str, tally: Tally | RotationTally) -> Part:
    """Return the part that holds the counts of a run or a window; every name is always there."""
    if isinstance(tally, RotationTally):
        found = {f"backfill.{name}": count for name, count in tally.report().items()}
        op = f"{_ROTATION}.totals"
        return Part(f"{_ROTATION}.run.totals", op, Period(ended, ended), status, found)
    names = [f"rows_skipped.{reason}" for reason in Skip] + [str(count) for count in TrackCount]
    counts = dict.fromkeys(names, 0) | tally.fields()
    attributes = {f"consumer.{name}": count for name, count in counts.items()}
    return Part(f"{_RUN}.totals", _TASK, Period(ended, ended), status, attributes)


def name_of(tally: Tally | RotationTally) -> str:
    """Return what the span of a run is called that counts like this."""
    return f"{_ROTATION}.run" if isinstance(tally, RotationTally) else _RUN


def rate_of(context: Mapping[str, object], frequent: float) -> float:
    """Return the share that is sent of such spans, `frequent` of what happens all the time."""
    return frequent if context.get("kind") in _SAMPLED_KINDS else 1.0


def make_spans(name: str, kind: str, period: Period, parts: Sequence[Part], status: str) -> None:
    """Hand a run or a window with its parts to the SDK; raises nothing."""
    try:
        top = sentry_sdk.start_transaction(
            name=name,
            op=_TASK,
            source="task",
            start_timestamp=period.began,
            custom_sampling_context={"kind": kind},
        )
        if isinstance(top, NoOpSpan) or not top.sampled:
            return
        top.set_tag("consumer.kind", kind)
        top.set_status(status)
        for part in parts:
            span = top.start_child(op=part.op, name=part.name, start_timestamp=part.period.began)
            for attribute, number in part.attributes.items():
                span.set_data(attribute, number)
            span.set_status(part.status)
            span.finish(end_timestamp=part.period.ended)
        top.finish(end_timestamp=period.ended)
    except Exception:  # noqa: BLE001 - what is told of a run must never break it
        _log.warning("spans could not be sent", exc_info=True)
