"""Turns logged errors into Sentry events, once per cause."""

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
# More causes at a time belong to one storm, and these are enough to explain it.
_CAUSES = 20

# The fields that may be sent: counts, ids, and words of our own; never text from outside.
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
# Errors while sending must not cause more sending.
_OWN = ("sentry_sdk", "urllib3")


@dataclass(slots=True)
class _Cause:
    reported_at: float
    repeats: int = 0


class ErrorReporter(logging.Handler):
    """A log handler that captures errors, each cause once in ten minutes.

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
        """Capture a logged error; of a library's own error, only the library's name."""
        if record.name.startswith(_OWN):
            return
        # Nothing is left to report to: an error in here must not cause the next one.
        with suppress(Exception):
            fields = record.msg if isinstance(record.msg, Mapping) else {}
            event = str(fields.get("event", f"error logged by {record.name}"))
            error = record.exc_info[1] if record.exc_info else sys.exception()
            self._report(event, error, fields)

    def report(self, event: str, error: BaseException, **fields: object) -> None:
        """Capture an error that is not logged; `event` is constant text."""
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
        """Return how many repeats were held back, or None if this one is to be held back, too."""
        now, quiet = self._now(), _QUIET.total_seconds()
        known = self._causes.get(cause)
        if known is not None and now - known.reported_at < quiet:
            known.repeats += 1
            return None
        recent = {c: last for c, last in self._causes.items() if now - last.reported_at < quiet}
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
