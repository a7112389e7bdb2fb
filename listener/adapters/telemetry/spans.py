"""The spans of a run or a window, created all at once at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sentry_sdk
import structlog
from sentry_sdk.tracing import NoOpSpan

from listener.domain.due import RunKind
from listener.domain.refreshing import RotationTally
from listener.domain.tally import Skip, Tally
from listener.domain.tracks import TrackCount

_log = structlog.stdlib.get_logger()

_RUN = "library-identity-consumer.run"
_TASK = "task"
# The names that the dashboards of the rotation use.
_ROTATION = "rotation-artist-backfill"
# The SDK drops everything after 1000 spans, and the totals come last.
_CALLS = 500
# Frequent enough that a sample represents the rest. All others are rare, and counts of them are
# only right if none is missing.
_SAMPLED_KINDS = frozenset(("window", RunKind.REFRESH.value))


@dataclass(frozen=True, slots=True)
class Period:
    """When something began and ended."""

    began: datetime
    ended: datetime


class Clock:
    """Measures periods, unaffected by a change of the system clock."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self._began_at = time.monotonic()

    def period(self) -> Period:
        """Return the period since this clock was created."""
        passed = timedelta(seconds=time.monotonic() - self._began_at)
        return Period(self._began, self._began + passed)


@dataclass(frozen=True, slots=True)
class ChildSpan:
    """A child span of a run: a call, or the totals."""

    name: str
    op: str
    period: Period
    status: str
    attributes: Mapping[str, float]


@dataclass(slots=True)
class Calls:
    """The calls of a run or a window; if there are very many, the first ones."""

    kept: list[ChildSpan] = field(default_factory=list)

    def add(self, call: ChildSpan) -> None:
        """Keep a call, unless there are too many."""
        if len(self.kept) < _CALLS:
            self.kept.append(call)

    def forget_before(self, moment: datetime) -> None:
        """Forget the calls that ended before this moment."""
        self.kept = [call for call in self.kept if call.period.ended >= moment]


def call(
    period: Period, status: str, batch_size: int, cache_stats: Mapping[str, float]
) -> ChildSpan:
    """Return the child span of a bulk call to LML."""
    attributes: dict[str, float] = {"lml.batch_size": batch_size}
    attributes |= {f"lml.cache.{name}": number for name, number in cache_stats.items()}
    return ChildSpan("lml.bulk_resolve_libraries", "http.client", period, status, attributes)


def refresh(period: Period, status: str, identities: int) -> ChildSpan:
    """Return the child span of a refresh call to LML."""
    attributes = {"lml.batch_size": identities}
    return ChildSpan("lml.refresh_for_identities", "http.client", period, status, attributes)


def totals(ended: datetime, status: str, tally: Tally | RotationTally) -> ChildSpan:
    """Return the child span with the counts of a run or a window, zeros included."""
    if isinstance(tally, RotationTally):
        found = {f"backfill.{name}": count for name, count in tally.report().items()}
        op = f"{_ROTATION}.totals"
        return ChildSpan(f"{_ROTATION}.run.totals", op, Period(ended, ended), status, found)
    names = [f"rows_skipped.{reason}" for reason in Skip] + [str(count) for count in TrackCount]
    counts = dict.fromkeys(names, 0) | tally.fields()
    attributes = {f"consumer.{name}": count for name, count in counts.items()}
    return ChildSpan(f"{_RUN}.totals", _TASK, Period(ended, ended), status, attributes)


def name_of(tally: Tally | RotationTally) -> str:
    """Return the name of the span of a run with this kind of tally."""
    return f"{_ROTATION}.run" if isinstance(tally, RotationTally) else _RUN


def rate_of(context: Mapping[str, object], frequent: float) -> float:
    """Return the share of such spans to send: `frequent` for the frequent kinds."""
    return frequent if context.get("kind") in _SAMPLED_KINDS else 1.0


def make_spans(
    name: str, kind: str, period: Period, parts: Sequence[ChildSpan], status: str
) -> None:
    """Pass a run or a window with its child spans to the SDK; raises nothing."""
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
    except Exception:  # noqa: BLE001 - reporting a run must never break it
        _log.warning("spans could not be sent", exc_info=True)
