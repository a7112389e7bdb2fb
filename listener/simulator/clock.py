"""The simulator's clock: real time, or a multiple of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import monotonic


class SimulatedClock:
    """Runs `factor` times as fast as real time, starting at 0 when made."""

    def __init__(self, factor: float = 1.0) -> None:
        """Start at 0; `factor` is above 0, for instance 60: a minute passes in a second."""
        self._set = (0.0, monotonic())
        self.change(factor)

    def change(self, factor: float) -> None:
        """Continue at another speed; raises ValueError unless `factor` is above 0."""
        if not factor > 0:
            text = f"the clock factor must be above 0, not {factor}"
            raise ValueError(text)
        now = self.now() if hasattr(self, "factor") else 0.0
        self.factor = factor
        self._set = (now, monotonic())

    def now(self) -> float:
        """Return the simulated seconds since the start."""
        simulated, real = self._set
        return simulated + (monotonic() - real) * self.factor

    async def sleep(self, duration: timedelta) -> None:
        """Sleep for a simulated duration."""
        if duration:
            await asyncio.sleep(duration.total_seconds() / self.factor)

    async def sleep_until(self, time: float) -> None:
        """Wait for a simulated time; return at once if it has passed."""
        if (left := time - self.now()) > 0:
            await asyncio.sleep(left / self.factor)
