"""What may go wrong in a week: late edits, an outage of LML, a daemon that dies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from listener.demo.catalogue import LONGEST_NAME, Release
from listener.demo.play import Play
from listener.domain.words import plural

_ARRIVALS = 3
_NEW_TITLES = 25


class Troubles:
    """Causes trouble, and shows how the listener handles it."""

    def __init__(self, play: Play, arrivals: Iterator[Release]) -> None:
        """Add `arrivals` to the library while LML is down."""
        self._play = play
        self._arrivals = arrivals

    async def edit_while_thinking(self) -> None:
        """Edit a release again while LML thinks about its first edit."""
        play = self._play
        picked = await play.watch.read("pick_releases", count=1)
        if not picked:
            return
        release = picked[0]
        before = play.questions()
        play.lml.set(gate="shut")
        first = _marked(release.album_title, "Mono")
        await play.writers.change_title(release.id, first)
        await play.asking()
        second = _marked(release.album_title, "Stereo")
        commit = await play.writers.change_title(release.id, second)
        play.lml.set(gate="open")
        play.screen.change("edit", f"{release.artist_name} – {first}", None, "LML is thinking")
        took, outcome = await play.answered(commit), await play.outcome(commit)
        asked = play.questions() - before
        play.screen.change("edit", f"meanwhile: {second}", took, f"{outcome}; asked {asked} times")

    async def outage(self, seconds: float) -> None:
        """Have LML refuse every call while new releases arrive."""
        play, loop = self._play, asyncio.get_running_loop()
        refused = _refused(play)
        play.lml.set(faults=[{"name": "status", "status": 503}])
        began = loop.time()
        play.screen.fact("outage", "LML answers 503 to every call")
        commits = []
        for _ in range(_ARRIVALS):
            release = next(self._arrivals)
            commits.append((release, await play.writers.add_release(release)))
            await asyncio.sleep(seconds / _ARRIVALS)
        waiting = (await play.watch.read("read_progress"))[0].waiting
        play.lml.set(clear_faults=True)
        refused = _refused(play) - refused
        play.screen.change(
            "outage",
            f"LML is back after {loop.time() - began:.1f} s",
            None,
            f"{plural(refused, 'call')} refused, {plural(waiting, 'change')} kept in the outbox",
        )
        for release, commit in commits:
            await play.show("add", f"{release.artist_name} – {release.album_title}", commit)

    async def kill(self) -> None:
        """Kill the daemon while LML thinks about its questions, and start another one."""
        play, loop = self._play, asyncio.get_running_loop()
        picked = await play.watch.read("pick_releases", count=_NEW_TITLES)
        before = play.questions()
        play.lml.set(gate="shut")
        commit = await play.writers.remaster([row.id for row in picked])
        await play.asking()
        holders, pid = await play.watch.holders(), play.daemon.pid
        play.daemon.kill()
        killed = loop.time()
        asked = play.questions() - before
        waiting = (await play.watch.read("read_progress"))[0].waiting
        play.daemon.start()
        play.lml.set(gate="open")
        play.screen.change(
            "kill -9",
            f"daemon {pid}",
            None,
            f"LML has {plural(asked, 'question')}, the outbox has {plural(waiting, 'change')}",
        )
        following = await play.watch.followed(holders)
        play.screen.change(
            "restart",
            f"daemon {play.daemon.pid}",
            None,
            f"following again {following - killed:.1f} s after the kill",
        )
        await play.show("import", plural(len(commit.ids), "new title"), commit)


def _marked(title: str, mark: str) -> str:
    return f"{title[: LONGEST_NAME - len(mark) - 3]} ({mark})"


def _refused(play: Play) -> int:
    return int(play.lml.counters()["statuses"].get("bulk 503", 0))
