"""Tries again what failed, once its time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

import structlog

from listener.domain.change import Batch
from listener.domain.faults import StoreUnavailableError
from listener.domain.pacing import Backoff
from listener.engine.circuit import Circuit
from listener.engine.outcome import BatchOutcome

_log = structlog.stdlib.get_logger()

_EVERY = timedelta(seconds=1)
_BROKEN = Backoff(first=timedelta(seconds=2), most=timedelta(minutes=1))
_ASK_RELEASE_EVERY = timedelta(minutes=1)


@dataclass(eq=False)
class Retrier:
    """Hands rows that failed to the handler of changes, in batches of their own.

    `due` returns up to so many rows whose time has come. `circuit` is shared with all that ask the
    same of LML.
    """

    due: Callable[[int], Awaitable[Sequence[int]]]
    handle: Callable[[Batch], Awaitable[BatchOutcome]]
    circuit: Circuit
    _: KW_ONLY
    batch_size: int

    async def run(self) -> None:
        """Go on until cancelled; nothing that goes wrong here stops the changes."""
        broken = 0
        while True:
            pause = _EVERY
            try:
                if await self._retry():
                    pause = timedelta()
                broken = 0
            except StoreUnavailableError as fault:
                broken += 1
                pause = _BROKEN.delay(broken)
                _log.warning("retries wait for the database", reason=str(fault), failures=broken)
            except Exception:  # noqa: BLE001 - what fails again must never stop following changes
                broken += 1
                pause = _BROKEN.delay(broken)
                _log.exception("retrying broke, it begins again", failures=broken)
            await asyncio.sleep(pause.total_seconds())

    async def _retry(self) -> bool:
        """Retry one batch of rows; return whether there may be more at once."""
        if self.circuit.silence():
            return False
        rows = await self.due(self.batch_size)
        if not rows:
            return False
        # Others may have asked, and failed, meanwhile.
        if self.circuit.silence():
            return False
        most = self.circuit.begin_trial()
        outcome = await self.handle(Batch(dict.fromkeys(rows[:most], ())))
        if isinstance(outcome.fault, StoreUnavailableError):
            raise outcome.fault
        # Settled rows are answered or have a later time: without one the same rows came again.
        return len(rows) == self.batch_size and bool(outcome.settled) and outcome.fault is None


@dataclass(eq=False)
class ReleaseWatch:
    """Has every row that failed asked again when another release of LML is deployed.

    `release` returns LML's version and commit, None if it names none; `note` returns how many rows
    are asked again because of them.
    """

    release: Callable[[], Awaitable[str | None]]
    note: Callable[[str], Awaitable[int]]

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailableError as fault:
                _log.debug("LML's release is not noted", reason=str(fault))
            except Exception:  # noqa: BLE001 - this must never stop following changes
                _log.exception("LML's release could not be noted")
            await asyncio.sleep(_ASK_RELEASE_EVERY.total_seconds())

    async def look(self) -> None:
        """Look once; raises `StoreUnavailableError`."""
        release = await self.release()
        if release is None:
            return
        if rows := await self.note(release):
            _log.info("LML has another release, asking again what failed", rows=rows)
