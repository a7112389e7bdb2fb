"""A fleet of LML processes behind a round-robin balancer, modelled in one process.

Each process has five permits, one for each row at work, which its calls share equally. Nothing
happens between the begin and the end of a call, so the model costs a few milliseconds a call,
however many rows it has; `cpu` shows whether that was ever a bottleneck.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from listener.simulator.faults import Endpoint
from listener.simulator.requests import Asked
from listener.simulator.server import serve
from listener.simulator.state import Simulator
from listener.simulator.verdicts import Knowledge

PAGE, PAGE_SECONDS = 500, 1.9


@dataclass(eq=False)
class Worker:
    """One LML process: its calls advance together, each at its share of the rate."""

    seconds_per_row: float
    _left: dict[asyncio.Future[None], float] = field(default_factory=dict, init=False)
    _since: float = field(default=0.0, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    async def spend(self, rows: int) -> None:
        """Work on the rows of a call, beside the calls that are at work already."""
        if not self.seconds_per_row:
            return
        done = asyncio.get_running_loop().create_future()
        self._advance()
        self._left[done] = rows * self.seconds_per_row
        self._plan()
        try:
            await done
        finally:
            self._advance()
            self._left.pop(done, None)
            self._plan()

    def _advance(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._left:
            each = (now - self._since) / len(self._left)
            self._left = {call: left - each for call, left in self._left.items()}
        self._since = now
        for call in [call for call, left in self._left.items() if left <= 0]:
            del self._left[call]
            if not call.done():
                call.set_result(None)

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._left:
            next_end = min(self._left.values()) * len(self._left)
            self._timer = asyncio.get_running_loop().call_later(next_end, self._end)

    def _end(self) -> None:
        self._advance()
        self._plan()


class Fleet(Simulator):
    """Hands bulk calls to its processes in turn, as a balancer does that knows nothing of them."""

    def __init__(self, processes: int, page_seconds: float) -> None:
        """Begin with idle processes."""
        super().__init__(knowledge=Knowledge(all_single=True), permits=None, kept_rows=0)
        self._turns = itertools.cycle([Worker(page_seconds / PAGE) for _ in range(processes)])

    async def work(self, asked: Asked) -> bytes:
        """Return the reply after the time that the next process takes for it."""
        if asked.endpoint is Endpoint.BULK:
            await next(self._turns).spend(len(asked.inputs))
        return await super().work(asked)


@dataclass(frozen=True, slots=True)
class RunningFleet:
    """A fleet in a process of its own."""

    url: str
    process: psutil.Process

    def cpu(self) -> float:
        """Return the seconds of CPU that it used so far."""
        return sum(self.process.cpu_times()[:2])


@contextmanager
def running_fleet(processes: int, page_seconds: float = PAGE_SECONDS) -> Iterator[RunningFleet]:
    """Run a fleet for the length of the block."""
    command = [sys.executable, "-m", "bench.fleet", str(processes), str(page_seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield RunningFleet(child.stdout.readline().strip(), psutil.Process(child.pid))
        finally:
            child.terminate()


def main() -> None:
    """Serve a fleet until the parent ends it or dies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processes", type=int)
    parser.add_argument("page_seconds", type=float)
    given = parser.parse_args()
    asyncio.run(serve(Fleet(given.processes, given.page_seconds), 0, watch_stdin=True))


if __name__ == "__main__":
    main()
