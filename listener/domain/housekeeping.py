"""Housekeeping: clearing out what is no longer needed."""

from __future__ import annotations

from enum import StrEnum


class Duty(StrEnum):
    """The tables that housekeeping keeps small; its failures are counted under these names."""

    OUTBOX = "outbox"
    LEDGER = "ledger"
    RUNS = "runs"
    REFRESHES = "refreshes"
    WARMTH = "warmth"
    ROTATION_FAILURES = "rotation_failures"
    SAMPLES = "samples"
