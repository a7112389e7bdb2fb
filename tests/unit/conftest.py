"""The loop of the unit tests: time passes as soon as nobody has anything else to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.unit.clock import VirtualLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    return {"virtual": VirtualLoop}
