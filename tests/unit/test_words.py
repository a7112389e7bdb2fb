"""The units of durations, in settings and in messages."""

from __future__ import annotations

from datetime import timedelta

import pytest

from listener.domain.words import SPOKEN, WRITTEN, span
from listener.settings import Settings
from listener.settings.bounds import shown


@pytest.mark.parametrize("unit", WRITTEN)
def test_duration_survives_writing_and_reading(unit: str) -> None:
    duration = 7 * timedelta(seconds=WRITTEN[unit])
    assert shown(duration) == f"7{unit}"
    field = "linger" if unit == "ms" else "audit_interval"
    settings = Settings.model_validate(
        {
            "database_url": "postgresql://nowhere/nothing",
            "library_metadata_url": "http://lml.example",
            field: f"7{unit}",
        }
    )
    assert getattr(settings, field) == duration


@pytest.mark.parametrize("unit", SPOKEN)
def test_messages_use_the_largest_unit_that_fits(unit: str) -> None:
    assert span(3 * timedelta(seconds=SPOKEN[unit])) == f"3 {unit}"


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(days=6, hours=23), "7 d"),
        (timedelta(hours=36), "36 h"),
        (timedelta(seconds=90), "90 s"),
        (timedelta(seconds=-1), "0 s"),
    ],
)
def test_messages_round_to_the_nearest(duration: timedelta, words: str) -> None:
    assert span(duration) == words
