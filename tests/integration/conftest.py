"""Adapters on a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from listener.adapters.postgres.connection import Database, Pool, open_pool
from listener.adapters.postgres.library import AskAgain, PostgresLibrary
from listener.adapters.postgres.outbox import PostgresOutbox
from listener.adapters.postgres.verdicts import PostgresVerdicts
from tests.conftest import BACKEND

ASK_AGAIN = AskAgain(resolved=timedelta(days=7), unresolved=timedelta(days=7))


@pytest.fixture
def database(dsn: str) -> Database:
    """Where the adapters of a test work."""
    return Database(dsn=dsn, backend=BACKEND, holder="listener test")


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """Yield connections with the daemon's own session settings."""
    async with open_pool(database, size=4) as opened:
        yield opened


@pytest.fixture
def library(pool: Pool) -> PostgresLibrary:
    """Read questions."""
    return PostgresLibrary(pool, BACKEND, ASK_AGAIN)


@pytest.fixture
def outbox(pool: Pool) -> PostgresOutbox:
    """Look at changes."""
    return PostgresOutbox(pool, BACKEND)


@pytest.fixture
def verdicts(pool: Pool) -> PostgresVerdicts:
    """Write verdicts."""
    return PostgresVerdicts(pool, BACKEND, ASK_AGAIN)
