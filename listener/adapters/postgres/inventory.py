"""What we have in a database, whether its triggers work, and which database it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from listener import shipped
from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.sessions import Connection, only_row, query, text_of
from listener.domain.change import Stream

_CREATED = re.compile(r"^CREATE (?:OR REPLACE )?TRIGGER (\w+)", re.MULTILINE)


async def uncaptured_streams(pool: Pool, backend: str) -> frozenset[Stream]:
    """Return the streams with a missing or disabled trigger."""
    async with session(pool) as connection:
        return frozenset(map(Stream, await broken_tables(connection, backend)))


async def misdirected_keys(pool: Pool, backend: str) -> dict[str, str]:
    """Return what `list_misdirected` does."""
    async with session(pool) as connection:
        return await list_misdirected(connection, backend)


async def list_triggers(connection: Connection, backend: str) -> list[tuple[str, str, bool]]:
    """Return our triggers: the table of each, its name, and whether it records changes."""
    cursor = await connection.execute(query("list_triggers", backend), {"backend": backend})
    return await cursor.fetchall()


async def broken_tables(connection: Connection, backend: str) -> set[str]:
    """Return the tables that lack a trigger of ours or have it disabled."""
    triggers = await list_triggers(connection, backend)
    enabled = {(table, trigger) for table, trigger, is_enabled in triggers if is_enabled}
    wanted = {
        (path.stem, trigger)
        for path in (shipped("sql") / "triggers").glob("*.sql")
        for trigger in _CREATED.findall(text_of("triggers", path.stem))
    }
    return {table for table, _ in wanted - enabled}


async def list_misdirected(connection: Connection, backend: str) -> dict[str, str]:
    """Return foreign keys that refer to a table that was replaced, with what repairs each."""
    cursor = await connection.execute(query("list_misdirected", backend), {"backend": backend})
    return dict(await cursor.fetchall())


_TABLES = """
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('listener') AND c.relkind IN ('r', 'p')
ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Where a session is connected, and what is there: triggers by table, rows by our tables."""

    host: str
    database: str
    role: str
    triggers: Mapping[str, int]
    rows: Mapping[str, int]


async def take_inventory(connection: Connection, backend: str) -> Inventory:
    """Return everything that an uninstallation would remove."""
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
