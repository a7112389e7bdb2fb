"""Turns what is logged as an error into an event, once per cause."""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from listener.domain.faults import first_of

_QUIET = timedelta(minutes=10)
# More causes than these at a time are one storm, and these tell enough of it.
_CAUSES = 20

# What fields may hold: counts and ids, and words that we chose; never text from outside.
_NUMBERS = frozenset(
    (
        "library_id",
        "rows",
        "count",
        "failures",
        "failed",
        "in_a_row",
        "attempt",
        "asked",
        "answered",
        "scanned",
        "next_try_in_seconds",
    )
)
_WORDS = frozenset(("stream", "job", "kind", "reason"))
_WORD = re.compile(r"[a-z][a-z_]{0,39}")
# Sending must not beget sending.
_OWN = ("sentry_sdk", "urllib3")


@dataclass(slots=True)
class _Cause:
    told_at: float
    repeats: int = 0


class ErrorReporter(logging.Handler):
    """A log handler that has errors captured, each cause once in ten minutes.

    A cause is the event, the type of the exception and the reason without its numbers.
    """

    def __init__(
        self, capture: Callable[[dict[str, Any]], object], now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(logging.ERROR)
        self._capture = capture
        self._now = now
        self._causes: dict[tuple[str, str, str], _Cause] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Capture what is logged; an event of a library shows nothing but the library's name."""
        if record.name.startswith(_OWN):
            return
        # There is nobody left to tell: an error in here must not become the next one.
        with suppress(Exception):
            fields = record.msg if isinstance(record.msg, Mapping) else {}
            event = str(fields.get("event", f"error logged by {record.name}"))
            error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
            self._report(event, error, fields)

    def report(self, event: str, error: BaseException, **fields: object) -> None:
        """Capture an error that is not logged; `event` is a constant text."""
        with suppress(Exception), self.lock or nullcontext():
            self._report(event, error, fields)

    def _report(
        self, event: str, error: BaseException | None, fields: Mapping[str, object]
    ) -> None:
        error = None if error is None else first_of(error)
        kind = type(error).__name__ if error is not None else ""
        reason = str(fields.get("reason", "" if error is None else error))
        repeats = self._due((event, kind, re.sub(r"\d+", "#", reason)))
        if repeats is None:
            return
        captured: dict[str, Any] = {
            "level": "error",
            "message": event,
            "fingerprint": [event, kind],
            "contexts": {"listener": _allowed(fields) | {"repeats": repeats}},
        }
        if error is not None:
            frames = _frames(error)
            values = [{"type": kind, "value": event, "stacktrace": {"frames": frames}}]
            captured["exception"] = {"values": values}
        self._capture(captured)

    def _due(self, cause: tuple[str, str, str]) -> int | None:
        """Return how often a cause was kept back since it was last told, or None to keep it."""
        now, quiet = self._now(), _QUIET.total_seconds()
        known = self._causes.get(cause)
        if known is not None and now - known.told_at < quiet:
            known.repeats += 1
            return None
        recent = {c: told for c, told in self._causes.items() if now - told.told_at < quiet}
        self._causes = recent
        if len(recent) >= _CAUSES:
            return None
        recent[cause] = _Cause(now)
        return known.repeats if known is not None else 0


def _frames(error: BaseException) -> list[dict[str, object]]:
    walk = traceback.walk_tb(error.__traceback__)
    return [
        {"filename": frame.f_code.co_filename, "lineno": line, "function": frame.f_code.co_name}
        for frame, line in walk
    ]


def _allowed(fields: Mapping[str, object]) -> dict[str, object]:
    numbers = {n: v for n, v in fields.items() if n in _NUMBERS and type(v) in (int, float)}
    words = {n: str(v) for n, v in fields.items() if n in _WORDS and _WORD.fullmatch(str(v))}
    return numbers | words
