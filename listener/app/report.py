"""What was seen as JSON, the same for commands and for the page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any


def dumped(seen: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Return one line of JSON; the values may include times."""
    return json.dumps(seen, default=utc)


def utc(value: object) -> str:
    """Return a time as a JSON string; raises `TypeError` for anything else."""
    if not isinstance(value, datetime):
        message = f"{value!r} cannot be written as JSON"
        raise TypeError(message)
    return value.astimezone(UTC).isoformat()
