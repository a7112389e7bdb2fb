"""How `sweep` and `backfill` print what they counted or expect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

from listener.app.commands import Forecast
from listener.domain.refreshing import RefreshStatus, RotationTally
from listener.domain.tally import FAILURES, Skip, Tally
from listener.domain.tracks import TrackCount
from listener.domain.words import plural


def library_lines(tally: Tally) -> list[str]:
    """Return the counts of library rows for a person, one a line."""
    counts = {
        "scanned": tally.scanned,
        "resolved": tally.resolved,
        "by track": tally.resolved_compilations,
        "unresolved": tally.unresolved,
        "compilation": tally.skipped[Skip.COMPILATION],
    }
    counts |= {
        f"{reason}{' (failed)' if reason in FAILURES else ''}": count
        for reason, count in sorted(tally.skipped.items())
        if reason is not Skip.COMPILATION
    }
    counts |= {_spoken(count): tally.tracks[count] for count in TrackCount if tally.tracks[count]}
    width = max(map(len, counts))
    lines = [f"{name:<{width}} {count:>9,}" for name, count in counts.items()]
    if tally.capture_missed:
        missed = plural(tally.capture_missed, "change")
        lines.append(f"capture missed {missed}; see `listener runbook capture-missed`")
    lines += _about_identities(tally)
    return [*lines, _calls(tally.lml_calls, "call", tally.latency_ms)]


def _spoken(count: TrackCount) -> str:
    return count.removeprefix("compilation_").replace("_cta_", "_row_").replace("_", " ")


def _about_identities(tally: Tally) -> Iterator[str]:
    for count, one, several in (
        (tally.identities_withdrawn, "identity withdrawn", "identities withdrawn"),
        (
            tally.resolved_now_unresolved,
            "identity kept, although LML now finds none",
            "identities kept, although LML now finds none",
        ),
        (
            tally.kept_manual,
            "identity kept, because a person set it",
            "identities kept, because a person set them",
        ),
    ):
        if count:
            yield f"{count:,} {one if count == 1 else several}"


def rotation_lines(tally: RotationTally) -> list[str]:
    """Return the counts of a walk for a person, one a line."""
    counts = tally.fields()
    return [
        f"rotation    {tally.scanned:>9,} identities",
        f"warmed      {tally.with_status(RefreshStatus.WARMED):>9,}",
        f"releases    {counts['warmed_releases']:>9,}",
        f"artists     {counts['warmed_artists']:>9,}",
        f"not found   {counts['not_found']:>9,}",
        f"not implemented {counts['not_implemented']:>5,}",
        f"failed      {counts['lml_error']:>9,}",
        *(f"{name:<11} {tally.mints[name]:>9,}" for name in tally.mints if tally.mints[name]),
        _calls(tally.calls, "refresh call", tally.latency.total_seconds() * 1000),
    ]


def _calls(count: int, kind: str, milliseconds: float) -> str:
    made = f"{plural(count, kind)} to LML"
    return f"{made}, {milliseconds / count:,.0f} ms each" if count else made


def plan_text(expected: Forecast) -> str:
    """Return an estimate for a person."""
    if not expected.rows:
        return "nothing to do"
    duration = timedelta(seconds=round(expected.duration.total_seconds()))
    return (
        f"{plural(expected.rows, 'row')}, {expected.compilations:,} of them compilations\n"
        f"{plural(expected.calls, 'call')} to LML, {expected.in_flight} at a time\n"
        f"about {duration} at {expected.call.total_seconds():.1f} s a call"
    )


def plan_json(expected: Forecast) -> str:
    """Return an estimate as a JSON object."""
    return json.dumps(
        {
            "rows": expected.rows,
            "compilations": expected.compilations,
            "lml_calls": expected.calls,
            "in_flight": expected.in_flight,
            "seconds_a_call": round(expected.call.total_seconds(), 3),
            "seconds": round(expected.duration.total_seconds(), 1),
        }
    )
