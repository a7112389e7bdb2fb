"""What the simulated LML accepts: parsing and checking of request bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from listener.simulator.faults import Endpoint

MOST_INPUTS = 1000
MOST_IDENTITIES = 50
INT4_MAX = 2**31 - 1

_Id = Annotated[int, Field(strict=True, ge=1)]
_Digits = Annotated[str, StringConstraints(strict=True, pattern=r"^[1-9][0-9]*$")]


class BulkInput(TypedDict):
    """One row of a bulk request."""

    library_id: _Id
    artist_name: str
    album_title: str
    legacy_release_id: NotRequired[Annotated[int, Field(strict=True)] | None]


class _BulkRequest(TypedDict):
    inputs: Annotated[list[BulkInput], Field(min_length=1)]
    include_tracks: NotRequired[bool]


class _RefreshRequest(TypedDict):
    identity_ids: Annotated[list[_Id], Field(min_length=1)]


class _MintRequest(TypedDict):
    kind: Literal["release"]
    source: Annotated[str, Field(min_length=1)]
    external_id: _Digits


class Rejection(NamedTuple):
    """Why a request is refused: its status, and for the body a message and details."""

    status: int
    message: str
    details: Any = None


@dataclass(slots=True)
class Asked:
    """What a call asks, as far as its body could be read; `rejection` says why it is refused."""

    endpoint: Endpoint
    inputs: list[BulkInput] = field(default_factory=list)
    with_tracks: bool = False
    identity_ids: list[int] = field(default_factory=list)
    source: str = ""
    external_id: str = ""
    rejection: Rejection | None = None

    def rows(self) -> Iterable[tuple[int, str | None]]:
        """Return (id, artist name) of everything asked."""
        if self.inputs:
            return [(row["library_id"], row["artist_name"]) for row in self.inputs]
        return [(identity_id, None) for identity_id in self.identity_ids]


def parse(endpoint: Endpoint, body: bytes) -> Asked:
    """Read a request body; never raises: `rejection` says what is wrong with it."""
    reader = _READERS.get(endpoint)
    if reader is None:
        return Asked(endpoint)
    try:
        return reader(body)
    except ValidationError as error:
        return Asked(endpoint, rejection=_invalid(error))


def _read_bulk(body: bytes) -> Asked:
    request = _BULK.validate_json(body)
    inputs = request["inputs"]
    asked = Asked(Endpoint.BULK, inputs, with_tracks=request.get("include_tracks", False))
    if len(inputs) > MOST_INPUTS:
        asked.rejection = Rejection(413, f"at most {MOST_INPUTS} inputs, not {len(inputs)}")
    elif _has_large_id(inputs):
        asked.rejection = Rejection(503, "entity store unavailable")
    elif b"\\u0000" in body and _has_nul(inputs):
        asked.rejection = Rejection(500, "Internal Server Error")
    return asked


def _read_refresh(body: bytes) -> Asked:
    asked = Asked(Endpoint.REFRESH, identity_ids=_REFRESH.validate_json(body)["identity_ids"])
    if len(asked.identity_ids) > MOST_IDENTITIES:
        text = f"at most {MOST_IDENTITIES} identity_ids, not {len(asked.identity_ids)}"
        asked.rejection = Rejection(400, text)
    elif max(asked.identity_ids) > INT4_MAX:
        asked.rejection = Rejection(503, "entity store unavailable")
    return asked


def _read_mint(body: bytes) -> Asked:
    request = _MINT.validate_json(body)
    return Asked(Endpoint.MINT, source=request["source"], external_id=request["external_id"])


def _has_large_id(inputs: list[BulkInput]) -> bool:
    largest = max([row["library_id"] for row in inputs])
    legacy = max([abs(row.get("legacy_release_id") or 0) for row in inputs])
    return max(largest, legacy) > INT4_MAX


def _has_nul(inputs: list[BulkInput]) -> bool:
    return any("\x00" in row["artist_name"] + row["album_title"] for row in inputs)


def _invalid(error: ValidationError) -> Rejection:
    """Like LML, echo what was wrong: the details carry the caller's own inputs."""
    details = error.errors(include_url=False, include_context=False)
    if details[0]["type"] == "json_invalid":
        return Rejection(400, "the body is not JSON")
    return Rejection(422, "invalid request", details)


_BULK = TypeAdapter(_BulkRequest)
_REFRESH = TypeAdapter(_RefreshRequest)
_MINT = TypeAdapter(_MintRequest)
_READERS: dict[Endpoint, Callable[[bytes], Asked]] = {
    Endpoint.BULK: _read_bulk,
    Endpoint.REFRESH: _read_refresh,
    Endpoint.MINT: _read_mint,
}
