"""A simulator in a process of its own, for benches and the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx

STOP_SECONDS = 5


class SimulatorProcess:
    """Moves the switches of a simulator in another process, and reads its counters."""

    def __init__(self, url: str, pid: int) -> None:
        """Talk to the simulator at `url`."""
        self.url = url
        self.pid = pid
        self._control = f"{url}/_simulator"

    def set(self, **switches: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
        """Set switches as `control.apply_switches` names them; return the counters.

        Raises httpx.HTTPStatusError when the simulator does not know one.
        """
        reply = httpx.post(self._control, json=switches, trust_env=False).raise_for_status()
        return cast("dict[str, Any]", reply.json())

    def counters(self) -> dict[str, Any]:
        """Return the counters; see `Simulator.counters`."""
        reply = httpx.get(self._control, trust_env=False).raise_for_status()
        return cast("dict[str, Any]", reply.json())


@contextmanager
def simulator_process(
    *,
    port: int = 0,
    kept_rows: int = 0,
    **switches: Any,  # noqa: ANN401 - JSON values
) -> Iterator[SimulatorProcess]:
    """Run a simulator in its own process for the length of the block.

    `switches` as for `SimulatorProcess.set`. The process ends with the block, and also when this
    process dies. Raises RuntimeError if it does not start; its words are on standard error.
    """
    command = [sys.executable, "-m", "listener.simulator"]
    command += ["--port", str(port), "--kept-rows", str(kept_rows), "--stdin"]
    command += ["--switches", json.dumps(switches)]
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield SimulatorProcess(_url(process), process.pid)
        finally:
            process.terminate()
            _end(process)


def _url(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        text = f"the simulator ended with {process.wait()} instead of printing its URL"
        raise RuntimeError(text)
    return line.strip()


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
