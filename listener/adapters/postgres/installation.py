"""Installs the listener in the backend's database, and removes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import psycopg
from psycopg import errors, sql

from listener import DISTRIBUTION, shipped
from listener.adapters.postgres import sessions
from listener.adapters.postgres.connection import reason_of, unavailable
from listener.adapters.postgres.history import look_at_history
from listener.adapters.postgres.locks import INSTALLING
from listener.adapters.postgres.statements import compose, query, text_of
from listener.domain.faults import FixableError, StoreUnavailableError

UNICODE = "UTF8"
_TRIES = 20
# Another process may be installing for a while.
_LIMITS = {"statement_timeout": "0", "lock_timeout": "0"}
_AS_OWNER = "run it as the owner of the backend's tables; see `listener runbook install`"
# Beside the parts, `listener.installed` holds which version of the program installed last.
_VERSION = "version"
_BACKEND_TABLES = ("library", "rotation", "library_identity", "library_identity_source")


class InstallationError(FixableError):
    """The installation could not be done; the message says why and what to do."""


class UnreachableError(InstallationError):
    """The database cannot be reached, or lets nobody in; `event` is what the log says of it."""

    def __init__(self, message: str, event: str = StoreUnavailableError.event) -> None:
        super().__init__(message)
        self.event = event


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


@contextmanager
def installing(dsn: str, advice: str = _AS_OWNER) -> Iterator[psycopg.Connection[Any]]:
    """Connect for installing; only one process at a time gets past this, the others wait.

    Raises `InstallationError` if anything fails; with the advice, if a right is missing.
    """
    try:
        with sessions.connect(dsn, "listener-migrate", _LIMITS) as connection:
            connection.execute(
                "SELECT pg_advisory_lock(%(lock_class)s::int, %(lock_number)s::int)",
                INSTALLING.parameters(),
            )
            yield connection
    except psycopg.OperationalError as error:
        fault = unavailable(error)
        raise UnreachableError(str(fault), fault.event) from error
    except errors.InsufficientPrivilege as error:
        raise InstallationError(f"{reason_of(error)}; {advice}") from error
    except psycopg.Error as error:
        raise InstallationError(reason_of(error)) from error


def install(connection: psycopg.Connection[Any], backend: str) -> list[str]:
    """Bring the database up to this version; returns what was done, nothing if all was there.

    Every step is a transaction of its own, so that an interrupted installation is taken up again.
    What a newer version installed is left as it is.
    """
    require_backend(connection, backend)
    newer = newer_version(connection)
    if newer is not None:
        _refuse_to_repair(newer, missing_parts(connection, backend))
        return []
    done = []
    if not _installed_table_exists(connection):
        connection.execute(compose(text_of("schema", "0000_installed"), backend))
        done.append("created schema listener")
    for part in missing_parts(connection, backend):
        _run(connection, part, backend)
        done.append(f"installed {part.label}")
    # A restore of the schema alone leaves the table empty.
    if connection.execute(query("fill_lanes", backend)).rowcount:
        done.append("filled listener.lane")
    done += [f"raised {name} to match its rows" for name in raise_sequences(connection, backend)]
    connection.execute(_record(_VERSION, version(DISTRIBUTION)))
    return done


def require_installed(connection: psycopg.Connection[Any], backend: str) -> list[Part]:
    """Return what is missing of the triggers.

    Raises `InstallationError` if our schema or a table of the backend is missing. Without working
    triggers there is less to follow, but everything can still be asked about.
    """
    require_backend(connection, backend)
    missing = missing_parts(connection, backend)
    schema = ", ".join(part.label for part in missing if part.folder == "schema")
    if not schema:
        return missing
    if _present_digests(connection):
        message = f"installed by an older version: {schema} missing; run `listener migrate`"
    else:
        message = f"not installed: {schema}; run `listener migrate`"
    raise InstallationError(message)


def raise_sequences(connection: psycopg.Connection[Any], backend: str) -> list[str]:
    """Bring sequences up to the rows drawn from them; return those that were behind."""
    return _lagging(connection, backend, raising=True)


def lagging_sequences(connection: psycopg.Connection[Any], backend: str) -> list[str]:
    """Return the sequences, ours and that of the history, that are behind the rows drawn from them.

    A copy of the rows alone, as logical replication makes it, leaves them so. Then every verdict is
    refused as older than what the ledger has, and no identity can be replaced.
    """
    return _lagging(connection, backend, raising=False)


def _lagging(connection: psycopg.Connection[Any], backend: str, *, raising: bool) -> list[str]:
    names = look_at_history(connection, backend).raising
    cursors = [connection.execute(query(name, backend), {"raising": raising}) for name in names]
    return [name for cursor in cursors for name, _ in cursor.fetchall()]


def newer_version(connection: psycopg.Connection[Any]) -> str | None:
    """Return the version of the program that installed last, if it is newer than this one.

    Each version works on what the next ones install: numbered files only ever add.
    """
    there = _present_digests(connection).get(_VERSION)
    if there is None or _order(there) <= _order(version(DISTRIBUTION)):
        return None
    return there


def missing_parts(connection: psycopg.Connection[Any], backend: str) -> list[Part]:
    """Return the parts that are not there, not enabled, or older than this version's."""
    present = _present_digests(connection)
    newer = newer_version(connection) is not None
    triggers = connection.execute(query("list_triggers", backend), {"backend": backend})
    broken = broken_tables(triggers.fetchall())
    return [
        part
        for part in _parts(backend)
        if present.get(part.label) is None
        or (part.folder == "triggers" and present[part.label] != part.digest and not newer)
        or (part.folder == "triggers" and part.name in broken)
    ]


