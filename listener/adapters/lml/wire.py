"""What LML's replies share, and the short ones: refreshed and minted identities, health."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from listener.adapters.lml.failures import MalformedReplyError
from listener.domain.refreshing import Refreshed, RefreshStatus

# PostgreSQL cannot store a NUL character; none of LML's ids and names is this long.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=2048)]
Int4 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
# Never convert a value to another type, and ignore fields that we do not know.
STRICT = ConfigDict(strict=True, extra="ignore")
# Twice as many as one question to LML may ask for.
MOST_RESULTS = 2_000

_STATUSES = frozenset(RefreshStatus)
_SUCCESS = "success"


class Wire(BaseModel):
    """The base of all replies."""

    model_config = STRICT | ConfigDict(frozen=True)


Shape = TypeVar("Shape", bound=Wire)


def parsed(shape: type[Shape], body: bytes | bytearray) -> Shape | None:
    """Return the reply, or None if it does not have this shape.

    A pydantic error holds the input, so it must not become the cause of another error.
    """
    try:
        # Parsing and validating at once takes a third of the time.
        return shape.model_validate_json(body)
    except ValidationError:
        return None


class _Artist(Wire):
    outcome: Text | None = None


class _Source(Wire):
    """What became of a release in one catalogue, and of its artists there."""

    release_outcome: Text | None = None
    artists: list[_Artist | None] | None = None


class _Refreshed(Wire):
    """One result of refresh-for-identities."""

    identity_id: Int4
    status: Text
    sources: dict[str, _Source | None] | None = None

    def refreshed(self) -> Refreshed:
        sources = [source for source in (self.sources or {}).values() if source is not None]
        artists = [
            artist.outcome
            for source in sources
            for artist in source.artists or []
            if artist is not None
        ]
        known = self.status in _STATUSES
        return Refreshed(
            identity_id=self.identity_id,
            status=RefreshStatus(self.status) if known else RefreshStatus.ERROR,
            releases=sum(source.release_outcome == _SUCCESS for source in sources),
            artists=artists.count(_SUCCESS),
            parts=len(sources) + len(artists),
            word=None if known else self.status,
        )


class _Statuses(Wire):
    # Each result is validated separately.
    results: list[Any] = Field(max_length=MOST_RESULTS)


class _Minted(Wire):
    identity_id: Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Health(Wire):
    version: Annotated[Text, StringConstraints(max_length=100)] | None = None
    commit_sha: Annotated[Text, StringConstraints(max_length=100)] | None = None


def read_refreshed(body: bytes | bytearray) -> dict[int, Refreshed]:
    """Return the result for each identity of a refresh reply.

    Leaves out malformed results, and identities with two different ones. Raises
    `MalformedReplyError` if there is no list of results.
    """
    reply = parsed(_Statuses, body)
    if reply is None:
        raise MalformedReplyError("the reply is not JSON with a list `results`")
    found: dict[int, Refreshed] = {}
    contradicted: set[int] = set()
    for item in reply.results:
        try:
            refreshed = _Refreshed.model_validate(item).refreshed()
        except ValidationError:
            continue
        if found.setdefault(refreshed.identity_id, refreshed) != refreshed:
            contradicted.add(refreshed.identity_id)
    return {i: refreshed for i, refreshed in found.items() if i not in contradicted}


def read_minted(body: bytes | bytearray) -> int:
    """Return the minted identity; raises `MalformedReplyError` if the reply has none."""
    minted = parsed(_Minted, body)
    if minted is None:
        raise MalformedReplyError("the reply names no identity")
    return minted.identity_id


def read_release(body: bytes | bytearray) -> str | None:
    """Return version and commit from a health reply, or None if it has neither."""
    health = parsed(_Health, body)
    if health is None:
        return None
    return " ".join(part for part in (health.version, health.commit_sha) if part) or None
