"""The rights that a daemon needs: checked by the doctor, granted to a separate role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from psycopg import errors, sql

from listener.adapters.postgres.errors import reason_of
from listener.adapters.postgres.rehearsal import find_needs
from listener.adapters.postgres.sessions import Connection, only_row, query, read
from listener.domain.faults import InstallationError
from listener.domain.finding import SEE_ALL_ROWS

_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")
# What a daemon needs, each with its rights.
_OURS = (
    ("TABLE", "installed", "SELECT"),
    ("TABLE", "change", "SELECT", "INSERT", "DELETE"),
    ("TABLE", "ledger", *_ROWS),
    ("TABLE", "run", *_ROWS),
    ("TABLE", "slot", "SELECT", "INSERT", "UPDATE"),
    ("TABLE", "sample", "SELECT", "INSERT", "DELETE"),
    ("TABLE", "lane", "SELECT", "UPDATE"),
    ("TABLE", "refresh", *_ROWS),
    ("TABLE", "warmth", *_ROWS),
    ("TABLE", "rotation_failure", *_ROWS),
    ("SEQUENCE", "ask_order", "USAGE", "UPDATE"),
    ("ROUTINE", "question_digest", "EXECUTE"),
    ("ROUTINE", "still_holds", "EXECUTE"),
    ("ROUTINE", "is_kept", "EXECUTE"),
    ("ROUTINE", "is_contradicted", "EXECUTE"),
    ("ROUTINE", "is_compilation", "EXECUTE"),
    ("ROUTINE", "reason_after", "EXECUTE"),
)
_LINK = "track_artist_id, track_artist_link_confidence, track_artist_link_method, track_position"
_OPTIONAL = "library_identity_history"
_OF_THE_BACKEND = (
    # A row lock requires the right to update some column, no matter which; the daemon updates none.
    ("TABLE", "library", "SELECT", "UPDATE (id)"),
    ("TABLE", "rotation", "SELECT", "UPDATE (lml_identity_id)"),
    ("TABLE", "artists", "SELECT"),
    ("ROUTINE", "fold_artist_name", "EXECUTE"),
    ("TABLE", "compilation_track_artist", "SELECT", f"UPDATE ({_LINK})"),
    ("TABLE", "library_identity", *_ROWS),
    ("TABLE", "library_identity_source", *_ROWS),
    ("TABLE", _OPTIONAL, "SELECT", "INSERT"),
)


@dataclass(frozen=True, slots=True)
class Right:
    """One right on one object; `granted` is None if the object does not exist."""

    kind: str
    schema_name: str | None
    name: str
    wanted_right: str
    granted: bool | None

    @property
    def thing(self) -> str:
        """The object, in words for people."""
        if self.schema_name is None:
            return f"{self.kind.lower()} {self.name}"
        return f"{self.schema_name}.{self.name}"

    @property
    def label(self) -> str:
        """The right and its object, in words for people."""
        return f"{self.wanted_right} on {self.thing}"


async def list_rights(connection: Connection, backend: str, role: str | None = None) -> list[Right]:
    """Return the rights that a daemon needs, and whether a role, by default our own, has them."""
    kinds, schemas, names, rights = map(list, zip(*_wanted(backend), strict=True))
    parameters = {
        "kinds": kinds,
        "schemas": schemas,
        "names": names,
        "rights": rights,
        "optional": _OPTIONAL,
        "role": role,
    }
    return await read(connection, Right, query("list_rights", backend), parameters)


def _wanted(backend: str) -> Iterator[tuple[str, str | None, str | None, str]]:
    """Yield kind, schema, name and right; the database is the one to which we are connected."""
    yield "DATABASE", None, None, "CONNECT"
    for schema, things in (("listener", _OURS), (backend, _OF_THE_BACKEND)):
        yield "SCHEMA", None, schema, "USAGE"
        for kind, name, *rights in things:
            yield from ((kind, schema, name, right) for right in rights)


async def list_hidden(
    connection: Connection, backend: str, role: str | None = None
) -> tuple[str, ...]:
    """Return the tables in which row level security may hide rows from a role, or from our own."""
    parameters = {"backend": backend, "role": role}
    cursor = await connection.execute(query("list_hidden", backend), parameters)
    return tuple(name for (name,) in await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Grants:
    """The SQL that grants a daemon's rights to a role; `untried`: why no writes were tested."""

    statements: list[str]
    untried: str | None = None


