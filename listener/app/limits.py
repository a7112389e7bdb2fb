"""What one process may hold and ask of LML, as the settings allow."""

from __future__ import annotations

from datetime import timedelta

from listener.adapters.lml.client import LmlLimits
from listener.domain.budget import RefreshLimits
from listener.domain.room import RoomLimits
from listener.engine.tenure import ConsumerLimits
from listener.settings import Settings

# Beside the batches that LML is asked about, those being read and written: no call waits for them.
BATCHES_ASIDE = 3
# Batches waiting to be handled at all.
_BATCHES_WAITING = 4
REFRESH_CALLS = 1
# Those for changes, and the one of a walk.
_ROTATION_CALLS = REFRESH_CALLS + 1


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
