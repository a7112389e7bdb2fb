"""The backend's releases: which of them are due, and what LML is asked about each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from listener.adapters.postgres.arrays import Int4s
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.sessions import database_now, only_row, query, times_of
from listener.domain.due import AskAgain, DueRow, Reason, Scope
from listener.domain.faults import StatementRefusedError
from listener.domain.question import Asking, Question
from listener.domain.retrying import ISOLATED, SUSPECT, Failing

_BATCH = 1000
_HIGHEST_ID = 2**31 - 1
# Rows per statement: it takes about 15 ms, and no snapshot is held longer.
_WINDOW = 2500


class PostgresDue:
    """Searches the library in short statements, each with its own snapshot."""

    def __init__(self, pool: Pool, backend: str, ask_again: AskAgain) -> None:
        self._pool = pool
        self._ask_again = ask_again
        self._by_time = query("find_due_by_time", backend)
        self._by_content = query("find_due_by_content", backend)
        self._credited = query("find_credited", backend)
        self._failed = query("find_failed", backend)
        self._compilations = query("find_asked_compilations", backend)
        self._note_release = query("note_release", backend)
        self._ledger_is_empty = query("ledger_is_empty", backend)

    async def by_time(self, scope: Scope) -> AsyncIterator[list[DueRow]]:
        """Begin with the longest due; end with releases that gained credits since the question.

        The cost depends on the due rows and on the number of credits, not on the size of the
        library; failed rows are left out.
        """
        async for rows in self._batches(self._by_time, scope, {"until": await self._now()}):
            yield rows
        async for rows in self._windows(self._credited, scope, after=0):
            yield rows

    async def failed(self, scope: Scope) -> AsyncIterator[list[DueRow]]:
        """End with those that failed only together with others, whenever they are due."""
        now = await self._now()
        due = {"until": now, "least_suspect": 0, "most_suspect": ISOLATED}
        async for rows in self._batches(self._failed, scope, due):
            yield rows
        suspects = {"until": "infinity", "least_suspect": SUSPECT, "most_suspect": SUSPECT}
        async for rows in self._batches(self._failed, scope, suspects, after=now):
            yield rows

    async def retries(self, limit: int, *, suspicion: int) -> list[int]:
        """Return up to `limit` failed rows of these degrees of suspicion that are due."""
        parameters = _parameters(Scope()) | {
            "least_suspect": suspicion,
            "most_suspect": suspicion,
            "until": None,
            "after_time": "-infinity",
            "after_id": 0,
            "limit": limit,
        }
        async with session(self._pool) as connection:
            rows = await (await connection.execute(self._failed, parameters)).fetchall()
        return [row[1] for row in rows]

    async def none_asked(self) -> bool:
        """Return whether LML was never asked about any row of the library."""
        async with session(self._pool) as connection:
            (empty,) = await only_row(await connection.execute(self._ledger_is_empty))
        return bool(empty)

    async def note_release(self, release: str) -> int:
        """Record the running release of LML; return how many rows became due because of it."""
        async with session(self._pool) as connection:
            cursor = await connection.execute(self._note_release, {"release": release})
            (raised,) = await only_row(cursor)
        return int(raised)

    async def _now(self) -> datetime:
        async with session(self._pool) as connection:
            return await database_now(connection)

    async def _batches(
        self,
        statement: bytes,
        scope: Scope,
        special: dict[str, Any],
        *,
        after: datetime | str = "-infinity",
    ) -> AsyncIterator[list[DueRow]]:
        """Yield the rows in order of time, starting after `after`."""
        after_id = _HIGHEST_ID
        while True:
            parameters = _parameters(scope) | {"limit": _BATCH} | special
            parameters |= {"after_time": after, "after_id": after_id}
            async with session(self._pool) as connection:
                rows = await (await connection.execute(statement, parameters)).fetchall()
            yield _due(scope, [row[1:] for row in rows])
            if len(rows) < _BATCH:
                return
            after, after_id = rows[-1][:2]

    async def by_content(self, scope: Scope) -> AsyncIterator[list[DueRow]]:
        """Proceed by ascending id, in windows; rows that wait in the outbox are left out."""
        async for rows in self._windows(self._by_content, scope, after=scope.since_id - 1):
            yield rows

    async def compilations(self, scope: Scope) -> AsyncIterator[list[DueRow]]:
        """Proceed by ascending id, in windows; parked rows are left out."""
        async for rows in self._windows(self._compilations, scope, after=scope.since_id - 1):
            yield rows

    async def _windows(
        self, statement: bytes, scope: Scope, *, after: int | None
    ) -> AsyncIterator[list[DueRow]]:
        while after is not None:
            parameters = _parameters(scope) | times_of(self._ask_again)
            parameters |= {"after": after, "window": _WINDOW}
            async with session(self._pool) as connection:
                # Planned each time: a plan from when the tables were small would not scale.
                cursor = await connection.execute(statement, parameters, prepare=False)
                rows = await cursor.fetchall()
            yield _due(scope, [row[1:] for row in rows])
            after = rows[0][0]


def _parameters(scope: Scope) -> dict[str, Any]:
    return {
        "since_id": scope.since_id,
        "partition": scope.partition,
        "partitions": scope.partitions,
        "include_null_canonical": scope.include_null_canonical,
    }


def _due(scope: Scope, rows: list[Any]) -> list[DueRow]:
    return [
        DueRow(library_id, Reason(reason), bool(compilation))
        for library_id, reason, compilation in rows
        if reason in scope.only
    ]


class PostgresLibrary:
    """Reads questions from the backend's `library` and compares them with the ledger.

    With `dry` it writes nothing: its questions get no order number.
    """

    def __init__(self, pool: Pool, backend: str, ask_again: AskAgain, *, dry: bool = False) -> None:
        self._drawing = {"drawing": not dry}
        self._pool = pool
        self._ask_again = ask_again
        self._order = query("draw_ask_order", backend)
        self._read = query("read_questions", backend)

    async def read(self, row_ids: Sequence[int]) -> Asking:
        parameters = {"row_ids": Int4s(row_ids)} | times_of(self._ask_again)
        async with session(self._pool, StatementRefusedError) as connection:
            cursor = connection.cursor()
            # Fetched after the pipeline, which then ends without another round trip.
            async with connection.pipeline():
                # Two statements: the order must be older than the snapshot that reads the rows.
                order = await connection.execute(self._order, self._drawing)
                await cursor.execute(self._read, parameters, binary=True)
            (drawn,), rows = await only_row(order), await cursor.fetchall()
        return _asking(drawn, row_ids, rows)


def _asking(order: int, row_ids: Sequence[int], rows: Sequence[Sequence[Any]]) -> Asking:
    """Sort the rows that `read_questions` found by whether there is anything to ask."""
    questions, answered, nameless = [], set(), set()
    for library_id, artist_name, album_title, legacy_id, digest, is_answered, *rest in rows:
        if artist_name is None:
            nameless.add(library_id)
        elif is_answered:
            answered.add(library_id)
        else:
            compilation, last_credit, asked_before, *failing = rest
            asked = (library_id, artist_name, album_title, legacy_id, digest, compilation)
            questions.append(Question(*asked, failing_of(*failing), last_credit, asked_before))
    return Asking(
        order=order,
        questions=tuple(questions),
        answered=frozenset(answered),
        nameless=frozenset(nameless),
        gone=frozenset(row_ids).difference(row[0] for row in rows),
    )


def failing_of(
    failures: int | None, lasting: float, ago: float, suspicion: int = 0, *parked: bool
) -> Failing | None:
    """Return a row's consecutive failures, with times in seconds; None if there are none."""
    if failures is None:
        return None
    return Failing(failures, timedelta(seconds=lasting), timedelta(seconds=ago), suspicion, *parked)
