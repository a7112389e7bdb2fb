"""What of ours is in a database, and which database that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from listener.adapters.postgres.capture import list_triggers
from listener.adapters.postgres.sessions import Connection, only_row

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


async def take_inventory(connection: Connection, backend: str) -> Inventory:
    """Look at all that an uninstallation would remove."""
    info = connection.info
    tables = [table for table, _, _ in await list_triggers(connection, backend)]
    ours = await (await connection.execute(_TABLES)).fetchall()
    return Inventory(
        host=info.host if info.host.startswith("/") else f"{info.host}:{info.port}",
        database=info.dbname,
        role=info.user,
        triggers={table: tables.count(table) for table in tables},
        rows={table: await _count(connection, table) for (table,) in ours},
    )


async def _count(connection: Connection, table: str) -> int:
    statement = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("listener", table))
    (rows,) = await only_row(await connection.execute(statement))
    return int(rows)
