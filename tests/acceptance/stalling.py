"""`listener` whose loops can be stopped by signals, for tests of what notices it.

SIGUSR1 stops the loops that read the outbox, SIGUSR2 those that hand out batches; SIGHUP blocks
the whole event loop for half a minute.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from listener.cli import main
from listener.engine.feeder import Feeder
from listener.engine.tenure import Tenure


def stop_on(number: signal.Signals, owner: type, name: str) -> None:
    """Have a method never return once the signal has come."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    stopped = threading.Event()

    async def stoppable(self: object, *arguments: Any) -> Any:  # noqa: ANN401 - as it was
        if stopped.is_set():
            await asyncio.Event().wait()
        return await original(self, *arguments)

    setattr(owner, name, stoppable)
    signal.signal(number, lambda *_: stopped.set())


def block(*_: object) -> None:
    """Keep the only thread of the loop busy."""
    threading.Event().wait(30)


if __name__ == "__main__":
    stop_on(signal.SIGUSR1, Feeder, "_look")
    stop_on(signal.SIGUSR2, Tenure, "_next_batch")
    signal.signal(signal.SIGHUP, block)
    main()
