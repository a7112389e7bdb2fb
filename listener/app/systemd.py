"""Keeps systemd informed of how the daemon is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from listener.adapters.systemd import listens, longest_silence, notify
from listener.app.state import DaemonState
from listener.domain.pulse import is_alive
from listener.engine.supervisor import in_background, keep_doing

_EVERY, _NOT_OFTENER = timedelta(seconds=10), timedelta(seconds=0.1)
# More than one look must find a loop that stands still before systemd kills the daemon.
_LOOKS = 4


@asynccontextmanager
async def informing_systemd(state: DaemonState) -> AsyncIterator[None]:
    """Report that the daemon is ready, then whether it is alive, for the length of the block."""
    if not listens():
        yield
        return
    silence = longest_silence()
    every = _EVERY if silence is None else max(_NOT_OFTENER, min(_EVERY, silence / _LOOKS))

    async def report() -> timedelta:
        status = f"STATUS={'; '.join(state.unready()) or 'ready'}"
        notify(status, *(["WATCHDOG=1"] if is_alive(state.pulses()) else []))
        return every

    notify("READY=1")
    async with in_background(keep_doing("reports to systemd", report)):
        yield
