"""The story of one row of the library: its content, what was asked about it, its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import IsolationLevel

from listener.adapters.postgres.history import FormerIdentity, read_former
from listener.adapters.postgres.sessions import Connection, database_now, query, read, times_of
from listener.domain.due import AskAgain


@dataclass(frozen=True, slots=True)
class Release:
    """The current content of the row."""

    artist_name: str | None
    album_title: str
    code_volume_letters: str | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Changes of the row in the outbox, who follows the library, and that daemon's LML trouble."""

    waiting: int
    first_at: datetime | None
    last_at: datetime | None
    holder: str | None
    holder_alive: bool | None
    lml_trouble: str | None
    lml_trouble_since: datetime | None
    lml_next_try: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the ledger records.

    `outcome` is that of the last answer, None if there never was one. If `failures` followed it,
    the ledger does not show whether that answer was to the last question. `tracks` counts what
    became of the credits of a visited compilation. `same_question` says whether the row still asks
    the last question.
    """

    outcome: str | None
    tracks: Mapping[str, int] | None
    answered_at: datetime | None
    same_question: bool
    failures: int
    failure: str | None
    failure_detail: str | None
    failed_at: datetime | None
    parked: bool
    next_ask_at: datetime | None


@dataclass(frozen=True, slots=True)
class StandingIdentity:
    """The identity row: `ours` if we wrote it, `kept` if it is a person's work."""

    method: str
    confidence: float
    wikidata_qid: str | None
    spotify_id: str | None
    apple_music_id: str | None
    last_verified_at: datetime
    ours: bool
    kept: bool


@dataclass(frozen=True, slots=True)
class StandingSource:
    """The evidence of one catalogue: `ours` if we wrote it, `kept` if it is a person's work."""

    source: str
    external_id: str
    method: str
    confidence: float
    last_verified_at: datetime
    ours: bool
    kept: bool


@dataclass(frozen=True, slots=True)
class NextAsking:
    """The search that finds the row first.

    `due_at` is when the row is due, not before now if the search is by content; `next_at` is
    when `job` is scheduled next, None if no daemon ever did it. A `retry` has no schedule.
    """

    job: str
    reason: str
    due_at: datetime
    due: bool
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class Story:
    """Everything known about one row, from one snapshot.

    `release` is None if there is no such row. `next_asking` is None if no search will find it: it
    is left to the outbox, nameless, out of scope, or missing. `history` begins with the latest, and
    is None if it cannot be read.
    """

    at: datetime
    library_id: int
    release: Release | None
    changes: Waiting
    answer: Answer | None
    identity: StandingIdentity | None
    sources: tuple[StandingSource, ...]
    history: tuple[FormerIdentity, ...] | None
    next_asking: NextAsking | None


async def read_story(
    connection: Connection,
    backend: str,
    library_id: int,
    ask_again: AskAgain,
    *,
    include_null_canonical: bool = True,
) -> Story:
    """Read the story outside of a transaction; the scope is that of the searches."""
    parameters = {
        "library_id": library_id,
        "include_null_canonical": include_null_canonical,
    } | times_of(ask_again)

    async def every(kind: type[Any], name: str) -> list[Any]:
        return await read(connection, kind, query(name, backend), parameters)

    async def one(kind: type[Any], name: str) -> Any:  # noqa: ANN401 - a `kind`, or None
        return next(iter(await every(kind, name)), None)

    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    async with connection.transaction():
        return Story(
            at=await database_now(connection),
            library_id=library_id,
            release=await one(Release, "read_release"),
            changes=await one(Waiting, "read_waiting"),
            answer=await one(Answer, "read_answer"),
            identity=await one(StandingIdentity, "read_identity"),
            sources=tuple(await every(StandingSource, "read_sources")),
            history=await read_former(connection, backend, library_id),
            next_asking=await one(NextAsking, "find_next_asking"),
        )


async def read_standing(
    connection: Connection, backend: str, library_id: int
) -> tuple[datetime, bool, StandingIdentity | None]:
    """Return the time, whether the row exists, and its current identity."""
    parameters = {"library_id": library_id}
    release = await read(connection, Release, query("read_release", backend), parameters)
    standing = await read(connection, StandingIdentity, query("read_identity", backend), parameters)
    return await database_now(connection), bool(release), next(iter(standing), None)
