"""Writes verdicts to the identity tables and the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import psycopg

from listener.adapters.postgres.arrays import Byteas, Float4s, Int4s, Int8s, Texts
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.history import History
from listener.adapters.postgres.sessions import Connection, only_row, query, times_of
from listener.adapters.postgres.tracks import PostgresTracks
from listener.domain.due import AskAgain
from listener.domain.faults import StatementRefusedError
from listener.domain.retrying import Failure
from listener.domain.tracks import TrackCounts
from listener.domain.verdict import Identity, VerdictBatch, Written

_Cursor = psycopg.AsyncCursor[Any]

_MANUAL = "manual"
_KEEPING = "keep_identities"
# In this order: each needs what the previous ones wrote, or left in a setting.
_STATEMENTS = (
    "accept_verdicts",
    "verify_identities",
    "hold_identities",
    _KEEPING,
    "replace_identities",
    "write_sources",
    "settle_verdicts",
)


class PostgresVerdicts:
    """Writes a batch in one transaction, whose statements are sent together.

    `withdraw_on_change` removes identities that answered another question, if LML finds no single
    artist for the current one.
    """

    def __init__(
        self, pool: Pool, backend: str, ask_again: AskAgain, *, withdraw_on_change: bool = True
    ) -> None:
        self._pool = pool
        self._ask_again = ask_again
        self._withdraw = withdraw_on_change
        self._history = History(backend)
        self._statements = {name: query(name, backend) for name in _STATEMENTS}
        self._fail = query("record_failures", backend)
        self._tracks = PostgresTracks(backend)

    async def write(self, batch: VerdictBatch) -> Written:
        """Write the batch; identities that are withdrawn or change id or method go to the history.

        That is, if there is one; confidence, dates and sources alone are not a change. A person's
        work stays: identities with the method "manual", unless LML itself answered with it, and
        those with notes that are not ours. Identities without notes are an older job's: they are
        replaced but never withdrawn.
        """
        parameters = {"ask_order": batch.order, "withdraw": self._withdraw}
        parameters |= times_of(self._ask_again) | _columns(batch)
        has_keys = any(v.tracks is not None and v.tracks.keys for v in batch.verdicts)
        async with session(self._pool, StatementRefusedError) as connection:
            kept = await self._history.kept(connection)
            try:
                async with _together(connection, explicit=has_keys):
                    sent = await self._send(connection, parameters, kept=kept)
                    tracks = await self._tracks.write(connection, batch) if has_keys else {}
                # Fetched after the pipeline, because nothing is committed before it ends.
                return await _written(sent, tracks)
            except (psycopg.ProgrammingError, psycopg.IntegrityError):
                self._history.suspect()
                raise

    async def fail(
        self, order: int, failures: Sequence[Failure], entries: Sequence[tuple[int, int]]
    ) -> frozenset[int]:
        parameters = {"ask_order": order} | _failure_columns(failures) | _entry_columns(entries)
        async with session(self._pool, StatementRefusedError) as connection:
            rows = await (await connection.execute(self._fail, parameters)).fetchall()
        return frozenset(row[0] for row in rows)

    async def _send(
        self, connection: Connection, parameters: Mapping[str, Any], *, kept: bool
    ) -> dict[str, _Cursor]:
        return {
            name: await connection.execute(statement, parameters)
            for name, statement in self._statements.items()
            if kept or name != _KEEPING
        }


async def _written(sent: Mapping[str, _Cursor], tracks: Mapping[int, TrackCounts]) -> Written:
    rows = await sent["accept_verdicts"].fetchall()
    withdrawn, of_people, *_ = await only_row(sent["hold_identities"])
    unresolved_now, locked = await only_row(sent["settle_verdicts"])
    return Written(
        frozenset(row[0] for row in rows),
        locked=frozenset(locked),
        withdrawn=frozenset(withdrawn),
        kept=of_people,
        unresolved_now=unresolved_now,
        tracks=tracks,
    )


@asynccontextmanager
async def _together(connection: Connection, *, explicit: bool) -> AsyncIterator[None]:
    # Statements of one pipeline are one transaction, until a result is waited for: no BEGIN and
    # COMMIT need be sent where none is.
    async with connection.transaction() if explicit else nullcontext(), connection.pipeline():
        yield


def _failure_columns(failures: Sequence[Failure]) -> dict[str, Any]:
    return {
        "library_ids": Int4s([failure.library_id for failure in failures]),
        "questions": Byteas([failure.digest for failure in failures]),
        "ask_agains": [failure.retry.after.total_seconds() for failure in failures],
        "failure_counts": Int4s([failure.retry.failures for failure in failures]),
        "suspicions": Int4s([failure.suspicion for failure in failures]),
        "parked": [failure.retry.parked for failure in failures],
        "failures": Texts([str(failure.reason) for failure in failures]),
        "details": Texts([failure.detail for failure in failures]),
    }


def _entry_columns(entries: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {
        "change_seqs": Int8s([seq for seq, _ in entries]),
        "change_rows": Int4s([row for _, row in entries]),
    }


def _columns(batch: VerdictBatch) -> dict[str, Any]:
    # Ascending ids: two writers that share rows take their locks in the same order.
    verdicts = sorted(batch.verdicts, key=lambda verdict: verdict.library_id)
    found = [(v.library_id, v.identity) for v in verdicts if v.identity is not None]
    evidence = [(row, entry) for row, identity in found for entry in identity.provenance]
    manual = [(row, part) for row, identity in found for part in _manual_parts(identity)]
    return {
        "library_ids": Int4s([v.library_id for v in verdicts]),
        "questions": Byteas([batch.questions[v.library_id].digest for v in verdicts]),
        "outcomes": Texts([v.outcome for v in verdicts]),
        "last_credits": Int4s([batch.questions[v.library_id].last_credit for v in verdicts]),
        "manual_ids": Int4s([row for row, _ in manual]),
        "manual_parts": Texts([part for _, part in manual]),
        "identity_ids": Int4s([row for row, _ in found]),
        "wikidata_qids": Texts([identity.wikidata_qid for _, identity in found]),
        "spotify_ids": Texts([identity.spotify_id for _, identity in found]),
        "apple_music_ids": Texts([identity.apple_music_id for _, identity in found]),
        "methods": Texts([identity.method for _, identity in found]),
        "confidences": Float4s([identity.confidence for _, identity in found]),
        "source_ids": Int4s([row for row, _ in evidence]),
        "sources": Texts([entry.source for _, entry in evidence]),
        "external_ids": Texts([entry.external_id for _, entry in evidence]),
        "source_methods": Texts([entry.method for _, entry in evidence]),
        "source_confidences": Float4s([entry.confidence for _, entry in evidence]),
    } | _entry_columns(batch.entries)


def _manual_parts(identity: Identity) -> list[str]:
    own = ["identity"] if identity.method == _MANUAL else []
    return own + [entry.source for entry in identity.provenance if entry.method == _MANUAL]
