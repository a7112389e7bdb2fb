"""The clock of the loops."""

from __future__ import annotations

import asyncio


def now() -> float:
    """Return the running loop's monotonic time, in seconds."""
    return asyncio.get_running_loop().time()
