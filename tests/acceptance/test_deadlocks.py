"""Two who lock the same rows in opposite orders: the daemon gives up, never the backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import psycopg
import pytest
from psycopg import errors, sql

from tests.acceptance.conftest import Start, eventually
from tests.acceptance.test_daemon import add_releases, all_answered
from tests.catalogue import table
from tests.conftest import Connection

pytestmark = pytest.mark.timeout(180)

RELEASES, TRANSACTIONS, VERDICTS = 20, 100, 50


def test_no_transaction_of_the_backend_is_the_victim_of_a_deadlock(
    owner_dsn: str, db: Connection, start: Start
) -> None:
    altered = sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '190ms'")
    db.execute(altered.format(sql.Identifier(db.info.dbname)))
    add_releases(db, RELEASES)
    start(REASK_AFTER="0s").following()
    eventually(lambda: all_answered(db), 60)
    done = Event()
    with ThreadPoolExecutor(2) as writers:
        renaming = writers.submit(rename_all, owner_dsn, done)
        try:
            transactions, victims = writers.submit(update_downwards, owner_dsn).result()
        finally:
            done.set()
        renaming.result()
    assert transactions >= TRANSACTIONS
    assert victims == 0
    eventually(lambda: all_answered(db), 90)


def rename_all(dsn: str, done: Event) -> None:
    """Rename all releases again and again, so that their verdicts are written anew."""
    statement = sql.SQL("UPDATE {} SET artist_name = 'Artist ' || id || ' ' || %s")
    with psycopg.connect(dsn, autocommit=True) as backend:
        number = 0
        while not done.wait(0.02):
            backend.execute(statement.format(table("library")), (number,))
            number += 1


def update_downwards(dsn: str) -> tuple[int, int]:
    """Update all identities from the last to the first, one by one, in many transactions.

    Ends once the daemon has written often meanwhile. Returns how many transactions there were, and
    how many of them a deadlock ended.
    """
    statement = sql.SQL("UPDATE {} SET agreement_sources = %s WHERE library_id = %s")
    update, transactions, victims = statement.format(table("library_identity")), 0, 0
    with psycopg.connect(dsn, autocommit=True) as backend:
        before = last_verdict(backend)
        while transactions < TRANSACTIONS or last_verdict(backend) < before + VERDICTS:
            transactions += 1
            try:
                with backend.transaction():
                    for row in reversed(range(1, RELEASES + 1)):
                        backend.execute(update, (str(transactions), row))
                        backend.execute("SELECT pg_sleep(0.001)")
            except errors.DeadlockDetected:
                victims += 1
    return transactions, victims


def last_verdict(backend: psycopg.Connection[tuple[object, ...]]) -> int:
    ((order,),) = backend.execute("SELECT max(ask_order) FROM listener.ledger").fetchall()
    return int(str(order))
