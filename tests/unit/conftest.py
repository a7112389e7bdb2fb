"""The event loop of the unit tests, whose time passes only while all tasks wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import pytest
from hypothesis import settings
from structlog.testing import capture_logs

from tests.unit.clock import VirtualLoop

# `--hypothesis-profile=long` searches for minutes rather than for a moment.
settings.register_profile("quick", max_examples=25, stateful_step_count=30, deadline=None)
settings.register_profile("long", max_examples=3000, stateful_step_count=60, deadline=None)
settings.load_profile("quick")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect log entries; printing them takes longer than the tests."""
    with capture_logs() as events:
        yield events
