"""Whole replies, changed at random, on their way through client and resolver to the tables."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listener.adapters.lml.client import LmlClient, LmlLimits
from listener.adapters.postgres.library import PostgresLibrary
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.verdicts import PostgresVerdicts
from listener.domain.change import Batch, Stream
from listener.domain.faults import CallInterruptedError, LmlUnavailableError
from listener.domain.retrying import RetryPolicy
from listener.domain.tally import Tally
from listener.engine.circuit import Circuit, Permits, Priority
from listener.engine.resolver import Resolver
from tests.catalogue import add_release
from tests.conftest import Connection
from tests.mutations import mutated

ROWS = (1, 2, 3)
LIMITS = LmlLimits(
    connections=1,
    attempts=1,
    resolve_timeout=timedelta(seconds=5),
    refresh_timeout=timedelta(seconds=5),
    reply_bytes=2**16,
)


def single_artist(row: int) -> dict[str, Any]:
    entry = {"source": "discogs", "method": "exact_match", "confidence": 0.5, "external_id": "1"}
    return {
        "library_id": row,
        "kind": "single_artist",
        "main": {"wikidata_qid": "Q1", "spotify_artist_id": "s", "apple_music_artist_id": None},
        "method": "exact_match",
        "confidence": 0.75,
        "provenance": [entry, entry | {"source": "spotify", "external_id": "s"}],
    }


SOUND = {
    "results": [
        single_artist(1),
        single_artist(2),
        {"library_id": 3, "kind": "unresolved", "provenance": []},
    ],
    "tracks_contract_version": 1,
    "cache_stats": {"memory_hits": 3},
}


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Mutate a reply as JSON, and now and then its bytes too."""
    body = json.dumps(draw(mutated(SOUND))).encode()
    match draw(st.sampled_from(("whole", "whole", "whole", "cut", "flipped", "twice"))):
        case "cut":
            return body[: draw(st.integers(0, len(body)))]
        case "flipped":
            at = draw(st.integers(0, len(body) - 1))
            return body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :]
        case "twice":
            return body + body
        case _:
            return body


class Answering:
    """LML as far as this test goes: it answers everything with `body`."""

    def __init__(self) -> None:
        self.body = b""
        self.client = LmlClient(
            httpx.AsyncClient(
                base_url="http://lml.example/api/v1", transport=httpx.MockTransport(self._answer)
            ),
            LIMITS,
            "/health",
        )

    def _answer(self, _request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=self.body)


@pytest.fixture
async def lml() -> Answering:
    """LML's side, which answers what a test sets."""
    return Answering()


@pytest.fixture
def resolver(
    library: PostgresLibrary, outbox: PostgresOutbox, verdicts: PostgresVerdicts, lml: Answering
) -> Resolver:
    """Ask LML, and write what it says."""
    return Resolver(
        library=library,
        lml=lml.client,
        verdicts=verdicts,
        outbox=outbox,
        permit=partial(Permits(1).hold, Priority.CHANGE),
        compilation_batch_size=100,
        policy=RetryPolicy(attempts=3, parked_for=timedelta(days=7)),
        circuit=Circuit(Stream.LIBRARY),
    )


def offered(body: bytes) -> list[dict[str, Any]]:
    """Return what a reader that believes everything finds in the body."""
    with suppress(ValueError):
        reply = json.loads(body)
        results = reply.get("results") if isinstance(reply, dict) else None
        if isinstance(results, list):
            return [result for result in results if isinstance(result, dict)]
    return []


def assert_every_row_was_offered(db: Connection, body: bytes) -> None:
    results = offered(body)
    for row, method, confidence in db.execute(
        "SELECT library_id, method, confidence FROM wxyc_schema.library_identity"
    ).fetchall():
        assert row in ROWS
        assert 0 <= float(str(confidence)) <= 1
        assert any(
            result.get("library_id") == row
            and result.get("kind") == "single_artist"
            and result.get("method") == method
            for result in results
        )
    for row, source, external_id in db.execute(
        "SELECT library_id, source, external_id FROM wxyc_schema.library_identity_source"
    ).fetchall():
        assert any(
            isinstance(entry, dict)
            and (entry.get("source"), entry.get("external_id")) == (source, external_id)
            for result in results
            if result.get("library_id") == row and isinstance(result.get("provenance"), list)
            for entry in result["provenance"]
        )


@given(body=bodies())
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_reply_crashes_the_resolver_or_writes_anything_it_did_not_contain(
    body: bytes, db: Connection, lml: Answering, resolver: Resolver
) -> None:
    db.execute(
        "TRUNCATE listener.ledger, listener.change,"
        " wxyc_schema.library_identity, wxyc_schema.library_identity_source"
    )
    if not db.execute("SELECT FROM wxyc_schema.library").fetchall():
        assert tuple(add_release(db) for _ in ROWS) == ROWS
    lml.body = body
    resolver.tally = Tally()
    outcome = await resolver.handle(Batch(dict.fromkeys(ROWS, ())))
    if outcome.fault is None:
        assert outcome.settled == set(ROWS)
        assert resolver.tally.scanned == len(ROWS)
    else:
        # What is not a reply of LML concerns no row; an unreadable reply may concern any.
        assert isinstance(outcome.fault, LmlUnavailableError)
        suspects = set(ROWS) if isinstance(outcome.fault, CallInterruptedError) else set()
        assert outcome.tried == suspects
        assert resolver.tally.scanned == len(suspects)
    assert_every_row_was_offered(db, body)
    ledger = db.execute("SELECT library_id, failures, outcome FROM listener.ledger").fetchall()
    assert {entry[0] for entry in ledger} <= set(ROWS)
    assert all(entry[1] or entry[2] for entry in ledger)
