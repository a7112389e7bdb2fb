"""Telemetry where nobody is listening."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from listener.domain.refreshing import RotationTally
from listener.domain.tally import Tally


class NoTelemetry:
    """Tells nobody."""

    def run(self, _kind: str, _tally: Tally | RotationTally, /) -> AbstractContextManager[None]:
        """Let the block run."""
        return nullcontext()

    def refresh(self, _identities: int, /) -> AbstractContextManager[None]:
        """Let the block run."""
        return nullcontext()

    def call(
        self, _batch_size: int, /
    ) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
        """Let the block run."""
        return nullcontext(lambda _cache_stats: None)

    def windows(self, _tally: Tally, /) -> AbstractContextManager[None]:
        """Let the block run."""
        return nullcontext()
