"""Retries failed rows when they are due again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

import structlog

from listener.domain.change import Batch, BatchOutcome
from listener.domain.faults import StoreUnavailableError
from listener.engine.circuit import Circuit
from listener.engine.supervisor import keep_doing

_log = structlog.stdlib.get_logger()

_EVERY = timedelta(seconds=1)
_LOOK_EVERY = timedelta(minutes=1)

_Ask = Callable[[], Awaitable[str | None]]
_Note = Callable[[str], Awaitable[int]]


@dataclass(eq=False)
class Retrier:
    """Hands failed rows to the handler of changes, in batches of their own.

    `due` returns up to the given number of rows that are due for a retry. `circuit` is shared by
    all callers of the stream.
    """

    due: Callable[[int], Awaitable[Sequence[int]]]
    handle: Callable[[Batch], Awaitable[BatchOutcome]]
    circuit: Circuit
    _: KW_ONLY
    batch_size: int

    async def run(self) -> None:
        """Run until cancelled."""
        await keep_doing("retries", self._retry)

    async def _retry(self) -> timedelta:
        """Retry one batch of rows; return how long to wait before the next."""
        if self.circuit.paused_for():
            return _EVERY
        rows = await self.due(self.batch_size)
        # Another call may have failed meanwhile.
        if not rows or self.circuit.paused_for():
            return _EVERY
        most = self.circuit.begin_trial()
        outcome = await self.handle(Batch(dict.fromkeys(rows[:most], ())))
        if isinstance(outcome.fault, StoreUnavailableError):
            raise outcome.fault
        # Settled rows are answered or have a later retry time; others would be due at once.
        more = len(rows) == self.batch_size and outcome.settled and outcome.fault is None
        return timedelta() if more else _EVERY


async def note_release(release: _Ask, note: _Note) -> None:
    """Make every failed row due if LML is deployed in another release.

    `release` returns LML's version and commit, None if LML reports none. `note` records them and
    returns how many rows became due; raises `StoreUnavailableError`.
    """
    deployed = await release()
    if deployed is None:
        return
    if rows := await note(deployed):
        _log.info("new LML release, retrying failed rows", rows=rows)


async def watch_releases(release: _Ask, note: _Note) -> None:
    """Do so at once and every minute until cancelled."""

    async def look() -> timedelta:
        await note_release(release, note)
        return _LOOK_EVERY

    await keep_doing("watch over LML's release", look)
