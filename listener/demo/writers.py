"""The people and jobs that write to the backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from listener.demo.catalogue import Release
from listener.demo.statements import statement
from listener.simulator.tracks import Credit


@dataclass(frozen=True, slots=True)
class Commit:
    """The rows that a transaction wrote, and when its commit returned by the event loop's clock."""

    ids: tuple[int, ...]
    at: float


class Writers:
    """Writes to the backend's tables as its own programs do, knowing nothing of a listener."""

    def __init__(self, connection: psycopg.AsyncConnection[TupleRow], schema: str) -> None:
        """Write through one session."""
        self._connection = connection
        self._schema = schema

    async def add_release(self, release: Release) -> Commit:
        """Add a release by hand."""
        async with self._connection.transaction():
            await self._run("add_artist", artist_name=release.artist_name)
            ids = await self._run(
                "add_release",
                artist_name=release.artist_name,
                album_title=release.album_title,
                label=release.label,
                letters=release.code_volume_letters,
            )
        return self._committed(ids)

    async def add_compilation(
        self, release: Release, credits_of: Callable[[int], Sequence[Credit]]
    ) -> Commit:
        """Add a release with its credits; `credits_of` gets its legacy id."""
        async with self._connection.transaction():
            await self._run("add_artist", artist_name=release.artist_name)
            ids = await self._run(
                "add_release",
                artist_name=release.artist_name,
                album_title=release.album_title,
                label=release.label,
                letters=release.code_volume_letters,
            )
            (legacy_id,) = await self._run("read_legacy_id", id=ids[0])
            credited = credits_of(legacy_id)
            await self._run(
                "add_credits",
                library_id=ids[0],
                artist_names=[credit.artist_name for credit in credited],
                track_titles=[credit.track_title for credit in credited],
            )
        return self._committed(ids)

    async def rename_artist(self, artist_id: int, artist_name: str) -> Commit:
        """Rename an artist; the rename cascades to all the artist's releases."""
        return self._committed(
            await self._run("rename_artist", artist_id=artist_id, artist_name=artist_name)
        )

    async def change_title(self, release_id: int, album_title: str) -> Commit:
        """Give a release another title."""
        return self._committed(
            await self._run("change_title", id=release_id, album_title=album_title)
        )

    async def remaster(self, ids: Sequence[int]) -> Commit:
        """Change the titles of some releases in one transaction."""
        return self._committed(await self._run("remaster_releases", ids=list(ids)))

    async def import_daily(self, ids: Sequence[int]) -> tuple[int, Commit]:
        """Touch the whole library and change some titles in one transaction.

        Returns how many rows were touched, and the commit with those whose title changed.
        """
        async with self._connection.transaction():
            cursor = await self._connection.execute(self._statement("refresh_library"), {})
            changed = await self._run("remaster_releases", ids=list(ids))
        return cursor.rowcount, self._committed(changed)

    async def count_plays(self, ids: Sequence[int]) -> int:
        """Count one play of each of some releases; return how many rows that wrote."""
        cursor = await self._connection.execute(self._statement("count_plays"), {"ids": list(ids)})
        return cursor.rowcount

    async def add_rotation(
        self, *, discogs_release_id: int | None = None, lml_identity_id: int | None = None
    ) -> Commit:
        """Put the newest release into rotation."""
        return self._committed(
            await self._run(
                "add_rotation",
                discogs_release_id=discogs_release_id,
                lml_identity_id=lml_identity_id,
            )
        )

    async def delete_release(self, release_id: int) -> Commit:
        """Delete a release, its identity rows first."""
        async with self._connection.transaction():
            for name in ("delete_sources", "delete_identity", "delete_release"):
                await self._connection.execute(self._statement(name), {"id": release_id})
        return self._committed((release_id,))

    async def _run(self, name: str, **parameters: Any) -> tuple[int, ...]:  # noqa: ANN401
        cursor = await self._connection.execute(self._statement(name), parameters)
        return tuple(row[0] for row in await cursor.fetchall()) if cursor.description else ()

    def _statement(self, name: str) -> sql.Composed:
        return statement(name, self._schema)

    def _committed(self, ids: tuple[int, ...]) -> Commit:
        return Commit(ids, asyncio.get_running_loop().time())


@asynccontextmanager
async def writing(dsn: str, schema: str) -> AsyncIterator[Writers]:
    """Open the session that the backend writes with, for the length of the block."""
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, application_name="backend"
    ) as connection:
        yield Writers(connection, schema)
