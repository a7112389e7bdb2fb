"""What one process may ask of LML, as the settings allow."""

from __future__ import annotations

from datetime import timedelta

from listener.adapters.lml.client import LmlLimits
from listener.domain.budget import RefreshLimits
from listener.settings import Settings

# One for changes, and one of a walk.
_ROTATION_CALLS = 2


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
