"""Installs the listener in the backend's database, and removes it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version

from psycopg import errors, sql

from listener import DISTRIBUTION, shipped
from listener.adapters.postgres.connection import connected
from listener.adapters.postgres.errors import reason_of
from listener.adapters.postgres.history import look_at_history
from listener.adapters.postgres.inventory import broken_tables, list_triggers
from listener.adapters.postgres.locks import INSTALLING
from listener.adapters.postgres.sessions import Connection, compose, only_row, query, text_of
from listener.domain.database import UNICODE, unfit
from listener.domain.faults import InstallationError

_TRIES = 20
_LET_WRITERS_THROUGH = timedelta(milliseconds=200)
# Another process may take a while to install.
_LIMITS = {"statement_timeout": "0", "lock_timeout": "0"}
_AS_OWNER = "run it as the owner of the backend's tables; see `listener runbook install`"
# Beside the parts, `listener.installed` holds which version of the program installed last.
_VERSION = "version"
_BACKEND_TABLES = ("library", "rotation", "library_identity", "library_identity_source")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of SQL: a numbered step of our schema, or the triggers of one table."""

    folder: str
    name: str
    digest: str

    @property
    def label(self) -> str:
        """What the part is called in messages and in `listener.installed`."""
        return f"{self.folder}/{self.name}"


@asynccontextmanager
async def installing(dsn: str, advice: str = _AS_OWNER) -> AsyncIterator[Connection]:
    """Connect to install; only one process at a time gets past this, the others wait.

    Raises `InstallationError` with advice if a right is missing; otherwise as `connected`.
    """
    async with connected(dsn, "listener-migrate", _LIMITS) as connection:
        try:
            await connection.execute(
                "SELECT pg_advisory_lock(%(lock_class)s::int, %(lock_number)s::int)",
                INSTALLING,
            )
            yield connection
        except errors.InsufficientPrivilege as error:
            raise InstallationError(f"{reason_of(error)}; {advice}") from error


async def install(connection: Connection, backend: str) -> list[str]:
    """Bring the database up to this version; return what was done, nothing if all was in place.

    Every step is a separate transaction, so that an interrupted installation can be continued.
    What a newer version installed is left unchanged.
    """
    await require_backend(connection, backend)
    newer = await newer_version(connection)
    if newer is not None:
        _refuse_to_repair(newer, await missing_parts(connection, backend))
        return []
    done = []
    if not await _installed_table_exists(connection):
        await connection.execute(compose(text_of("schema", "0000_installed"), backend))
        done.append("created schema listener")
    for part in await missing_parts(connection, backend):
        await _run(connection, part, backend)
        done.append(f"installed {part.label}")
    # A restore of the schema alone leaves the table empty.
    if (await connection.execute(query("fill_lanes", backend))).rowcount:
        done.append("filled listener.lane")
    raised = await raise_sequences(connection, backend)
    done += [f"raised {name} to match its rows" for name in raised]
    await connection.execute(_record(_VERSION, version(DISTRIBUTION)))
    return done


async def require_installed(connection: Connection, backend: str) -> list[Part]:
    """Return what is missing of the triggers.

    Raises `InstallationError` if our schema or a table of the backend is missing. Without working
    triggers there is less to follow, but everything can still be asked about.
    """
    await require_backend(connection, backend)
    missing = await missing_parts(connection, backend)
    schema = ", ".join(part.label for part in missing if part.folder == "schema")
    if not schema:
        return missing
    if await _present_digests(connection):
        message = f"installed by an older version: {schema} missing; run `listener migrate`"
    else:
        message = f"not installed: {schema}; run `listener migrate`"
    raise InstallationError(message)


async def raise_sequences(connection: Connection, backend: str) -> list[str]:
    """Advance sequences to the rows drawn from them; return those that were behind."""
    return await _lagging(connection, backend, raising=True)


async def lagging_sequences(connection: Connection, backend: str) -> list[str]:
    """Return the sequences, ours and that of the history, that are behind the rows drawn from them.

    A copy of only the rows, as logical replication makes it, leaves them behind. Then every verdict
    is rejected as older than the ledger's, and no identity can be replaced.
    """
    return await _lagging(connection, backend, raising=False)


async def _lagging(connection: Connection, backend: str, *, raising: bool) -> list[str]:
    sequence, highest = None, None
    if (await look_at_history(connection, backend)).countable:
        found = await connection.execute(query("read_history_sequence", backend))
        sequence, highest = await only_row(found)
    parameters = {
        "raising": raising,
        "history_sequence": sequence,
        "history_highest": highest,
    }
    cursor = await connection.execute(query("raise_sequences", backend), parameters)
    return [name for name, _ in await cursor.fetchall()]


async def newer_version(connection: Connection) -> str | None:
    """Return the version of the program that installed last, if it is newer than this one.

    Each version works on what the next ones install: numbered files only ever add.
    """
    return _newer_in(await _present_digests(connection))


