"""An event loop whose time is virtual, and waiting for facts on it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            message = "deadlock: every task waits for another one"
            raise RuntimeError(message)
        # As in real time, no two turns of the loop happen at the same moment.
        self.now += max(1e-6, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Advances its clock to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, for tests that Hypothesis calls repeatedly."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def now() -> float:
    return asyncio.get_running_loop().time()


async def eventually(fact: Callable[[], object], within: float = 60.0) -> None:
    """Let virtual time pass until a fact is true, for at most `within` seconds."""
    deadline, pause = now() + within, 0.0005
    while not fact():
        assert now() < deadline, f"did not come true within {within} s"
        pause = min(0.1, pause * 1.1)
        await asyncio.sleep(pause)


async def for_a_while(seconds: float) -> None:
    """Let virtual time pass, to see that something does not happen."""
    await asyncio.sleep(seconds)
