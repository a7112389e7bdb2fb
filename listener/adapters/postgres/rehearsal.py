"""Tests what we do in the database: plans every statement, and rolls back writes of no rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing

import psycopg
from psycopg import errors, sql

from listener import shipped
from listener.adapters.postgres.errors import reason_of
from listener.adapters.postgres.history import look_at_history
from listener.adapters.postgres.sessions import Connection, query
from listener.domain.faults import InstallationError

# All statements that write to the backend's tables. Even without rows, they fire statement
# triggers, with the rights of the role that writes.
_WRITES = (
    "fill_identities",
    "verify_identities",
    "hold_identities",
    "keep_identities",
    "replace_identities",
    "write_sources",
    "write_tracks",
    "restore_identity",
)
_OF_THE_HISTORY = frozenset(
    (
        "keep_identities",
        "lock_identity",
        "restore_identity",
        "read_former_identities",
        "list_replaced",
    )
)
_OF_ITS_SEQUENCE = "read_history_sequence"
# It has no plan.
_UNPLANNED = "analyze_tracks"
_NOTHING: defaultdict[str, None] = defaultdict(lambda: None)


async def refused_statements(connection: Connection, backend: str) -> dict[str, list[str]]:
    """Plan every statement; return the reasons why some cannot be planned, each with their names.

    This finds a renamed or retyped column without any row. Missing rights are left out. Raises
    `psycopg.Error` if the statements could not be tested.
    """
    refused: dict[str, list[str]] = {}
    left_out = await _left_out(connection, backend) | {_UNPLANNED}
    for name in sorted(path.stem for path in (shipped("sql") / "queries").glob("*.sql")):
        if name in left_out:
            continue
        statement = query(name, backend)
        try:
            async with connection.transaction(force_rollback=True):
                await connection.execute(
                    b"EXPLAIN " + statement, _NOTHING if b"%(" in statement else None
                )
        except errors.InsufficientPrivilege:
            continue
        except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.DataError) as error:
            refused.setdefault(reason_of(error), []).append(name)
    return refused


async def refused_writes(
    connection: Connection, backend: str, role: str | None = None
) -> AsyncGenerator[str, None]:
    """Yield the writes that a role, by default our own, is refused, each with the reason.

    The connection must be in a transaction, and able to act as the role. Raises `psycopg.Error` if
    a write could not be tested, for instance because of a lock.
    """
    left_out = await _left_out(connection, backend)
    for name in [each for each in _WRITES if each not in left_out]:
        write = query(name, backend)
        try:
            async with connection.transaction(force_rollback=True):
                if role is not None:
                    await connection.execute(_act_as(role))
                await connection.execute(write, _NOTHING)
        except errors.InsufficientPrivilege as error:
            yield f"{name}: {reason_of(error)}"


async def _left_out(connection: Connection, backend: str) -> set[str]:
    history = await look_at_history(connection, backend)
    left_out = set() if history.obstacle is None else set(_OF_THE_HISTORY)
    return left_out if history.countable else left_out | {_OF_ITS_SEQUENCE}


async def find_needs(connection: Connection, backend: str, role: str) -> list[str]:
    """Return the grants that a role's writes need because of triggers of the backend.

    The connection must be in a transaction. Raises `errors.InsufficientPrivilege` if it may not
    act as the role, `InstallationError` for a write that none of our grants permits.
    """
    needs = []
    async with connection.transaction(force_rollback=True):
        await _enable_acting_as(connection, role)
        while refusal := await _first_refused(connection, backend, role):
            needs.append(await _grant_against(refusal, connection, backend, role))
            await connection.execute(needs[-1].encode())
    return needs


async def _first_refused(connection: Connection, backend: str, role: str) -> str | None:
    async with aclosing(refused_writes(connection, backend, role)) as refused:
        return await anext(refused, None)


async def _enable_acting_as(connection: Connection, role: str) -> None:
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(_act_as(role))
    except errors.InsufficientPrivilege:
        # A role that may create roles may be a member of those that it created.
        member = sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role))
        await connection.execute(member)


def _act_as(role: str) -> sql.Composed:
    return sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))


async def _grant_against(refusal: str, connection: Connection, backend: str, role: str) -> str:
    """Return the smallest grant that resolves this refusal; another may follow it."""
    grantee = sql.Identifier(role).as_string(connection)
    candidates = await connection.execute(query("list_grants", backend), {"refusal": refusal})
    for (what,) in await candidates.fetchall():
        grant = f"GRANT {what} TO {grantee}"
        if await _helps(grant, refusal, connection, backend, role):
            return grant
    message = f"{refusal}; no grant by {connection.info.user} resolves that, grant it as the owner"
    raise InstallationError(message)


async def _helps(grant: str, refusal: str, connection: Connection, backend: str, role: str) -> bool:
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(grant.encode())
            return await _first_refused(connection, backend, role) != refusal
    except errors.InsufficientPrivilege:
        return False