def _newer_in(present: Mapping[str, str]) -> str | None:
    there = present.get(_VERSION)
    if there is None or _order(there) <= _order(version(DISTRIBUTION)):
        return None
    return there


async def missing_parts(connection: Connection, backend: str) -> list[Part]:
    """Return the parts that are missing, disabled, or older than this version's."""
    present = await _present_digests(connection)
    newer = _newer_in(present) is not None
    broken = await broken_tables(connection, backend)
    return [
        part
        for part in _parts(backend)
        if present.get(part.label) is None
        or (part.folder == "triggers" and present[part.label] != part.digest and not newer)
        or (part.folder == "triggers" and part.name in broken)
    ]


async def uninstall(connection: Connection, backend: str) -> list[str]:
    """Remove triggers and schema; return what was done, nothing if nothing was installed."""
    done = []
    for table, trigger, _ in await list_triggers(connection, backend):
        statement = sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
            sql.Identifier(trigger), sql.Identifier(backend, table)
        )
        await _patiently(connection, statement)
        done.append(f"dropped trigger {trigger} on {backend}.{table}")
    if await _schema_exists(connection, "listener"):
        await connection.execute("DROP SCHEMA listener CASCADE")
        done.append("dropped schema listener")
    return done


async def _run(connection: Connection, part: Part, backend: str) -> None:
    text = compose(text_of(part.folder, part.name), backend)
    record = _record(part.label, part.digest)
    await _patiently(connection, sql.SQL(";\n").join([text, record]))


def _record(name: str, digest: str) -> sql.Composed:
    return sql.SQL(
        "INSERT INTO listener.installed AS i (name, digest) VALUES ({}, {}) "
        "ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, installed_at = now() "
        "WHERE i.digest <> excluded.digest"
    ).format(name, digest)


def _refuse_to_repair(newer: str, missing: list[Part]) -> None:
    if missing:
        labels = ", ".join(part.label for part in missing)
        message = (
            f"missing {labels}, installed by listener {newer}, and this is the older "
            f"{version(DISTRIBUTION)}; run `listener migrate` of that version"
        )
        raise InstallationError(message)


def _order(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


async def _patiently(connection: Connection, statement: sql.Composed) -> None:
    # Creating a trigger waits for the writers of its table, and new writers queue up behind that
    # wait. So it waits only briefly, lets them proceed, and tries again.
    for left in reversed(range(_TRIES)):
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '500ms'")
                await connection.execute(statement)
        except errors.LockNotAvailable:
            if not left:
                message = (
                    "a long transaction kept the backend's tables locked; "
                    "run `listener migrate` again after it ends"
                )
                raise InstallationError(message) from None
            await asyncio.sleep(_LET_WRITERS_THROUGH.total_seconds())
        else:
            return


def _parts(backend: str) -> list[Part]:
    return [
        Part(folder, path.stem, _digest(text_of(folder, path.stem), backend))
        for folder in ("schema", "triggers")
        for path in sorted((shipped("sql") / folder).glob("*.sql"))
        if not path.stem.startswith("0000")
    ]


def _digest(text: str, backend: str) -> str:
    return hashlib.sha256(f"{backend}\n{text}".encode()).hexdigest()


async def _present_digests(connection: Connection) -> dict[str, str]:
    if not await _installed_table_exists(connection):
        return {}
    cursor = await connection.execute("SELECT name, digest FROM listener.installed")
    return dict(await cursor.fetchall())


async def _installed_table_exists(connection: Connection) -> bool:
    (exists,) = await only_row(
        await connection.execute("SELECT to_regclass('listener.installed') IS NOT NULL")
    )
    return bool(exists)


async def _schema_exists(connection: Connection, schema: str) -> bool:
    (exists,) = await only_row(
        await connection.execute(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", (schema,)
        )
    )
    return bool(exists)


def encoding_of(connection: Connection) -> str:
    """Return the encoding of the database."""
    return connection.info.parameter_status("server_encoding") or "unknown"


async def require_backend(connection: Connection, backend: str) -> None:
    """Raise `InstallationError` if a backend table is missing, or the encoding is not Unicode."""
    encoding = encoding_of(connection)
    if encoding != UNICODE:
        raise InstallationError(f"database {connection.info.dbname} is {unfit(encoding)}")
    # Looked up by name: to_regclass is an error where the schema may not be used.
    cursor = await connection.execute(
        "SELECT c.relname FROM pg_class AS c INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s",
        (backend,),
    )
    present = {table for (table,) in await cursor.fetchall()}
    for table in _BACKEND_TABLES:
        if table not in present:
            name = sql.Identifier(backend, table).as_string(connection)
            message = f"there is no table {name}; is WXYC_SCHEMA_NAME the backend's schema?"
            raise InstallationError(message)
