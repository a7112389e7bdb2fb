"""What of ours is in a database, and which database that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from listener.adapters.postgres.statements import query

_TABLES = """
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('listener') AND c.relkind IN ('r', 'p')
ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Where a session is connected, and what is there: triggers by table, rows by table of ours."""

    host: str
    database: str
    role: str
    triggers: Mapping[str, int]
    rows: Mapping[str, int]


def take_inventory(connection: psycopg.Connection[Any], backend: str) -> Inventory:
    """Look at all that an uninstallation would remove."""
    info = connection.info
    found = connection.execute(query("list_triggers", backend), {"backend": backend}).fetchall()
    tables = [table for table, _, _ in found]
    ours = [table for (table,) in connection.execute(_TABLES)]
    return Inventory(
        host=info.host if info.host.startswith("/") else f"{info.host}:{info.port}",
        database=info.dbname,
        role=info.user,
        triggers={table: tables.count(table) for table in tables},
        rows={table: _count(connection, table) for table in ours},
    )


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    statement = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("listener", table))
    return int(connection.execute(statement).fetchall()[0][0])
