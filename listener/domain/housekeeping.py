"""Housekeeping: what is cleared out because nobody needs it any more."""

from __future__ import annotations

from enum import StrEnum


class Duty(StrEnum):
    """What is kept small, and how failures to do so are counted."""

    OUTBOX = "outbox"
    LEDGER = "ledger"
    RUNS = "runs"
    REFRESHES = "refreshes"
    WARMTH = "warmth"
    ROTATION_FAILURES = "rotation_failures"
    SAMPLES = "samples"
