"""What the doctor sees of a database, and whether the daemon can work with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from listener.domain.finding import (
    DIRECT,
    GRANT,
    MIGRATE,
    SEE_ALL_ROWS,
    UNDO_MIGRATION,
    Finding,
    State,
)

UNICODE = "UTF8"
_TOLERATED = timedelta(seconds=2)
_OLDEST, _NEWEST = 14, 18
# Before these releases VACUUM could drop the commit log that unread NOTIFY messages need. LISTEN
# then failed until a restart: "could not access status of transaction" (notes of 2026-02-12).
_NOTIFY_FIXED = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

_WRITABLE = (
    "turn it off for the server, the database, the role or in DATABASE_URL; then restart the daemon"
)
_SCHEMA_NAME = "set WXYC_SCHEMA_NAME to the backend's schema"
_HISTORY_TABLE = "add the table to the backend, see `listener runbook identity-history`"
_USUAL_DEADLOCK_TIMEOUT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Server:
    """A server; `version` is 150016 for 15.16, `clock_ahead` the lead of this machine's clock."""

    version: int
    version_name: str
    standby: bool
    read_only: bool
    database: str
    encoding: str
    role: str
    deadlock_timeout: timedelta
    clock_ahead: timedelta


@dataclass(frozen=True, slots=True)
class Rights:
    """Objects that do not exist at all, and rights that the role lacks on those that do.

    Row level security may hide rows of `hidden` tables. `refused` are the writes that fail in spite
    of the role's rights, each with the reason; `untried` says why not all were tried.
    """

    absent: tuple[str, ...]
    lacking: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    untried: str | None = None


@dataclass(frozen=True, slots=True)
class WakeupTrial:
    """Whether a NOTIFY arrived from the listening session itself, and from another one.

    `same_backend` says whether a session keeps its server process while another session works; a
    pooler in transaction mode shares them out.
    """

    from_itself: bool
    from_another: bool
    same_backend: bool


@dataclass(frozen=True, slots=True)
class HistoryTable:
    """The state of `library_identity_history`, and what prevents writing to it.

    `numbered` says whether its ids are whole numbers. Columns that we write may be `missing`, or
    `different` in type; `unknown` ones require a value that we cannot know. `lacking` are rights.
    """

    present: bool
    readable: bool
    numbered: bool
    missing: list[str]
    different: list[str]
    unknown: list[str]
    lacking: list[str]

    @property
    def countable(self) -> bool:
        """Whether its sequence matters to us and can be compared with its rows."""
        return self.readable and self.numbered and self.obstacle is None

    @property
    def obstacle(self) -> str | None:
        """Why no former identities are kept there; None if they are."""
        if not self.present:
            return "table library_identity_history does not exist"
        for names, what in (
            (self.missing, "library_identity_history has no column"),
            (self.different, "library_identity_history has an unknown type for"),
            (self.unknown, "library_identity_history requires a value of unknown meaning for"),
            (self.lacking, "missing right on library_identity_history:"),
        ):
            if names:
                return f"{what} {', '.join(names)}"
        return None


def unfit(encoding: str) -> str:
    """Return what is wrong with an encoding, and what to do."""
    return (
        f"encoded in {encoding}, which cannot hold every name that LML knows; "
        f"move the backend to a database encoded in {UNICODE}"
    )


def judge_server(server: Server) -> Iterator[Finding]:
    """Judge the database, the server's version, and its clock."""
    where = f"connected to {server.database} as {server.role}"
    if server.standby:
        advice = "point DATABASE_URL at the primary"
        yield Finding("database", State.FAIL, f"{where}, but it is a read-only standby", advice)
    elif server.encoding != UNICODE:
        finding, _, advice = unfit(server.encoding).partition("; ")
        yield Finding("database", State.FAIL, f"{where}, but it is {finding}", advice)
    elif server.read_only:
        finding = f"{where}, but it is read-only: default_transaction_read_only is on"
        yield Finding("database", State.FAIL, finding, _WRITABLE)
    else:
        yield Finding("database", State.OK, where)
    yield _judge_version(server)
    yield _judge_clock(server.clock_ahead)
    yield _judge_deadlock_timeout(server.deadlock_timeout)


def _judge_version(server: Server) -> Finding:
    major, minor = divmod(server.version, 10_000)
    named = f"PostgreSQL {server.version_name}"
    if major < _OLDEST:
        advice = f"upgrade the server to PostgreSQL {_OLDEST} or later"
        return Finding("server version", State.FAIL, f"{named} is not supported", advice)
    if major > _NEWEST:
        advice = "check for a newer listener"
        finding = f"{named} is newer than this listener was tested with"
        return Finding("server version", State.WARN, finding, advice)
    if minor < _NOTIFY_FIXED[major]:
        finding = f"{named} has a bug that can break LISTEN until the server restarts"
        advice = f"upgrade the server to {major}.{_NOTIFY_FIXED[major]} or later"
        return Finding("server version", State.WARN, finding, advice)
    return Finding("server version", State.OK, named)