async def plan_grants(connection: Connection, backend: str, role: str) -> Grants:
    """Return what `apply_grants` would run; nothing is changed.

    Raises `InstallationError` for our own role, and for one that owns something in our schema: it
    would lose rights that it needs.
    """
    known = await _known_grants(connection, backend, role)
    try:
        async with connection.transaction(force_rollback=True):
            return await _grant(connection, backend, role)
    except (InstallationError, errors.InsufficientPrivilege) as error:
        return Grants(known, str(error).splitlines()[0])


async def apply_grants(connection: Connection, backend: str, role: str) -> Grants:
    """Grant a role a daemon's rights, and no others in our schema, in one transaction.

    Raises `InstallationError` as `plan_grants` does, and if the role cannot be created, or did not
    get every right.
    """
    async with connection.transaction():
        return await _grant(connection, backend, role)


async def _grant(connection: Connection, backend: str, role: str) -> Grants:
    known = await _known_grants(connection, backend, role)
    for statement in known:
        await _run(connection, statement)
    # If we may grant nothing on an object, PostgreSQL only warns.
    rights = await list_rights(connection, backend, role)
    lacking = [each.label for each in rights if each.granted is False]
    if lacking:
        message = f"could not grant {', '.join(lacking)}; run it as the owner of these tables"
        raise InstallationError(message)
    if hidden := await list_hidden(connection, backend, role):
        return Grants(known, f"row level security applies to {', '.join(hidden)}; {SEE_ALL_ROWS}")
    try:
        needs = await find_needs(connection, backend, role)
    except errors.InsufficientPrivilege as error:
        return Grants(known, reason_of(error))
    for statement in needs:
        await _run(connection, statement)
    return Grants(known + needs)


async def _known_grants(connection: Connection, backend: str, role: str) -> list[str]:
    cursor = await connection.execute(query("look_at_role", backend), {"role": role})
    present, ourselves, owner = await only_row(cursor)
    _refuse(role, ourselves=ourselves, owner=owner)
    name = sql.Identifier(role)
    statements = [] if present else [sql.SQL("CREATE ROLE {} LOGIN").format(name)]
    statements += [
        sql.SQL("REVOKE ALL ON ALL {} IN SCHEMA listener FROM {}").format(sql.SQL(kind), name)
        for kind in ("TABLES", "SEQUENCES")
    ]
    statements += _grants(await list_rights(connection, backend, role), name)
    return [statement.as_string(connection) for statement in statements]


async def _run(connection: Connection, statement: str) -> None:
    try:
        await connection.execute(statement.encode())
    except errors.InsufficientPrivilege as error:
        if not statement.startswith("CREATE ROLE"):
            raise
        message = (
            f"{reason_of(error)}; give {connection.info.user} CREATEROLE, "
            f"or have an administrator run this first: {statement}"
        )
        raise InstallationError(message) from error


def _grants(rights: list[Right], role: sql.Identifier) -> Iterator[sql.Composed]:
    there = [right for right in rights if right.granted is not None]
    for (kind, schema, name), on_it in groupby(there, key=_thing):
        yield sql.SQL("GRANT {} ON {} {} TO {}").format(
            # Only ever from our own list.
            sql.SQL(", ").join(sql.SQL(right.wanted_right) for right in on_it),
            sql.SQL(kind),
            sql.Identifier(*filter(None, (schema, name))),
            role,
        )


def _thing(right: Right) -> tuple[str, str | None, str]:
    return right.kind, right.schema_name, right.name


def _refuse(role: str, *, ourselves: bool, owner: bool) -> None:
    if ourselves or owner:
        what = (
            f"connected as role {role}"
            if ourselves
            else f"role {role} owns schema listener or part of it"
        )
        message = (
            f"{what}: it would lose rights that `listener migrate` needs; "
            "give the daemon a role of its own"
        )
        raise InstallationError(message)
