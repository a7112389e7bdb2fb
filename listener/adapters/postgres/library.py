"""The backend's releases, as far as LML is asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from listener.adapters.postgres.arrays import Int4s
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.sessions import only_row, query, times_of
from listener.domain.due import AskAgain
from listener.domain.faults import StatementRefusedError
from listener.domain.question import Asking, Question
from listener.domain.retrying import Failing


class PostgresLibrary:
    """Reads questions from the backend's `library` and holds them against the ledger.

    A `dry` one writes nothing: its questions have no order among others.
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
            # Fetched after the pipeline: it ends with the statements, not after a round trip more.
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
    """Return what a row's failures in a row come to, with times in seconds; None if none."""
    if failures is None:
        return None
    return Failing(failures, timedelta(seconds=lasting), timedelta(seconds=ago), suspicion, *parked)