def _judge_clock(ahead: timedelta) -> Finding:
    seconds = ahead.total_seconds()
    finding = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} the server's clock"
    if abs(ahead) <= _TOLERATED:
        return Finding("clock", State.OK, finding)
    advice = "synchronise both with NTP; log times do not match those in the database"
    return Finding("clock", State.WARN, finding, advice)


def _judge_deadlock_timeout(timeout: timedelta) -> Finding:
    finding = f"deadlock_timeout is {timeout.total_seconds():g} s"
    if timeout >= _USUAL_DEADLOCK_TIMEOUT:
        return Finding("deadlocks", State.OK, finding)
    finding += "; the daemon waits a fifth of that for a lock, so locked rows are retried often"
    advice = "raise deadlock_timeout to 1 s, the default, or more"
    return Finding("deadlocks", State.WARN, finding, advice)


def judge_parts(schema: list[str], triggers: list[str], lagging: list[str]) -> Iterator[Finding]:
    """Judge which parts of our schema and triggers are missing, and which sequences lag."""
    if schema:
        yield Finding("schema", State.FAIL, f"missing: {', '.join(schema)}", MIGRATE)
    elif lagging:
        finding = f"sequences behind their rows, as after a logical copy: {', '.join(lagging)}"
        yield Finding("schema", State.FAIL, finding, MIGRATE)
    else:
        yield Finding("schema", State.OK, "complete")
    if triggers:
        finding = f"missing, disabled or outdated: {', '.join(triggers)}"
        yield Finding("triggers", State.FAIL, finding, MIGRATE)
    else:
        yield Finding("triggers", State.OK, "installed, enabled and up to date")


def judge_keys(misdirected: Mapping[str, str]) -> Iterator[Finding]:
    """Judge whether foreign keys refer to the tables in use; the values repair the others."""
    if misdirected:
        finding = f"still refer to a table that was replaced: {'; '.join(misdirected)}"
        advice = f"run as the owner of the backend's tables: {'; '.join(misdirected.values())}"
        yield Finding("foreign keys", State.FAIL, finding, advice)
    else:
        yield Finding("foreign keys", State.OK, "refer to the tables in use")


def judge_statements(refused: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Judge whether the database can run every statement of ours; `refused` are by reason."""
    if refused:
        named = "; ".join(f"{why} ({', '.join(names)})" for why, names in refused.items())
        yield Finding("statements", State.FAIL, f"cannot run: {named}", UNDO_MIGRATION)
    else:
        yield Finding("statements", State.OK, "all can run")


def judge_rights(rights: Rights) -> Iterator[Finding]:
    """Judge which rights the role lacks; `judge_parts` reports what our schema lacks."""
    ours = ("listener.", "schema listener.")
    absent = [name for name in rights.absent if not f"{name}.".startswith(ours)]
    # A missing schema implies that its tables are missing too.
    schemas = [name for name in absent if name.startswith("schema ")]
    if absent:
        finding = f"not found: {', '.join(schemas or absent)}"
        yield Finding("rights", State.FAIL, finding, _SCHEMA_NAME)
    elif rights.lacking:
        yield Finding("rights", State.FAIL, f"missing: {', '.join(rights.lacking)}", GRANT)
    elif rights.hidden:
        finding = f"row level security may hide rows of {', '.join(rights.hidden)}"
        yield Finding("rights", State.FAIL, finding, SEE_ALL_ROWS)
    elif rights.refused:
        finding = f"a trigger of the backend rejects writes: {'; '.join(rights.refused)}"
        yield Finding("rights", State.FAIL, finding, GRANT)
    elif rights.untried is not None:
        finding = f"complete, but test writes failed: {rights.untried}"
        yield Finding("rights", State.WARN, finding, "run `listener doctor` again")
    else:
        yield Finding("rights", State.OK, "the role has every right it needs")


def judge_history(table: HistoryTable) -> Iterator[Finding]:
    """Judge whether former identities are kept; verdicts are written either way."""
    if table.obstacle is not None:
        advice = GRANT if table.lacking else _HISTORY_TABLE
        finding = f"former identities are not kept: {table.obstacle}"
        yield Finding("history", State.WARN, finding, f"{advice}; then restart the daemon")
    elif not table.readable:
        finding = "former identities are kept, but the role may not read them: SELECT is missing"
        yield Finding("history", State.WARN, finding, GRANT)
    else:
        yield Finding("history", State.OK, "former identities are kept")


def judge_wakeups(wakeups: WakeupTrial) -> Finding:
    """Judge whether wake-ups arrive, and whether the connection goes through a pooler."""
    arrive = wakeups.from_itself and wakeups.from_another
    if arrive and wakeups.same_backend:
        return Finding("wake-ups", State.OK, "LISTEN works; direct connection")
    if not wakeups.same_backend:
        finding = "a pooler shares our session with other clients; only doctor runs through it"
        return Finding("wake-ups", State.FAIL, finding, DIRECT)
    return Finding("wake-ups", State.WARN, "LISTEN does not work, so the daemon polls", DIRECT)
