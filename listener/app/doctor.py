"""Looks at all that the listener needs, and tells what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any, TypeVar

import psycopg

from listener.adapters.lml.health import LmlProbe, NoAnswerError, Probe, open_probe
from listener.adapters.postgres.examination import (
    Rights,
    Server,
    UnreadableError,
    Wakeups,
    examining,
    read_faults,
    read_history,
    read_missing,
    read_refused,
    read_rights,
    read_server,
    rehearsing,
    try_wakeups,
)
from listener.adapters.postgres.history import HistoryTable
from listener.adapters.postgres.installation import UNICODE, UnreachableError, unfit
from listener.adapters.postgres.rights import GRANT, SEE_ALL_ROWS
from listener.app.gate import ask_gate
from listener.app.in_thread import in_thread
from listener.domain.gate import ABSENT, Open, Route
from listener.settings import DatabaseSettings, Settings, SettingsError, load_settings

_TOLERATED = timedelta(seconds=2)
_OLDEST, _NEWEST = 14, 18
# From these on VACUUM keeps the commit log that unread NOTIFY messages still need; before, LISTEN
# may fail for good with "could not access status of transaction" (release notes of 2026-02-12).
_NOTIFY_MENDED = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

_CONNECT = "start PostgreSQL, or correct DATABASE_URL"
_MIGRATION = "see runbooks/database-down.md; undo the migration, or upgrade the listener"
_WRITABLE = (
    "turn it off where it is on: the server, the database, the role or DATABASE_URL; "
    "then restart the daemon"
)
_MIGRATE = "run `listener migrate` as the owner of the backend's tables"
_SCHEMA_NAME = "set WXYC_SCHEMA_NAME to the backend's schema"
_HISTORY_TABLE = "have the backend add the table, as runbooks/identity-history.md tells"
_DIRECT = (
    "connect directly: point DATABASE_URL at PostgreSQL itself, or at a pooler in session mode"
)
_LML_DOWN = "see runbooks/lml-down.md; correct LIBRARY_METADATA_URL if it is another"
_LML_KEY = "set LML_API_KEY to a key that LML knows; after a rotation it takes up to 5 minutes"
_LML_ROUTE = "correct LIBRARY_METADATA_URL, or deploy an LML that has the route"
_NOT_LML = "correct LIBRARY_METADATA_URL, or what stands between: another service answers there"
_LML_SLOW = "LML is overloaded; wait before a backfill"


class State(StrEnum):
    """How a check ended; a skipped one needs what another one found missing."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; there is advice where something is to be done."""

    check: str
    state: State
    finding: str
    advice: str = ""


T = TypeVar("T")
_USUAL_DEADLOCK_TIMEOUT = timedelta(seconds=1)
_SERVER = ("database", "server version", "clock", "deadlocks")
_PARTS = ("schema", "triggers")
_RIGHTS = ("rights",)
_STATEMENTS = ("statements",)
_HISTORY = ("history",)
_CHANGES = ("changes",)
_ON_THE_DATABASE = (*_SERVER[1:], *_PARTS, *_RIGHTS, *_STATEMENTS, *_HISTORY, *_CHANGES, "wake-ups")
_ON_LML = tuple(f"LML {route.name.lower()} route" for route in Route)
_ROUTES = dict(zip(Route, _ON_LML, strict=True))


async def examine() -> list[Finding]:
    """Read the settings and make every check that they allow; nothing is changed anywhere."""
    try:
        settings = load_settings(Settings)
    except SettingsError as error:
        wrong = Finding("settings", State.FAIL, str(error), "correct them; README.md has them all")
        return [wrong, *await _database(_database_settings()), *_skipped("settings", *_FURTHER)]
    found = await asyncio.gather(_database(settings), _lml(settings), _gate(settings))
    return [
        Finding("settings", State.OK, "all are in their bounds"),
        *(finding for findings in found for finding in findings),
        judge_sentry(settings.sentry_dsn.get_secret_value() if settings.sentry_dsn else None),
    ]


_FURTHER = ("LML", *_ON_LML, "deploy gate", "Sentry")


