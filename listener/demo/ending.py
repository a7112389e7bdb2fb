"""The end: a summary, a check that nothing was lost, and time for a person to look around."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from listener.demo.choices import DemoFailedError
from listener.demo.play import Play, former_identities, kinds, outcome_of
from listener.demo.watch import Outcome
from listener.domain.words import plural

_LOOK_EVERY = 0.5
_ANSWERED = "200"


async def sum_up(play: Play, entries_before: int) -> None:
    """Print a summary; raises `DemoFailedError` if anything was lost."""
    screen = play.screen
    found = (await play.watch.read("check_everything"))[0]
    changed = await play.watch.entries() - entries_before - play.rotation_entries
    counters = play.lml.counters()
    asked = counters["rows"].get("bulk", 0)
    screen.heading("Summary")
    screen.fact("library", f"{plural(found.releases, 'release')}: {kinds(found)}")
    screen.fact(
        "asked",
        f"{plural(asked, 'question')} for {plural(changed, 'changed row')},"
        f" {asked / max(1, changed):.2f} per row",
    )
    screen.fact("LML", _calls(counters))
    if play.idle:
        screen.fact("latency", _latency(play.idle, play.call))
    if found.waiting:
        raise DemoFailedError(f"the outbox still holds {plural(found.waiting, 'change')}")
    screen.fact("outbox", "empty")
    if found.unanswered or found.unidentified:
        raise DemoFailedError(
            f"{plural(found.unanswered, 'release')} without a verdict on the current names,"
            f" {plural(found.unidentified, 'single artist')} without an identity row"
        )
    if found.unlinked:
        raise DemoFailedError(f"{plural(found.unlinked, 'credit')} without a link to their artist")
    if found.outdated:
        raise DemoFailedError(
            f"{plural(found.outdated, 'release')} with an identity of a former name"
        )
    screen.fact("history", f"{former_identities(found.former)} kept; none is still in use")
    screen.fact("nothing lost", "every release has the verdict on its current names")


async def stay(play: Play, commands: Mapping[str, str]) -> None:
    """Run until cancelled, and show the verdicts on what a person changes."""
    play.screen.heading("Everything keeps running; press Ctrl-C to stop")
    for label, command in commands.items():
        play.screen.command(label, command)
    latest = await play.watch.read("read_latest", after=0)
    after = latest[0].ask_order if latest else 0
    while True:
        play.daemon.require()
        await play.watch.moved(_LOOK_EVERY)
        verdicts = await play.watch.read("read_latest", after=after)
        if verdicts:
            after = verdicts[0].ask_order
            _show_verdicts(play, verdicts)


def _show_verdicts(play: Play, verdicts: Sequence[Any]) -> None:
    for row in sorted(verdicts, key=lambda row: (row.ask_order, row.id)):
        outcome = outcome_of(
            [Outcome(row.outcome, row.sources, row.identified)], play.screen.room_for_outcome
        )
        play.screen.change(f"row {row.id}", f"{row.artist_name} – {row.album_title}", None, outcome)
    if more := verdicts[0].verdicts - len(verdicts):
        play.screen.fact("", f"and {plural(more, 'release')} more")


def _calls(counters: Mapping[str, Any]) -> str:
    calls, statuses = counters["calls"], counters["statuses"]
    text = plural(calls.get("bulk", 0), "bulk call")
    failed = {
        name.removeprefix("bulk "): count
        for name, count in statuses.items()
        if name.startswith("bulk ") and not name.endswith(_ANSWERED)
    }
    if failed:
        parts = [
            f"{count} cut off" if status == "none" else f"{count} answered {status}"
            for status, count in sorted(failed.items())
        ]
        text += f" ({', '.join(parts)})"
    return f"{text}, {plural(calls.get('refresh', 0), 'refresh call')}"


def _latency(durations: Sequence[timedelta], call: timedelta) -> str:
    milliseconds = sorted(duration.total_seconds() * 1000 for duration in durations)
    count = len(milliseconds)
    p50, p99 = (milliseconds[math.ceil(share * count) - 1] for share in (0.5, 0.99))
    alone = f"; LML alone takes {call.total_seconds() * 1000:,.1f} ms" if call else ""
    return (
        f"p50 {p50:,.1f} ms, p99 {p99:,.1f} ms, max {milliseconds[-1]:,.1f} ms"
        f" of {plural(count, 'single change')} to an idle listener{alone}"
    )
