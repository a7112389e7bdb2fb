"""Checks everything that the listener needs, and suggests fixes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import TypeVar

from listener.adapters.lml.health import LmlProbe, NoAnswerError, Probe, open_probe
from listener.adapters.postgres.errors import CONNECT
from listener.adapters.postgres.examination import (
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
from listener.adapters.postgres.sessions import Connection
from listener.app.start import ask_gate
from listener.app.verdict import AT_WORK, judge_work
from listener.domain.database import (
    judge_history,
    judge_keys,
    judge_parts,
    judge_rights,
    judge_server,
    judge_statements,
    judge_wakeups,
)
from listener.domain.faults import StoreUnavailableError
from listener.domain.finding import DIRECT, GRANT, MIGRATE, Finding, State, skipped
from listener.domain.gate import ABSENT, Open, Route
from listener.settings import Settings, SettingsError, StatusSettings, load_settings

T = TypeVar("T")

_TOLERATED = timedelta(seconds=2)
_LML_DOWN = "check LIBRARY_METADATA_URL; see `listener runbook lml-down`"
_LML_KEY = "set LML_API_KEY to a valid key; LML may take 5 minutes to accept a new one"
_LML_ROUTE = "correct LIBRARY_METADATA_URL, or deploy an LML that has the route"
_NOT_LML = "correct LIBRARY_METADATA_URL, or fix the proxy in front of LML"
_LML_SLOW = "LML is overloaded; wait before a backfill"

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
        return [*looked, Finding("wake-ups", State.WARN, finding, DIRECT)]


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
