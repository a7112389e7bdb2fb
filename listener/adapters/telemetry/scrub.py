"""Removes secrets and row contents from what is about to be sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_GONE = "[scrubbed]"
# Removing a shorter one would mangle ordinary words, and it is no secret.
_SHORTEST_SECRET = 4
_CREDENTIALS = (
    (re.compile(r"\b(bearer|basic)\s+[^\s\"',;]+", re.IGNORECASE), rf"\1 {_GONE}"),
    (re.compile(r"\b(postgres(?:ql)?)://\S+", re.IGNORECASE), rf"\1://{_GONE}"),
    # A password may contain any character: everything up to the last @ of the word counts.
    (re.compile(r"\b([a-z][a-z0-9+.-]*)://\S+@", re.IGNORECASE), rf"\1://{_GONE}@"),
    (
        re.compile(
            r"\b([\w-]*(?:password|passwd|pwd|secret|token|api[_-]?key))\s*[=:]\s*"
            r"(?:'[^']*'|\"[^\"]*\"|\S+)",
            re.IGNORECASE,
        ),
        rf"\1={_GONE}",
    ),
)

_TOP = frozenset(
    (
        "event_id",
        "timestamp",
        "start_timestamp",
        "type",
        "level",
        "platform",
        "release",
        "environment",
        "server_name",
        "sdk",
        "message",
        "fingerprint",
        "tags",
        "transaction",
        "transaction_info",
        "contexts",
        "exception",
        "spans",
    )
)
_CONTEXTS = frozenset(("trace", "listener"))
_FRAME = frozenset(("filename", "lineno", "function", "in_app"))


class Scrubber:
    """Passes only fields that are known to hold no contents, and removes credentials from them.

    Removes known `secrets` everywhere, and others by their form. Anything that a later version of
    the SDK adds (locals, source lines, exception messages, breadcrumbs, requests) is left out.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first: one may be part of another.
        known = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def event(self, event: Mapping[str, Any], _hint: object = None) -> dict[str, Any]:
        """Return the parts of an event or transaction that may be sent."""
        kept = {name: value for name, value in event.items() if name in _TOP}
        if "contexts" in kept:
            contexts = dict(kept["contexts"])
            kept["contexts"] = {name: contexts[name] for name in contexts if name in _CONTEXTS}
        if "exception" in kept:
            message = kept.get("message")
            values = [_exception(each, message) for each in kept["exception"]["values"]]
            kept["exception"] = {"values": values}
        if "spans" in kept:
            kept["spans"] = [_span(span) for span in kept["spans"]]
        cleaned: dict[str, Any] = self._clean(kept)
        return cleaned

    def text(self, text: str) -> str:
        """Return a text without credentials."""
        if self._known is not None:
            text = self._known.sub(_GONE, text)
        for pattern, instead in _CREDENTIALS:
            text = pattern.sub(instead, text)
        return text

    def _clean(self, value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self._clean(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(part) for part in value]
        return value


def _exception(exception: Mapping[str, Any], message: object) -> dict[str, Any]:
    frames = (exception.get("stacktrace") or {}).get("frames") or []
    places = [{name: frame[name] for name in frame if name in _FRAME} for frame in frames]
    # The message of an exception may quote a row; ours says what was being done.
    return {"type": exception.get("type"), "value": message, "stacktrace": {"frames": places}}


def _span(span: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {
        name: value
        for name, value in (span.get("data") or {}).items()
        if type(value) in (int, float)
    }
    return {**span, "data": numbers}
