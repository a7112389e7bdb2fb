"""A DJ's week: what people and jobs do to a station's library, and how the listener keeps up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from listener.demo.catalogue import VARIOUS, Release
from listener.demo.play import Play, former_identities
from listener.demo.troubles import Troubles
from listener.domain.words import plural
from listener.simulator.tracks import Credit, credits_of, entries_for

_PLAYED = 25
_NEW_TITLES = 40
_CREDITS = 24
# A rotation release that LML must fetch from Discogs, and one without an identity.
_COLD_IDENTITY = 4711
_DISCOGS_RELEASE = 249504
# A week with fewer seconds than this has one new arrival a day.
_LONG_WEEK = 40
_REASONS = {
    "verdict_changed": "LML's verdict changed",
    "question_changed": "the new name is another artist's",
    "withdrawn": "withdrawn, LML does not know the new name",
}
_LONGEST_PAUSE = 6.0


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens on a day of the week."""

    day: str
    name: str
    need: Need
    act: Callable[[], Awaitable[None]]


class Story:
    """The week, scaled to the time there is."""

    def __init__(self, play: Play, arrivals: Iterator[Release]) -> None:
        """Add `arrivals` to the library, one after another."""
        self._play = play
        self._arrivals = arrivals
        self._troubles = Troubles(play, arrivals)

    async def play(self, seconds: float) -> None:
        """Play the week within `seconds`; print the name of each step that does not fit."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        steps = self._steps(seconds)
        self._play.screen.heading(
            "A DJ's week. Times are from COMMIT until another session sees the verdicts."
        )
        day = None
        for number, step in enumerate(steps):
            pause = pause_before(end - loop.time(), [later.need for later in steps[number:]])
            if step.day != day:
                day = step.day
                self._play.screen.heading(day)
            if pause is None:
                self._play.screen.fact("left out", f"{step.name}: it takes more --seconds")
                continue
            await asyncio.sleep(pause)
            await step.act()

    def _steps(self, seconds: float) -> list[Step]:
        call = self._play.call.total_seconds()
        many = 3 if seconds >= _LONG_WEEK else 1
        outage = min(4.0, seconds / 10)

        def arrivals(day: str, count: int = 1) -> list[Step]:
            return [Step(day, "a new arrival", Need(call + 0.1), self._add)] * count

        return [
            *arrivals("Monday", many),
            Step("Monday", "plays", Need(0.1), self._count_plays),
            Step("Tuesday", "an LML identity in rotation", Need(call + 1.8), self._rotate_identity),
            Step("Tuesday", "a Discogs release in rotation", Need(0.1), self._rotate_discogs),
            Step("Tuesday", "an artist renamed", Need(call + 0.2), self._rename),
            Step("Wednesday", "the daily import", Need(2 * call + 0.5), self._import),
            Step("Wednesday", "a title corrected", Need(call + 0.1), self._correct_title),
            Step("Wednesday", "a compilation", Need(call + 0.2), self._add_compilation),
            *arrivals("Wednesday", many - 1),
            Step(
                "Thursday",
                "an edit while LML is thinking",
                Need(2 * call + 2.3, optional=True),
                self._troubles.edit_while_thinking,
            ),
            *arrivals("Thursday", many - 1),
            Step(
                "Friday",
                "an outage of LML",
                Need(outage + call + 1.5),
                lambda: self._troubles.outage(outage),
            ),
            *arrivals("Friday", many - 1),
            Step("Saturday", "kill -9 of the daemon", Need(call + 2.2), self._troubles.kill),
            *arrivals("Saturday", many - 1),
            Step("Sunday", "a release deleted", Need(0.1), self._delete),
            *arrivals("Sunday", many),
        ]

    async def _add(self) -> None:
        release = next(self._arrivals)
        commit = await self._play.writers.add_release(release)
        what = f"{release.artist_name} – {release.album_title}"
        await self._play.show("add", what, commit, idle=True)

    async def _add_compilation(self) -> None:
        play = self._play

        def visit(legacy_id: int) -> Sequence[Credit]:
            entries = entries_for(legacy_id, _CREDITS)
            play.lml.set(tracks={"overrides": {legacy_id: (True, entries)}})
            return credits_of(legacy_id, _CREDITS)

        release = replace(next(self._arrivals), artist_name=VARIOUS, code_volume_letters="Z-D")
        commit = await play.writers.add_compilation(release, visit)
        took = await play.answered(commit)
        found = (await play.watch.read("count_linked", id=commit.ids[0]))[0]
        outcome = f"{found.linked} of {found.credits} credits linked to artists"
        play.screen.change("add", f"{VARIOUS} – {release.album_title}", took, outcome)

    async def _count_plays(self) -> None:
        picked = await self._play.watch.read("pick_releases", count=_PLAYED)
        before = await self._play.watch.entries()
        played = await self._play.writers.count_plays([row.id for row in picked])
        recorded = await self._play.watch.entries() - before
        outcome = f"{plural(recorded, 'change')} recorded" if recorded else "nothing to ask"
        self._play.screen.change(
            "plays", f"{plural(played, 'release')} played once more", None, outcome
        )

    async def _rename(self) -> None:
        picked = await self._play.watch.read("pick_artist")
        if not picked:
            return
        former = picked[0].artist_name
        name = former.removeprefix("The ") if former.startswith("The ") else f"The {former}"[:128]
        commit = await self._play.writers.rename_artist(picked[0].artist_id, name)
        what = f"{former} → {name}"
        if len(commit.ids) > 1:
            what = f"{len(commit.ids)} × {what}"
        await self._play.show("rename", what, commit)
        for kept in await self._play.watch.read("count_former", ids=list(commit.ids)):
            self._play.screen.fact(
                "history",
                f"{former_identities(kept.states)} kept: {_REASONS.get(kept.reason, kept.reason)}",
            )

    async def _correct_title(self) -> None:
        picked = await self._play.watch.read("pick_title")
        if not picked:
            return
        title = picked[0].album_title.replace(" and ", " & ")
        commit = await self._play.writers.change_title(picked[0].id, title)
        await self._play.show("title", f"{picked[0].album_title} → {title}", commit, idle=True)

    async def _import(self) -> None:
        watch = self._play.watch
        picked = await watch.read("pick_releases", count=_NEW_TITLES)
        before = await watch.entries()
        touched, commit = await self._play.writers.import_daily([row.id for row in picked])
        recorded = await watch.entries() - before
        self._play.screen.change(
            "import",
            f"{plural(touched, 'release')} in one transaction",
            None,
            f"{plural(recorded, 'change')} recorded",
        )
        await self._play.show("", f"{plural(len(commit.ids), 'new title')} among them", commit)

    async def _rotate_identity(self) -> None:
        play = self._play
        play.lml.set(cool=[_COLD_IDENTITY])
        before = play.lml.counters()
        commit = await play.writers.add_rotation(lml_identity_id=_COLD_IDENTITY)
        took = await play.rotated(commit)
        after = play.lml.counters()
        refreshes = after["calls"].get("refresh", 0) - before["calls"].get("refresh", 0)
        discogs = after["discogs"]["calls"] - before["discogs"]["calls"]
        outcome = (
            f"refreshed by LML, {plural(discogs, 'Discogs call')}" if refreshes else "not asked"
        )
        play.screen.change("rotation", f"LML identity {_COLD_IDENTITY}", took, outcome)

    async def _rotate_discogs(self) -> None:
        play = self._play
        commit = await play.writers.add_rotation(discogs_release_id=_DISCOGS_RELEASE)
        took = await play.rotated(commit)
        identity = (await play.watch.read("read_rotation", id=commit.ids[0]))[0].lml_identity_id
        outcome = f"LML identity {identity}" if identity else "no LML identity, nothing to refresh"
        play.screen.change("rotation", f"Discogs release {_DISCOGS_RELEASE}", took, outcome)

    async def _delete(self) -> None:
        play = self._play
        picked = await play.watch.read("pick_identified")
        if not picked:
            return
        release = picked[0]
        before = await play.watch.entries()
        await play.writers.delete_release(release.id)
        recorded = await play.watch.entries() - before
        outcome = f"its identity and {plural(release.sources, 'source')} deleted too, "
        outcome += f"{plural(recorded, 'change')} recorded" if recorded else "nothing to ask"
        play.screen.change(
            "delete", f"{release.artist_name} – {release.album_title}", None, outcome
        )


@dataclass(frozen=True, slots=True)
class Need:
    """The seconds that a step takes; what is optional is left out first when time is short."""

    seconds: float
    optional: bool = False


def pause_before(left: float, needs: Sequence[Need]) -> float | None:
    """Return the seconds to wait before the first of the steps that remain, None to leave it out.

    `left` are the seconds until the end.
    """
    slack = left - sum(need.seconds for need in needs)
    if needs[0].seconds > left or (needs[0].optional and slack < 0):
        return None
    return min(_LONGEST_PAUSE, max(0.0, slack) / len(needs))
