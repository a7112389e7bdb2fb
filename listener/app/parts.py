"""What every command that asks LML is made of, whichever stream it asks about."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from listener.adapters.lml.client import LmlClient, open_lml
from listener.adapters.postgres.connection import Database
from listener.adapters.postgres.store import Store, open_store
from listener.app.identity import session_name
from listener.app.limits import lml_limits
from listener.domain.change import Stream
from listener.domain.latest import LatestAnswers
from listener.domain.pacing import LML_BACKOFF, Backoff
from listener.domain.retrying import RetryPolicy
from listener.engine.circuit import Circuit
from listener.engine.permits import Permits
from listener.engine.telemetry import Telemetry, TelemetryFanOut
from listener.settings import Settings

# However many calls are in flight: more would wait for the server's cores, and hold memory.
_READING, _WRITING = 4, 8
# Beside those of the batches: one for each feeder, one for each of changes, retries, searches and
# the walk, one for readings and samples.
_OTHER_SESSIONS = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """Adapters and limits, ready to be joined.

    All that asks LML about one stream shares that stream's circuit. `refreshed` counts identities
    by what LML said of them. `latest` keeps what became of changes and retries.
    """

    settings: Settings
    store: Store
    lml: LmlClient
    circuits: Mapping[Stream, Circuit]
    permits: Permits
    reading: Permits = field(default_factory=lambda: Permits(_READING))
    writing: Permits = field(default_factory=lambda: Permits(_WRITING))
    refreshed: Counter[str] = field(default_factory=Counter)
    telemetry: Telemetry = field(default_factory=TelemetryFanOut)
    latest: LatestAnswers = field(default_factory=LatestAnswers)

    @property
    def policy(self) -> RetryPolicy:
        """When a row that failed is tried again."""
        settings = self.settings
        return RetryPolicy(settings.max_attempts, timedelta(days=settings.stale_threshold_days))


@asynccontextmanager
async def open_parts(
    settings: Settings,
    name: str = "listener",
    telemetry: Telemetry | None = None,
    backoff: Backoff = LML_BACKOFF,
) -> AsyncIterator[Parts]:
    """Open the connections to the database and to LML; both may be down.

    Our sessions are named by `session_name`. `backoff` is kept towards LML while
    it fails.
    """
    database = Database(
        dsn=settings.database_url.get_secret_value(),
        backend=settings.wxyc_schema_name,
        holder=session_name(name),
    )
    key = settings.lml_api_key.get_secret_value() if settings.lml_api_key else None
    async with (
        open_store(database, _READING + _WRITING + _OTHER_SESSIONS, settings.ask_again) as store,
        open_lml(str(settings.library_metadata_url), key, lml_limits(settings)) as lml,
    ):
        yield Parts(
            settings=settings,
            store=store,
            lml=lml,
            circuits={stream: Circuit(stream, backoff) for stream in Stream},
            permits=Permits(settings.lml_max_concurrent),
            telemetry=telemetry or TelemetryFanOut(),
        )