def _database_settings() -> DatabaseSettings | None:
    try:
        return load_settings(DatabaseSettings)
    except SettingsError:
        return None


async def _database(settings: DatabaseSettings | None) -> list[Finding]:
    if settings is None:
        return _skipped("settings", "database", *_ON_THE_DATABASE)
    dsn, backend = settings.database_url.get_secret_value(), settings.wxyc_schema_name
    try:
        looked = await in_thread(_look, dsn, backend)
    except UnreachableError as error:
        unreachable = Finding("database", State.FAIL, str(error), _CONNECT)
        return [unreachable, *_skipped("database", *_ON_THE_DATABASE)]
    try:
        return [*looked, judge_wakeups(await try_wakeups(dsn))]
    except UnreadableError as error:
        finding = f"LISTEN fails, the daemon polls: {error}"
        return [*looked, Finding("wake-ups", State.WARN, finding, _DIRECT)]


def _look(dsn: str, backend: str) -> list[Finding]:
    with examining(dsn) as connection:
        return [
            *_read(_SERVER, lambda: judge_server(read_server(connection, backend))),
            *_read(_PARTS, lambda: judge_parts(*read_missing(connection, backend))),
            *_rights(dsn, backend),
            *_statements(connection, backend),
            *_read(_HISTORY, lambda: judge_history(read_history(connection, backend))),
            *_changes(connection, backend),
        ]


def _rights(dsn: str, backend: str) -> list[Finding]:
    with rehearsing(dsn) as connection:
        return _read(_RIGHTS, lambda: judge_rights(read_rights(connection, backend)))


def _statements(connection: psycopg.Connection[Any], backend: str) -> list[Finding]:
    try:
        if read_missing(connection, backend)[0]:
            return _skipped("schema", *_STATEMENTS)
    except UnreadableError:
        return _skipped("schema", *_STATEMENTS)
    try:
        return list(judge_statements(read_refused(connection, backend)))
    except UnreadableError as error:
        finding = f"could not be tried: {error}"
        return [Finding(*_STATEMENTS, State.WARN, finding, "run it again")]


def _changes(connection: psycopg.Connection[Any], backend: str) -> list[Finding]:
    try:
        return list(judge_changes(read_faults(connection, backend)))
    except UnreadableError:
        # What keeps us from reading is named by the checks before.
        return _skipped("schema", *_CHANGES)


def _read(checks: tuple[str, ...], look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except UnreadableError as error:
        first, *others = checks
        advice = f"{GRANT}; or {_MIGRATE}"
        return [Finding(first, State.FAIL, str(error), advice), *_skipped(first, *others)]


def judge_server(server: Server) -> Iterator[Finding]:
    """Judge where we got to, the version there, and its clock."""
    where = f"{server.role} on {server.database}"
    if server.standby:
        advice = "point DATABASE_URL at the primary"
        yield Finding("database", State.FAIL, f"{where}, a standby: it takes no writes", advice)
    elif server.encoding != UNICODE:
        finding, _, advice = unfit(server.encoding).partition("; ")
        yield Finding("database", State.FAIL, f"{where} is {finding}", advice)
    elif server.read_only:
        finding = f"{where} takes no writes: default_transaction_read_only is on"
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
        return Finding("server version", State.FAIL, f"{named}, which is not supported", advice)
    if major > _NEWEST:
        advice = "look for a newer listener"
        return Finding("server version", State.WARN, f"{named}, never tried with this", advice)
    if minor < _NOTIFY_MENDED[major]:
        finding = f"{named}: LISTEN may fail for good when wake-ups stay unread for long"
        advice = f"upgrade the server to {major}.{_NOTIFY_MENDED[major]} or later"
        return Finding("server version", State.WARN, finding, advice)
    return Finding("server version", State.OK, named)


def _judge_clock(ahead: timedelta) -> Finding:
    seconds = ahead.total_seconds()
    finding = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} the server's"
    if abs(ahead) <= _TOLERATED:
        return Finding("clock", State.OK, finding)
    advice = "set both by NTP: times in the log do not match those in the database"
    return Finding("clock", State.WARN, finding, advice)


