"""Asks LML a given number of times, whatever it answers; prints what that cost this process."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from listener.adapters.lml.client import LmlClient, LmlLimits, open_lml
from listener.domain.faults import BatchRefusedError, LmlUnavailableError
from listener.domain.question import Question
from listener.settings import Settings

QUESTIONS = [Question(row, f"Artist {row}", "Album", row, b"") for row in range(1, 501)]
IDENTITIES = range(1, 51)
# How many ask at once, where the largest pages of compilations are asked about.
TOGETHER = 5
_BOUNDS: list[Any] = Settings.model_fields["va_batch_size"].metadata
(LARGEST,) = (bound.le for bound in _BOUNDS if hasattr(bound, "le"))


async def ask(lml: LmlClient, what: str, kept: list[Exception]) -> None:
    """Ask once; an error is kept, with all that it holds."""
    try:
        match what:
            case "refresh":
                await lml.refresh(IDENTITIES)
            case "mint":
                await lml.mint(7)
            case "rows":
                await (await lml.ask(QUESTIONS, once=True)).read()
            case _:
                page = QUESTIONS[: LARGEST if what == "most" else 100]
                await (await lml.ask(page, with_tracks=True, once=True)).read()
    except (LmlUnavailableError, BatchRefusedError) as error:
        kept.append(error)


async def longest_turn() -> float:
    """Return the most seconds of CPU that passed between two turns of the loop, once cancelled."""
    longest, before = 0.0, time.process_time()
    try:
        while True:
            await asyncio.sleep(0)
            now = time.process_time()
            longest, before = max(longest, now - before), now
    except asyncio.CancelledError:
        return longest


async def main(url: str, what: str, times: int) -> None:
    """Make the calls with the client as the daemon has it."""
    limits = LmlLimits(
        connections=TOGETHER,
        attempts=1,
        resolve_timeout=timedelta(seconds=60),
        refresh_timeout=timedelta(seconds=60),
        reply_bytes=Settings.model_fields["lml_max_reply_bytes"].default,
    )
    kept: list[Exception] = []
    async with open_lml(url, None, limits) as lml, asyncio.TaskGroup() as tasks:
        turning = tasks.create_task(longest_turn())
        at_once = TOGETHER if what == "most" else 1
        for _ in range(times):
            await asyncio.gather(*(ask(lml, what, kept) for _ in range(at_once)))
        turning.cancel()
    # Of this program alone: what getrusage returns includes the process that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    failed = sorted({type(error).__name__ for error in kept})
    report = {"failures": len(kept), "kinds": failed, "peak": peak, "turn": turning.result()}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    # What waits for the collector may wait for long.
    gc.disable()
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
