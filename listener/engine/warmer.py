"""Warms LML's caches for what is being played."""

from __future__ import annotations

from collections import Counter

import structlog

from listener.domain.change import Batch, Stream
from listener.domain.faults import PageRefusedError
from listener.engine.handling import Handled
from listener.engine.ports import Outbox, Rotation, Warming

_log = structlog.stdlib.get_logger()

# LML refuses more: 50 cold identities are about 200 Discogs calls, four of the edge's five minutes.
LML_REFRESH_BATCH_CAP = 50


class Warmer:
    """Has the identities of changed rotation rows refreshed."""

    def __init__(self, rotation: Rotation, warming: Warming, outbox: Outbox) -> None:
        self.statuses: Counter[str] = Counter()
        self._rotation = rotation
        self._warming = warming
        self._outbox = outbox

    async def handle(self, batch: Batch) -> Handled:
        """Warm the identities of the active rows of a batch of at most 50 rows, each once.

        Raises `LmlUnavailableError` or `StoreUnavailableError`.
        """
        identities = await self._rotation.identities(batch.row_ids)
        failed: frozenset[int] = frozenset()
        if wanted := sorted(set(identities.values())):
            try:
                statuses = await self._warming.warm(wanted)
            except PageRefusedError as fault:
                _log.warning("identities cannot be warmed", identities=wanted, fault=str(fault))
                statuses = {}
            self.statuses.update(statuses.values())
            failed = frozenset(
                row for row, asked in identities.items() if statuses.get(asked, "error") == "error"
            )
        settled = frozenset(batch.changes) - failed
        await self._outbox.settle(Stream.ROTATION, batch.entries(settled))
        return Handled(settled=settled, failed=failed)
