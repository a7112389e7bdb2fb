"""The first fill: a whole catalogue at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from listener.demo.catalogue import Release, fill
from listener.demo.play import Play, kinds
from listener.domain.words import plural

_PATIENCE = 600


async def first_fill(play: Play, dsn: str, catalogue: Sequence[Release]) -> None:
    """Put the catalogue into the library and see the listener through it."""
    loop = asyncio.get_running_loop()
    known = (await play.watch.read("check_everything"))[0].releases
    if known:
        play.screen.heading(f"The library of an earlier run: {plural(known, 'release')}")
        began, total = loop.time(), known
    else:
        total = len(catalogue)
        play.screen.heading(f"First fill: {plural(total, 'release')} in one transaction")
        fill(dsn, play.schema, catalogue)
        began = loop.time()
    with play.screen.progress("answered", total) as show:

        async def fact() -> bool:
            state = (await play.watch.read("read_progress"))[0]
            show(min(state.answered, total))
            return not state.waiting and state.answered >= total

        done = await play.watch.until(fact, "the whole library to be answered", _PATIENCE)
    found = (await play.watch.read("check_everything"))[0]
    took = None if known else timedelta(seconds=done - began)
    play.screen.fact("answered", kinds(found), took=took)
    calls = play.lml.counters()
    if asked := calls["rows"].get("bulk", 0):
        in_calls = f"in {plural(calls['calls']['bulk'], 'call')} to LML"
        together = f"at most {calls['most_in_flight']['bulk']} at a time"
        play.screen.fact("asked", f"{plural(asked, 'question')} {in_calls}, {together}")
