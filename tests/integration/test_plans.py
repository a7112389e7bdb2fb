"""A session plans once, perhaps while the tables are still empty: its plans must scale."""

from __future__ import annotations

import re

import pytest

from listener.adapters.postgres.connection import Pool
from listener.adapters.postgres.sessions import query
from tests.conftest import BACKEND, Connection

# What grows with the library; the prefix also stands for identities, their sources and indexes.
_LARGE = r"Scan .*\bon (?:library|ledger|change|compilation_track_artist)"

WRITING = [
    "accept_verdicts",
    "verify_identities",
    "hold_identities",
    "keep_identities",
    "replace_identities",
    "write_sources",
    "settle_verdicts",
    "note_tracks",
    "record_failures",
    "settle_changes",
]
READING = [
    "look_at_changes",
    "read_questions",
    "find_due_by_time",
    "find_due_by_content",
    "find_credited",
    "find_failed",
    "find_asked_compilations",
    "clear_ledger",
    "weigh_tracks",
    "read_rotation",
    "raise_due_releases",
]


async def plan_of(pool: Pool, name: str) -> str:
    """Return the plan that a session keeps for a statement."""
    parameters: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in parameters:
            parameters.append(match[1])
        return f"${parameters.index(match[1]) + 1}"

    # What EXPLAIN (GENERIC_PLAN) shows is not to be had before PostgreSQL 16.
    statement = re.sub(r"%\((\w+)\)[bs]", number, query(name, BACKEND).decode())
    arguments = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    async with pool.connection() as connection:
        prepare = f"PREPARE planned AS {statement.replace('%%', '%')}"
        await connection.execute(prepare.encode())
        lines = await (await connection.execute(f"EXPLAIN EXECUTE planned{arguments}")).fetchall()
    return "\n".join(line[0] for line in lines)


def walks(plan: str) -> list[str]:
    """Return the scans of large tables that no condition on an index bounds."""
    # Each node with its own lines, up to that of the next one.
    nodes = re.split(r"\n(?=\s*(?:->|CTE|InitPlan|SubPlan))", plan)
    scans = [node for node in nodes if re.search(_LARGE, node)]
    assert scans
    return [node for node in scans if "Index Cond:" not in node and "Bitmap Heap Scan" not in node]


@pytest.mark.parametrize("name", [*WRITING, *READING])
@pytest.mark.parametrize("known_to_be_empty", [True, False])
async def test_plan_made_on_empty_tables_reaches_rows_by_key(
    db: Connection, pool: Pool, name: str, known_to_be_empty: bool
) -> None:
    if known_to_be_empty:
        # Of a table that was never vacuumed the planner assumes that it has a few pages.
        db.execute("VACUUM ANALYZE")

    plan = await plan_of(pool, name)

    assert not walks(plan), plan
    if name in WRITING:
        # Nor does it read all changes of a stream.
        assert len(re.findall(r"Scan .*on change", plan)) == len(
            re.findall(r"Index Cond: .*\bseq\b", plan)
        ), plan