def uninstall(connection: psycopg.Connection[Any], backend: str) -> list[str]:
    """Remove triggers and schema; returns what was done, nothing if nothing was there."""
    done = []
    cursor = connection.execute(query("list_triggers", backend), {"backend": backend})
    for table, trigger, _ in cursor.fetchall():
        statement = sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
            sql.Identifier(trigger), sql.Identifier(backend, table)
        )
        _patiently(connection, statement)
        done.append(f"dropped trigger {trigger} on {backend}.{table}")
    if _schema_exists(connection, "listener"):
        connection.execute("DROP SCHEMA listener CASCADE")
        done.append("dropped schema listener")
    return done


def _run(connection: psycopg.Connection[Any], part: Part, backend: str) -> None:
    text = compose(text_of(part.folder, part.name), backend)
    record = _record(part.label, part.digest)
    _patiently(connection, sql.SQL(";\n").join([text, record]))


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


def _patiently(connection: psycopg.Connection[Any], statement: sql.Composed) -> None:
    # Creating a trigger waits for the writers of its table, and new writers queue up behind the
    # wait: so it waits briefly, lets them through, and tries again.
    for left in reversed(range(_TRIES)):
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '500ms'")
                connection.execute(statement)
        except errors.LockNotAvailable:
            if not left:
                message = (
                    "a long transaction kept the backend's tables locked; "
                    "run `listener migrate` again after it ends"
                )
                raise InstallationError(message) from None
            connection.execute("SELECT pg_sleep(0.2)")
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


def _present_digests(connection: psycopg.Connection[Any]) -> dict[str, str]:
    if not _installed_table_exists(connection):
        return {}
    return dict(connection.execute("SELECT name, digest FROM listener.installed").fetchall())


def broken_tables(triggers: Iterable[tuple[str, str, bool]]) -> set[str]:
    """Return the tables that lack a trigger of ours or have it disabled, given `list_triggers`."""
    enabled = {(table, trigger) for table, trigger, is_enabled in triggers if is_enabled}
    wanted = {
        (path.stem, line.split()[2] if line.startswith("CREATE TRIGGER") else line.split()[4])
        for path in (shipped("sql") / "triggers").glob("*.sql")
        for line in text_of("triggers", path.stem).splitlines()
        if line.startswith(("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER"))
    }
    return {table for table, _ in wanted - enabled}


def _installed_table_exists(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT to_regclass('listener.installed') IS NOT NULL").fetchone()
    return bool(row and row[0])


def _schema_exists(connection: psycopg.Connection[Any], schema: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", (schema,)
    ).fetchone()
    return bool(row and row[0])


def encoding_of(connection: psycopg.Connection[Any]) -> str:
    """Return the encoding of the database."""
    return connection.info.parameter_status("server_encoding") or "unknown"


def unfit(encoding: str) -> str:
    """Say what is wrong with an encoding, and what to do."""
    return (
        f"encoded in {encoding}, which cannot hold every name that LML knows; "
        f"move the backend to a database encoded in {UNICODE}"
    )


def require_backend(connection: psycopg.Connection[Any], backend: str) -> None:
    """Raise `InstallationError` if a table of the backend is missing, or Unicode does not fit."""
    encoding = encoding_of(connection)
    if encoding != UNICODE:
        raise InstallationError(f"database {connection.info.dbname} is {unfit(encoding)}")
    # Looked up by name: to_regclass is an error where the schema may not be used.
    cursor = connection.execute(
        "SELECT c.relname FROM pg_class AS c INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s",
        (backend,),
    )
    present = {table for (table,) in cursor}
    for table in _BACKEND_TABLES:
        if table not in present:
            name = sql.Identifier(backend, table).as_string(connection)
            message = f"there is no table {name}; is WXYC_SCHEMA_NAME the backend's schema?"
            raise InstallationError(message)