def _judge_deadlock_timeout(timeout: timedelta) -> Finding:
    finding = f"{timeout.total_seconds():g} s until the server looks for one"
    if timeout >= _USUAL_DEADLOCK_TIMEOUT:
        return Finding("deadlocks", State.OK, finding)
    finding += "; locks are waited for a fifth of that, so rows are often tried again"
    advice = "raise deadlock_timeout, 1s by default: a transaction may become the victim sooner"
    return Finding("deadlocks", State.WARN, finding, advice)


def judge_parts(schema: list[str], triggers: list[str], lagging: list[str]) -> Iterator[Finding]:
    """Judge what is missing of our schema and of the triggers, and sequences that are behind."""
    if schema:
        yield Finding("schema", State.FAIL, f"missing: {', '.join(schema)}", _MIGRATE)
    elif lagging:
        finding = f"behind their rows, as a logical copy leaves them: {', '.join(lagging)}"
        yield Finding("schema", State.FAIL, finding, _MIGRATE)
    else:
        yield Finding("schema", State.OK, "complete")
    if triggers:
        finding = f"missing, disabled or of another version: {', '.join(triggers)}"
        yield Finding("triggers", State.FAIL, finding, _MIGRATE)
    else:
        yield Finding("triggers", State.OK, "present, enabled, and of this version")


def judge_changes(faults: Mapping[str, str]) -> Iterator[Finding]:
    """Judge whether the database lets a daemon handle changes; `faults` are by stream."""
    if faults:
        refused = "; ".join(f"every change of {stream}: {why}" for stream, why in faults.items())
        yield Finding("changes", State.FAIL, f"refused: {refused}", _MIGRATION)
    else:
        yield Finding("changes", State.OK, "none refused by the database")


