"""What can go wrong with the simulated LML, and for which calls it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from random import Random
from threading import Lock
from typing import Any, Literal


class Endpoint(StrEnum):
    """The endpoints, as calls are counted and faults are aimed; `other` is every unknown path."""

    BULK = "bulk"
    REFRESH = "refresh"
    MINT = "mint"
    HEALTH = "health"
    OTHER = "other"


class FaultName(StrEnum):
    """Every fault. The first group replaces the answer, the second spoils an honest one."""

    STATUS = "status"
    SLOW = "slow"
    RESET = "reset"
    RESET_MIDWAY = "reset_midway"
    CUT = "cut"
    HANG = "hang"
    DRIP = "drip"
    TRUNCATED_JSON = "truncated_json"
    NOT_JSON = "not_json"
    INVALID_UTF8 = "invalid_utf8"
    EMPTY_BODY = "empty_body"
    HTML = "html"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    REDIRECT = "redirect"
    GZIP = "gzip"
    GZIP_BOMB = "gzip_bomb"
    HUGE_BODY = "huge_body"
    HUGE_DECLARED = "huge_declared"

    LIST_DOCUMENT = "list_document"
    NO_RESULTS = "no_results"
    NULL_RESULTS = "null_results"
    OBJECT_RESULTS = "object_results"
    EMPTY_RESULTS = "empty_results"
    JUNK_CACHE_STATS = "junk_cache_stats"
    NO_CONTRACT_VERSION = "no_contract_version"
    SHORT = "short"
    FOREIGN = "foreign"
    REPEATED = "repeated"
    CONFLICTING = "conflicting"
    PERMUTED = "permuted"
    NOT_AN_OBJECT = "not_an_object"
    NULL_ID = "null_id"
    TEXT_ID = "text_id"
    BIG_ID = "big_id"
    WRONG_TYPES = "wrong_types"
    NAN = "nan"
    INFINITY = "infinity"
    CONFIDENCE_HIGH = "confidence_high"
    CONFIDENCE_LOW = "confidence_low"
    NUL = "nul"
    LONG_TEXT = "long_text"
    BIG_INT = "big_int"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_METHOD = "unknown_method"
    UNKNOWN_SOURCE = "unknown_source"
    NO_MAIN = "no_main"
    NO_METHOD = "no_method"
    NO_CONFIDENCE = "no_confidence"
    NO_PROVENANCE = "no_provenance"
    NULL_PROVENANCE = "null_provenance"
    PROVENANCE_NAN = "provenance_nan"
    PROVENANCE_HIGH = "provenance_high"
    PROVENANCE_NUL = "provenance_nul"
    PROVENANCE_LONG = "provenance_long"
    REPEATED_SOURCE = "repeated_source"
    DISAGREEING = "disagreeing"
    TRACKS_NOT_ATTEMPTED = "tracks_not_attempted"
    TRACKS_WRONG_TYPES = "tracks_wrong_types"
    UNKNOWN_STATUS = "unknown_status"
    NULL_SOURCES = "null_sources"
    NULL_SOURCE = "null_source"
    NULL_ARTISTS = "null_artists"
    NULL_ARTIST = "null_artist"
    EMPTY_ARTISTS = "empty_artists"


BodyKind = Literal["message", "detail", "html", "text", "empty"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One switch: what goes wrong (`name`), for which calls, and with which details.

    A call is hit when everything given holds: its `endpoint`; one of its artist names contains
    `artist`; one of its ids is in `ids`; it asked `with_tracks` or not; then chance, by
    `probability`; `calls` times (None: until cleared). `wait` passes before the fault acts.

    Details: `status`, `body`, `text` (the body itself) and `retry_after` for `status`; `size` in
    bytes for huge bodies, bombs, long texts and the pieces of a drip, `interval` between those
    pieces; `location` for `redirect`; `rows` says how many results a reply fault spoils (None:
    all) when neither `artist` nor `ids` picks them.
    """

    name: FaultName
    endpoint: Endpoint | None = None
    calls: int | None = None
    probability: float = 1.0
    artist: str | None = None
    ids: frozenset[int] = frozenset()
    with_tracks: bool | None = None
    wait: timedelta = timedelta()
    status: int = 503
    body: BodyKind | None = None
    text: str | None = None
    retry_after: str | None = None
    size: int | None = None
    interval: timedelta = timedelta(milliseconds=50)
    location: str = "/elsewhere"
    rows: int | None = 1

    def picks(self, row_id: int, artist_name: str | None) -> bool:
        """Return whether the fault is aimed at this row."""
        if self.ids and row_id not in self.ids:
            return False
        return self.artist is None or self.artist in (artist_name or "")

    @property
    def is_aimed(self) -> bool:
        """Whether the fault names rows."""
        return bool(self.ids) or self.artist is not None


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.fault.calls


class Faults:
    """The armed faults; the oldest that hits a call is the one it gets. Safe across threads."""

    def __init__(self, seed: int = 0) -> None:
        """Start without faults; `seed` decides the chances."""
        self._lock = Lock()
        self._armed: list[_Armed] = []
        self._random = Random(seed)

    def __bool__(self) -> bool:
        """Return whether any fault is armed."""
        return bool(self._armed)

    def add(self, name: str | Fault, **details: Any) -> Fault:  # noqa: ANN401
        """Arm a fault, given whole or as its name and `Fault`'s fields; return it."""
        if isinstance(name, Fault):
            fault = name
        else:
            endpoint = Endpoint(details.pop("endpoint")) if details.get("endpoint") else None
            ids = frozenset(details.pop("ids", ()))
            fault = Fault(FaultName(name), endpoint, ids=ids, **details)
        with self._lock:
            self._armed.append(_Armed(fault))
        return fault

    def clear(self, name: str | None = None) -> None:
        """Disarm all faults, or those of one name."""
        with self._lock:
            self._armed = [armed for armed in self._armed if name and armed.fault.name != name]

    def active(self) -> list[Fault]:
        """Return the faults that can still hit."""
        with self._lock:
            return [armed.fault for armed in self._armed]

    def take(
        self, endpoint: Endpoint, rows: Iterable[tuple[int, str | None]], *, with_tracks: bool
    ) -> Fault | None:
        """Return the fault that this call gets and count it; `rows` are (id, artist name)."""
        asked = tuple(rows)
        with self._lock:
            for armed in self._armed:
                if self._hits(armed.fault, endpoint, asked, with_tracks=with_tracks):
                    return self._spend(armed)
        return None

    def _hits(
        self,
        fault: Fault,
        endpoint: Endpoint,
        rows: tuple[tuple[int, str | None], ...],
        *,
        with_tracks: bool,
    ) -> bool:
        if fault.endpoint not in {None, endpoint}:
            return False
        if fault.with_tracks not in {None, with_tracks}:
            return False
        if fault.is_aimed and not any(fault.picks(*row) for row in rows):
            return False
        return fault.probability >= 1 or self._random.random() < fault.probability

    def _spend(self, armed: _Armed) -> Fault:
        if armed.left is not None:
            armed.left -= 1
            if armed.left <= 0:
                self._armed.remove(armed)
        return armed.fault
