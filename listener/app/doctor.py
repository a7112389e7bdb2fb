"""Checks everything that the listener needs, and suggests fixes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import TypeVar

from listener.adapters.lml.health import LmlProbe, NoAnswerError, Probe, open_probe
from listener.adapters.postgres.errors import CONNECT
from listener.adapters.postgres.examination import (
    Rights,
    Server,
    Wakeups,
    examining,
    read_history,
    read_misdirected,
    read_missing,
    read_refused,
    read_rights,
    read_server,
    read_work,
    rehearsing,
    try_wakeups,
)
from listener.adapters.postgres.history import HistoryTable
from listener.adapters.postgres.installation import UNICODE, unfit
from listener.adapters.postgres.rights import GRANT, SEE_ALL_ROWS
from listener.adapters.postgres.sessions import Connection
from listener.app.at_work import AT_WORK, judge_work
from listener.app.finding import MIGRATE, UNDO_MIGRATION, Finding, State, skipped
from listener.app.gate import ask_gate
from listener.domain.faults import StoreUnavailableError
from listener.domain.gate import ABSENT, Open, Route
from listener.settings import Settings, SettingsError, StatusSettings, load_settings

T = TypeVar("T")

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
_DIRECT = "point DATABASE_URL at PostgreSQL itself, or at a pooler in session mode"
_LML_DOWN = "check LIBRARY_METADATA_URL; see `listener runbook lml-down`"
_LML_KEY = "set LML_API_KEY to a valid key; LML may take 5 minutes to accept a new one"
_LML_ROUTE = "correct LIBRARY_METADATA_URL, or deploy an LML that has the route"
_NOT_LML = "correct LIBRARY_METADATA_URL, or fix the proxy in front of LML"
_LML_SLOW = "LML is overloaded; wait before a backfill"

_USUAL_DEADLOCK_TIMEOUT = timedelta(seconds=1)
_SERVER = ("database", "server version", "clock", "deadlocks")
_PARTS = ("schema", "triggers")
_KEYS = ("foreign keys",)
_RIGHTS = ("rights",)
_STATEMENTS = ("statements",)
_HISTORY = ("history",)
_ON_THE_DATABASE = (*_SERVER[1:], *_PARTS, *_KEYS, *_RIGHTS, *_STATEMENTS, *_HISTORY)
_ON_LML = tuple(f"LML {route.name.lower()} route" for route in Route)
_ROUTES = dict(zip(Route, _ON_LML, strict=True))


async def examine(*, at_work: bool = True) -> list[Finding]:
    """Read the settings and run every check that they allow, changing nothing.

    Without `at_work` it does not look for daemons: there need not be any yet.
    """
    try:
        settings = load_settings(Settings)
    except SettingsError as error:
        wrong = Finding("settings", State.FAIL, str(error), "correct them; README.md lists them")
        looked = await _database(_status_settings(), at_work=at_work)
        return [wrong, *looked, *skipped("settings", *_FURTHER)]
    found = await asyncio.gather(
        _database(settings, at_work=at_work), _lml(settings), _gate(settings)
    )
    return [
        Finding("settings", State.OK, "all valid"),
        *(finding for findings in found for finding in findings),
        judge_sentry(settings.sentry_dsn.get_secret_value() if settings.sentry_dsn else None),
    ]


_FURTHER = ("LML", *_ON_LML, "deploy gate", "Sentry")


def _status_settings() -> StatusSettings | None:
    try:
        return load_settings(StatusSettings)
    except SettingsError:
        return None


async def _database(settings: StatusSettings | None, *, at_work: bool) -> list[Finding]:
    further = (*_ON_THE_DATABASE, *(AT_WORK if at_work else ()), "wake-ups")
    if settings is None:
        return skipped("settings", "database", *further)
    dsn = settings.database_url.get_secret_value()
    try:
        looked = await _look(settings, at_work=at_work)
    except StoreUnavailableError as error:
        finding, _, advice = str(error).partition("; ")
        unreachable = Finding("database", State.FAIL, finding, advice or CONNECT)
        return [unreachable, *skipped("database", *further)]
    try:
        return [*looked, judge_wakeups(await try_wakeups(dsn))]
    except StoreUnavailableError as error:
        finding = f"LISTEN fails, so the daemon polls: {error}"
        return [*looked, Finding("wake-ups", State.WARN, finding, _DIRECT)]


async def _look(settings: StatusSettings, *, at_work: bool) -> list[Finding]:
    dsn, backend = settings.database_url.get_secret_value(), settings.wxyc_schema_name
    async with examining(dsn) as connection:
        server = await _read(_SERVER, judge_server, read_server(connection, backend))
        parts, installed = await _parts(connection, backend)
        return [
            *server,
            *parts,
            *await _read(_KEYS, judge_keys, read_misdirected(connection, backend)),
            *await _rights(dsn, backend),
            *await _statements(connection, backend, installed=installed),
            *await _read(_HISTORY, judge_history, read_history(connection, backend)),
            *(await _work(connection, settings, installed=installed) if at_work else ()),
        ]


async def _parts(connection: Connection, backend: str) -> tuple[list[Finding], bool]:
    """Return what is found of the installation, and whether our schema is complete."""
    try:
        missing = await read_missing(connection, backend)
    except StoreUnavailableError as error:
        return _unreadable(_PARTS, error), False
    return list(judge_parts(*missing)), not missing[0]


async def _rights(dsn: str, backend: str) -> list[Finding]:
    async with rehearsing(dsn) as connection:
        return await _read(_RIGHTS, judge_rights, read_rights(connection, backend))


async def _statements(connection: Connection, backend: str, *, installed: bool) -> list[Finding]:
    if not installed:
        return skipped("schema", *_STATEMENTS)
    try:
        return list(judge_statements(await read_refused(connection, backend)))
    except StoreUnavailableError as error:
        finding = f"could not be checked: {error}"
        return [Finding(*_STATEMENTS, State.WARN, finding, "run `listener doctor` again")]


async def _work(
    connection: Connection, settings: StatusSettings, *, installed: bool
) -> list[Finding]:
    if not installed:
        return skipped("schema", *AT_WORK)
    backend, scope = settings.wxyc_schema_name, settings.include_null_canonical
    try:
        status = await read_work(connection, backend, include_null_canonical=scope)
    except StoreUnavailableError as error:
        first, *others = AT_WORK
        finding = f"the state of the daemons cannot be read: {error}"
        advice = f"{GRANT}; then run `listener doctor` again"
        return [Finding(first, State.FAIL, finding, advice), *skipped(first, *others)]
    return list(judge_work(status, settings))


async def _read(
    checks: tuple[str, ...], judge: Callable[[T], Iterator[Finding]], look: Awaitable[T]
) -> list[Finding]:
    try:
        return list(judge(await look))
    except StoreUnavailableError as error:
        return _unreadable(checks, error)


def _unreadable(checks: tuple[str, ...], error: StoreUnavailableError) -> list[Finding]:
    first, *others = checks
    finding = Finding(first, State.FAIL, str(error), f"{GRANT}; or {MIGRATE}")
    return [finding, *skipped(first, *others)]


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
    """Judge whether foreign keys refer to the tables in use; each comes with what repairs it."""
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


def judge_wakeups(wakeups: Wakeups) -> Finding:
    """Judge whether wake-ups arrive, and whether the connection goes through a pooler."""
    arrive = wakeups.from_itself and wakeups.from_another
    if arrive and wakeups.same_backend:
        return Finding("wake-ups", State.OK, "LISTEN works; direct connection")
    if not wakeups.same_backend:
        finding = "a pooler shares our session with other clients; only doctor runs through it"
        return Finding("wake-ups", State.FAIL, finding, _DIRECT)
    return Finding("wake-ups", State.WARN, "LISTEN does not work, so the daemon polls", _DIRECT)


async def _lml(settings: Settings) -> list[Finding]:
    key = settings.lml_api_key.get_secret_value() if settings.lml_api_key else None
    async with open_probe(str(settings.library_metadata_url), key) as lml:
        return list(await asyncio.gather(_health(lml), *(_route(lml, route) for route in Route)))


async def _health(lml: LmlProbe) -> Finding:
    try:
        health = await lml.health()
    except NoAnswerError as error:
        return Finding("LML", State.FAIL, str(error), _LML_DOWN)
    finding = f"reachable, {health.status}; commit {health.commit or 'unknown'}"
    match health.status:
        case "healthy":
            return Finding("LML", State.OK, finding)
        case "unhealthy":
            return Finding("LML", State.FAIL, finding, _LML_DOWN)
        case _:
            return Finding("LML", State.WARN, finding, "check LML's log")


async def _route(lml: LmlProbe, route: Route) -> Finding:
    try:
        return judge_probe(_ROUTES[route], await lml.probe(route))
    except NoAnswerError as error:
        return Finding(_ROUTES[route], State.FAIL, str(error), _LML_DOWN)


def judge_probe(check: str, probe: Probe) -> Finding:
    """Judge how a route answered an empty request, and how long that took."""
    took = _spoken(probe.took)
    match probe.status:
        case HTTPStatus.OK if not probe.is_lml:
            return Finding(
                check, State.FAIL, f"another service answers, not LML ({took})", _NOT_LML
            )
        case HTTPStatus.OK | HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
            return _judge_pace(check, probe.took)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Finding(check, State.FAIL, f"key rejected ({probe.status})", _LML_KEY)
        case status if status in ABSENT:
            return Finding(check, State.FAIL, f"LML has no such route ({status})", _LML_ROUTE)
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Finding(check, State.WARN, f"too many requests (429, {took})", _LML_SLOW)
        case status:
            return Finding(check, State.FAIL, f"LML answers {status} ({took})", _LML_DOWN)


def _judge_pace(check: str, took: timedelta) -> Finding:
    if took <= _TOLERATED:
        return Finding(check, State.OK, f"reachable, key accepted ({_spoken(took)})")
    return Finding(check, State.WARN, f"reachable, but took {_spoken(took)}", _LML_SLOW)


def _spoken(took: timedelta) -> str:
    seconds = took.total_seconds()
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


async def _gate(settings: Settings) -> list[Finding]:
    if settings.gate_commit_sha is None:
        return [Finding("deploy gate", State.OK, "not set")]
    answer = await ask_gate(settings, settings.gate_commit_sha, Route)
    if isinstance(answer, Open):
        return [Finding("deploy gate", State.OK, f"open: {answer.reason}")]
    return [Finding("deploy gate", State.FAIL, f"shut: {answer.reason}", answer.advice)]


def judge_sentry(dsn: str | None) -> Finding:
    """Judge whether SENTRY_DSN is well-formed, without sending anything."""
    if dsn is None:
        return Finding("Sentry", State.OK, "not set")
    # Takes a third of a second to import, which no other command should pay for.
    from sentry_sdk.utils import Dsn  # noqa: PLC0415

    try:
        Dsn(dsn)
    except ValueError:
        advice = "copy SENTRY_DSN from the project's page in Sentry, or unset it"
        return Finding("Sentry", State.FAIL, "SENTRY_DSN is malformed", advice)
    return Finding("Sentry", State.OK, "SENTRY_DSN is well-formed")
