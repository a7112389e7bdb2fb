"""The parts and limits of everything that asks LML, for either stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from listener.adapters.lml.client import LmlClient, LmlLimits, open_lml
from listener.adapters.postgres.connection import Database
from listener.adapters.postgres.store import Store, open_store
from listener.app.start import session_name
from listener.domain.budget import RefreshLimits
from listener.domain.change import Stream
from listener.domain.latest import LatestAnswers
from listener.domain.pacing import LML_BACKOFF, Backoff
from listener.domain.retrying import RetryPolicy
from listener.domain.room import RoomLimits
from listener.engine.circuit import Circuit, Permits
from listener.engine.telemetry import Telemetry, TelemetryFanOut
from listener.engine.tenure import ConsumerLimits
from listener.settings import Settings

# However many calls are in flight: more would only wait for the server's cores and hold memory. So
# many batches of searches may also be read ahead of their calls.
_READING, _WRITING = 4, 8
# In addition to those of the batches: one for each feeder, one each for changes, retries, searches
# and the walk, one for readings and samples.
_OTHER_SESSIONS = 8
# Beside the batches that LML is asked about, those being read and written: no call waits for them.
BATCHES_ASIDE = 3
# Batches waiting to be handled at all.
_BATCHES_WAITING = 4
REFRESH_CALLS = 1
# Those for changes, and the one of a walk.
_ROTATION_CALLS = REFRESH_CALLS + 1


@dataclass(frozen=True, slots=True)
class Parts:
    """Adapters and limits, ready to be joined.

    All callers that ask LML about one stream share that stream's circuit. `refreshed` counts
    identities by LML's status. `latest` keeps what became of changes and retries.
    """

    settings: Settings
    store: Store
    lml: LmlClient
    circuits: Mapping[Stream, Circuit]
    permits: Permits
    ahead: Permits = field(default_factory=lambda: Permits(_READING))
    reading: Permits = field(default_factory=lambda: Permits(_READING))
    writing: Permits = field(default_factory=lambda: Permits(_WRITING))
    refreshed: Counter[str] = field(default_factory=Counter)
    telemetry: Telemetry = field(default_factory=TelemetryFanOut)
    latest: LatestAnswers = field(default_factory=LatestAnswers)

    @property
    def policy(self) -> RetryPolicy:
        """When a failed row is retried."""
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


def lml_limits(settings: Settings) -> LmlLimits:
    """Return the bounds of single calls, and how many connections they need."""
    return LmlLimits(
        connections=settings.lml_max_concurrent + _ROTATION_CALLS,
        attempts=settings.lml_attempts,
        resolve_timeout=settings.lml_timeout,
        refresh_timeout=timedelta(milliseconds=settings.backfill_lml_batch_timeout_ms),
        reply_bytes=settings.lml_max_reply_bytes,
    )


def refresh_limits(settings: Settings) -> RefreshLimits:
    """Return what all processes of this installation together may refresh."""
    limits = RefreshLimits(
        calls=settings.backfill_lml_rps,
        in_flight=settings.backfill_lml_max_concurrent,
        call_timeout=timedelta(milliseconds=settings.backfill_lml_batch_timeout_ms),
    )
    return limits.shared(settings.lml_share)


def consumer_limits(settings: Settings, batch_size: int, in_flight: int) -> ConsumerLimits:
    """Return how much of a stream is held in memory and handled at a time."""
    room = RoomLimits(
        capacity=batch_size * (in_flight + _BATCHES_WAITING),
        batch_size=batch_size,
        linger=settings.linger,
        cool_down=settings.reask_after,
        deferred_size=settings.va_batch_size,
    )
    return ConsumerLimits(room, in_flight, settings.poll_interval)


@asynccontextmanager
async def open_telemetry(settings: Settings) -> AsyncIterator[Telemetry]:
    """Report to Sentry for the length of the block; without a DSN it is not even imported."""
    if settings.sentry_dsn is None:
        yield TelemetryFanOut()
        return
    # Importing the SDK alone takes 70 ms.
    from listener.adapters.telemetry.sentry import (  # noqa: PLC0415
        SentryOptions,
        open_sentry,
    )

    options = SentryOptions(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=settings.sentry_environment,
        traces_sample_rate=settings.sentry_traces_sample_rate,
        secrets=tuple(_secrets(settings)),
    )
    async with open_sentry(options) as telemetry:
        yield telemetry


def _secrets(settings: Settings) -> Iterator[str]:
    values = [getattr(settings, name) for name in Settings.model_fields]
    addresses = [str(settings.library_metadata_url)]
    addresses += [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    yield from addresses[1:]
    for address in addresses:
        # A text that is not an address contains no password.
        with suppress(ValueError):
            parts = urlsplit(address)
            passwords = [parts.password or "", *parse_qs(parts.query).get("password", [])]
            yield from passwords
            yield from map(unquote, passwords)