def judge_statements(refused: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Judge whether the database would run every statement of ours; `refused` are by reason."""
    if refused:
        named = "; ".join(f"{why} ({', '.join(names)})" for why, names in refused.items())
        yield Finding("statements", State.FAIL, f"refused: {named}", _MIGRATION)
    else:
        yield Finding("statements", State.OK, "the database knows all that they name")


def judge_rights(rights: Rights) -> Iterator[Finding]:
    """Judge what the role may not do; what is missing of our own schema was told before."""
    ours = ("listener.", "schema listener.")
    absent = [name for name in rights.absent if not f"{name}.".startswith(ours)]
    # Without the schema there is none of its tables either.
    schemas = [name for name in absent if name.startswith("schema ")]
    if absent:
        finding = f"there is no {', '.join(schemas or absent)}"
        yield Finding("rights", State.FAIL, finding, _SCHEMA_NAME)
    elif rights.lacking:
        yield Finding("rights", State.FAIL, f"missing: {', '.join(rights.lacking)}", GRANT)
    elif rights.hidden:
        finding = f"row level security may hide rows of {', '.join(rights.hidden)}"
        yield Finding("rights", State.FAIL, finding, SEE_ALL_ROWS)
    elif rights.refused:
        finding = f"a trigger of the backend refuses writes: {'; '.join(rights.refused)}"
        yield Finding("rights", State.FAIL, finding, GRANT)
    elif rights.untried is not None:
        finding = f"none is missing, but writes could not be tried: {rights.untried}"
        yield Finding("rights", State.WARN, finding, "run it again")
    else:
        yield Finding("rights", State.OK, "all that a daemon needs")


def judge_history(table: HistoryTable) -> Iterator[Finding]:
    """Judge whether former identities are kept; verdicts land all the same."""
    if table.obstacle is not None:
        advice = GRANT if table.lacking else _HISTORY_TABLE
        finding = f"former identities are not kept: {table.obstacle}"
        yield Finding("history", State.WARN, finding, f"{advice}; then restart the daemon")
    elif not table.readable:
        finding = "former identities are kept, but may not be read: SELECT is missing"
        yield Finding("history", State.WARN, finding, GRANT)
    else:
        yield Finding("history", State.OK, "former identities are kept")


def judge_wakeups(wakeups: Wakeups) -> Finding:
    """Judge whether NOTIFY reaches who listens, and whether a pooler stands in between."""
    arrive = wakeups.from_itself and wakeups.from_another
    if arrive and wakeups.same_backend:
        return Finding("wake-ups", State.OK, "LISTEN works, no pooler hands our backend away")
    if not wakeups.same_backend:
        finding = "a pooler in between hands our backend to other clients; all but doctor refuse it"
        return Finding("wake-ups", State.FAIL, finding, _DIRECT)
    return Finding("wake-ups", State.WARN, "LISTEN does not work here, the daemon polls", _DIRECT)


async def _lml(settings: Settings) -> list[Finding]:
    key = settings.lml_api_key.get_secret_value() if settings.lml_api_key else None
    async with open_probe(str(settings.library_metadata_url), key) as lml:
        return list(await asyncio.gather(_health(lml), *(_route(lml, route) for route in Route)))


async def _health(lml: LmlProbe) -> Finding:
    try:
        health = await lml.health()
    except NoAnswerError as error:
        return Finding("LML", State.FAIL, str(error), _LML_DOWN)
    finding = f"reachable, {health.status}; commit {health.commit or 'not named'}"
    match health.status:
        case "healthy":
            return Finding("LML", State.OK, finding)
        case "unhealthy":
            return Finding("LML", State.FAIL, finding, _LML_DOWN)
        case _:
            return Finding("LML", State.WARN, finding, "look at LML's own log")


async def _route(lml: LmlProbe, route: Route) -> Finding:
    try:
        return judge_probe(_ROUTES[route], await lml.probe(route))
    except NoAnswerError as error:
        return Finding(_ROUTES[route], State.FAIL, str(error), _LML_DOWN)


def judge_probe(check: str, probe: Probe) -> Finding:
    """Judge what a route answered to a question about nothing, and how long that took."""
    took = f"{probe.took.total_seconds():.2f} s"
    match probe.status:
        case HTTPStatus.OK if not probe.is_lml:
            return Finding(check, State.FAIL, f"what answers there is not LML; {took}", _NOT_LML)
        case HTTPStatus.OK | HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
            return _judge_pace(check, probe.took)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Finding(check, State.FAIL, f"we are not let in ({probe.status})", _LML_KEY)
        case status if status in ABSENT:
            return Finding(check, State.FAIL, f"LML has no such route ({status})", _LML_ROUTE)
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Finding(check, State.WARN, f"asked too often (429); {took}", _LML_SLOW)
        case status:
            return Finding(check, State.FAIL, f"LML answers {status}; {took}", _LML_DOWN)


def _judge_pace(check: str, took: timedelta) -> Finding:
    seconds = f"{took.total_seconds():.2f} s"
    if took <= _TOLERATED:
        return Finding(check, State.OK, f"mounted, we are let in; {seconds}")
    return Finding(check, State.WARN, f"mounted, but took {seconds}", _LML_SLOW)


async def _gate(settings: Settings) -> list[Finding]:
    if settings.gate_commit_sha is None:
        return [Finding("deploy gate", State.OK, "not set")]
    answer = await ask_gate(settings, settings.gate_commit_sha, Route)
    if isinstance(answer, Open):
        return [Finding("deploy gate", State.OK, f"open: {answer.reason}")]
    return [Finding("deploy gate", State.FAIL, f"shut: {answer.reason}", answer.advice)]


def judge_sentry(dsn: str | None) -> Finding:
    """Judge whether what SENTRY_DSN is set to is one; nothing is sent."""
    if dsn is None:
        return Finding("Sentry", State.OK, "not set")
    # Takes a third of a second to import, which no other command shall pay.
    from sentry_sdk.utils import Dsn  # noqa: PLC0415

    try:
        Dsn(dsn)
    except ValueError:
        advice = "copy SENTRY_DSN from the project's page in Sentry, or unset it"
        return Finding("Sentry", State.FAIL, "SENTRY_DSN is not well formed", advice)
    return Finding("Sentry", State.OK, "SENTRY_DSN is well formed")


def _skipped(needed: str, *checks: str) -> list[Finding]:
    return [Finding(check, State.SKIP, f"needs {needed}") for check in checks]
