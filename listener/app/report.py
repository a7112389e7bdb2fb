"""What is seen, as JSON: the same for commands and for the page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any


def dumped(seen: dict[str, Any]) -> str:
    """Return one line of JSON of what may hold times."""
    return json.dumps(seen, default=utc)


def utc(value: object) -> str:
    """Return a time as JSON has it; anything else has no place there."""
    if not isinstance(value, datetime):
        message = f"{value!r} has no place in JSON"
        raise TypeError(message)
    return value.astimezone(UTC).isoformat()
