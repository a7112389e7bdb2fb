"""What nobody needs any more is cleared out, and nothing else."""

from __future__ import annotations

import pytest

from listener.adapters.postgres import housekeeping
from listener.adapters.postgres.connection import Pool
from listener.adapters.postgres.housekeeping import PostgresHousekeeping
from tests.catalogue import add_release, delete_release
from tests.conftest import BACKEND, Connection
from tests.integration.conftest import Answers


@pytest.mark.parametrize("window", [2, 3, 100])
async def test_ledger_forgets_deleted_releases_only(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, db: Connection, answer: Answers, window: int
) -> None:
    monkeypatch.setattr(housekeeping, "_WINDOW", window)
    rows = [add_release(db) for _ in range(8)]
    never_asked = add_release(db)
    await answer(*rows)
    gone = {rows[0], rows[2], rows[3], rows[7]}
    for row in (*gone, never_asked):
        delete_release(db, row)
    before = ledger(db)
    assert await PostgresHousekeeping(pool, BACKEND).clear() == len(gone)
    assert ledger(db) == {row: order for row, order in before.items() if row not in gone}
    assert await PostgresHousekeeping(pool, BACKEND).clear() == 0


async def test_whole_window_of_deleted_releases_does_not_end_the_walk(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, db: Connection, answer: Answers
) -> None:
    monkeypatch.setattr(housekeeping, "_WINDOW", 2)
    rows = [add_release(db) for _ in range(6)]
    await answer(*rows)
    for row in rows[1:]:
        delete_release(db, row)
    assert await PostgresHousekeeping(pool, BACKEND).clear() == 5
    assert list(ledger(db)) == rows[:1]


async def test_old_runs_are_forgotten(pool: Pool, db: Connection) -> None:
    db.execute(
        "INSERT INTO listener.run (kind, cause, holder, started_at) VALUES"
        " ('sweep', 'old', 'x', now() - interval '91 d'),"
        " ('sweep', 'young', 'x', now() - interval '89 d')"
    )
    assert await PostgresHousekeeping(pool, BACKEND).clear() == 0
    assert db.execute("SELECT cause FROM listener.run").fetchall() == [("young",)]


def ledger(db: Connection) -> dict[object, object]:
    rows = db.execute("SELECT library_id, ask_order FROM listener.ledger ORDER BY 1").fetchall()
    return {row[0]: row[1] for row in rows}
