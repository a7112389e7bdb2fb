"""What the page shows from the catalogue: releases found by words, their stories, worklists."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

from listener.adapters.http.documents import Entry, Found, Listed, RowStory
from listener.adapters.postgres.search import FoundRelease, SlowSearchError, find_releases
from listener.adapters.postgres.sessions import Connection
from listener.adapters.postgres.story import Release, read_story
from listener.adapters.postgres.viewer import PAGE, looking
from listener.adapters.postgres.worklists import (
    ListedRelease,
    Worklist,
    read_worklist,
    stream_worklist,
)
from listener.app.story import lines_of
from listener.app.wording import MEANINGS, UNSURE, answer_of, day, next_of, printable, write_csv
from listener.domain.faults import InstallationError, StoreUnavailableError
from listener.settings import StatusSettings

_SHOWN = 50
# Concurrent sessions: for pages, and separately for downloads, which may take a minute.
_READERS, _DOWNLOADS = 2, 1
_TURN = timedelta(seconds=5)
_LONGEST = timedelta(seconds=8)
# Without it, spreadsheets assume the encoding of their system.
_BYTE_ORDER_MARK = "\ufeff"


class Catalogue:
    """Reads for the pages, on few sessions, each opened for one page.

    Every method raises `StoreUnavailableError` if the database is down or slow, or if too many
    pages are being read already.
    """

    meanings: Mapping[str, str] = {str(kind): meaning for kind, meaning in MEANINGS.items()}

    def __init__(self, settings: StatusSettings) -> None:
        self._settings = settings
        self._backend = settings.wxyc_schema_name
        self._readers = asyncio.Semaphore(_READERS)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)

    async def search(self, words: str) -> Found:
        """Return the releases that contain the words, the best ones first."""
        try:
            async with self._reading() as connection:
                found = await find_releases(connection, self._backend, words, limit=_SHOWN)
        except SlowSearchError as error:
            return Found(obstacle=str(error))
        return Found([_found(release) for release in found])

    async def story(self, library_id: int) -> RowStory:
        """Return the story of a row, whether it exists or not."""
        async with self._reading() as connection:
            story = await read_story(
                connection,
                self._backend,
                library_id,
                self._settings.ask_again,
                include_null_canonical=self._settings.include_null_canonical,
            )
        title = _title(library_id, story.release)
        return RowStory(title, story.release is not None, [*lines_of(story)])

    async def worklist(self, name: str, page: int) -> Listed:
        """Return one page of a worklist; the pages count from 1."""
        async with self._reading() as connection:
            listed = await read_worklist(
                connection,
                self._backend,
                Worklist(name),
                below=UNSURE,
                limit=_SHOWN + 1,
                skip=(page - 1) * _SHOWN,
            )
        return Listed([_listed(each) for each in listed[:_SHOWN]], more=len(listed) > _SHOWN)

    async def csv(self, name: str) -> AsyncGenerator[bytes, None]:
        """Yield a whole worklist, as of one time, in parts."""
        async with _place(self._downloads), self._session() as connection:
            listed = stream_worklist(connection, self._backend, Worklist(name), below=UNSURE)
            start = io.StringIO()
            start.write(_BYTE_ORDER_MARK)
            write_csv((), start)
            async with aclosing(listed) as parts:
                async for part in parts:
                    write_csv(part, start, header=False)
                    yield start.getvalue().encode()
                    start = io.StringIO()
            yield start.getvalue().encode()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        try:
            async with (
                _place(self._readers),
                asyncio.timeout(_LONGEST.total_seconds()),
                self._session() as connection,
            ):
                yield connection
        except TimeoutError:
            seconds = round(_LONGEST.total_seconds())
            raise StoreUnavailableError(f"the database takes longer than {seconds} s") from None

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection]:
        dsn = self._settings.database_url.get_secret_value()
        try:
            async with looking(dsn, self._backend, PAGE) as connection:
                yield connection
        except InstallationError as error:
            raise StoreUnavailableError(str(error)) from error


@asynccontextmanager
async def _place(free: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_TURN.total_seconds()):
            await free.acquire()
    except TimeoutError:
        raise StoreUnavailableError("too many readers at once") from None
    try:
        yield
    finally:
        free.release()


def _title(library_id: int, release: Release | None) -> str:
    names = (release.artist_name, release.album_title) if release is not None else ()
    named = " \N{EN DASH} ".join(printable(name) for name in names if name and name.strip())
    return named or f"Row {library_id}"


def _found(release: FoundRelease) -> Entry:
    cells = {
        "artist": printable(release.artist_name or ""),
        "title": printable(release.album_title),
        "last answer": answer_of(release),
        "next": next_of(release),
        "id": str(release.library_id),
    }
    return Entry(cells, release.library_id)


def _listed(release: ListedRelease) -> Entry:
    cells = {
        "artist": printable(release.artist_name or ""),
        "title": printable(release.album_title or ""),
        "letters": printable(release.letters or ""),
        "id": str(release.row_id),
        "why": printable(release.why),
        "since": "" if release.since is None else day(release.since),
    }
    return Entry(cells, release.library_id)
