"""How a process starts: its name, what it logs, and whether database and LML are ready for it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version

import structlog
from psycopg import conninfo

from listener import DISTRIBUTION
from listener.adapters.lml.health import LmlProbe, NoAnswerError, compare_commits, open_probe
from listener.adapters.postgres.history import look_at_history, warn_of
from listener.adapters.postgres.installation import (
    installing,
    newer_version,
    raise_sequences,
    require_installed,
)
from listener.domain.faults import StoreUnavailableError, first_of
from listener.domain.finding import GRANT
from listener.domain.gate import (
    Compare,
    Facts,
    GateError,
    Open,
    ProbeRoutes,
    Relation,
    Route,
    Shut,
    decide,
)
from listener.domain.pacing import Backoff
from listener.engine.supervisor import until
from listener.settings import Settings
from listener.settings.bounds import masked

_log = structlog.stdlib.get_logger()

# PostgreSQL truncates application_name and replaces non-ASCII; other daemons look us up by it.
_LONGEST = 63
_ODD = re.compile(r"[^A-Za-z0-9._-]")
_ANNOUNCED = frozenset(("database_url", "wxyc_schema_name", "library_metadata_url"))
_CONNECT = Backoff(first=timedelta(seconds=0.5), most=timedelta(seconds=15))


def session_name(name: str) -> str:
    """Return `name`, version, host and process id, with a token: containers reuse process ids.

    A long host name loses its start: its end distinguishes the pods of a deployment.
    """
    head = f"{name} {version(DISTRIBUTION)} "
    tail = f"[{os.getpid()}] {secrets.token_hex(4)}"
    return f"{head}{_host()[-max(1, _LONGEST - len(head + tail)) :]}{tail}"[-_LONGEST:]


def announce(settings: Settings) -> None:
    """Log what runs, where, against what, and which settings differ from their defaults."""
    database = conninfo.conninfo_to_dict(settings.database_url.get_secret_value())
    _log.info(
        "starting",
        version=version(DISTRIBUTION),
        host=_host(),
        pid=os.getpid(),
        database_host=database.get("host"),
        database=database.get("dbname"),
        schema=settings.wxyc_schema_name,
        lml=str(settings.library_metadata_url),
        settings={
            # A query may contain a token.
            name.upper(): (masked(name, getattr(settings, name)) or "").partition("?")[0]
            for name, field in Settings.model_fields.items()
            if name not in _ANNOUNCED and getattr(settings, name) != field.default
        },
    )


def _host() -> str:
    return _ODD.sub("-", socket.gethostname().split(".")[0])


async def require_installation(settings: Settings, stop: asyncio.Event) -> None:
    """Return once the database is reachable and ready, or `stop` is set.

    Raises `InstallationError` if it is reachable but not ready.
    """
    failures = 0
    while not stop.is_set():
        try:
            await until(stop, check_installation(settings))
        except BaseExceptionGroup as error:
            fault = first_of(error)
            if not isinstance(fault, StoreUnavailableError):
                raise fault from None
            failures += 1
            _log.warning(fault.event, reason=str(fault), failures=failures)
            await until(stop, asyncio.sleep(_CONNECT.delay(failures).total_seconds()))
            continue
        return


async def check_installation(settings: Settings, *, dry: bool = False) -> None:
    """Raise `InstallationError` if the database is not ready for this version.

    Raises `StoreUnavailableError` if it cannot be used.
    Logs triggers that do not work; without a history, verdicts are still written.
    Advances sequences that a logical copy left behind its rows, unless `dry`.
    """
    async with installing(settings.database_url.get_secret_value(), GRANT) as connection:
        missing = await require_installed(connection, settings.wxyc_schema_name)
        raised = [] if dry else await raise_sequences(connection, settings.wxyc_schema_name)
        newer = await newer_version(connection)
        history = await look_at_history(connection, settings.wxyc_schema_name)
    if newer is not None:
        _log.info("a newer version installed this database", version=newer)
    if raised:
        _log.warning("sequences lagged behind their rows, as after a copy", raised=raised)
    if missing:
        # The audits find what the triggers miss.
        _log.error(
            "changes are not captured, run `listener migrate`",
            parts=", ".join(part.label for part in missing),
        )
    warn_of(history)


async def require_gate(
    settings: Settings,
    stop: asyncio.Event | None = None,
    *,
    routes: Sequence[Route] = tuple(Route),
) -> None:
    """Return if the gate is open or not set, or `stop` is set; raises `GateError`.

    `routes` are those that will be called; LML may lack others.
    """
    if settings.gate_commit_sha is None:
        return
    asking = ask_gate(settings, settings.gate_commit_sha, routes)
    answer = await asking if stop is None else await until(stop, asking)
    if isinstance(answer, Shut):
        raise GateError(f"the deploy gate is shut: {answer.reason}; {answer.advice}")
    if answer is not None:
        _log.info("the deploy gate is open", reason=answer.reason)


async def ask_gate(settings: Settings, required: str, routes: Iterable[Route]) -> Open | Shut:
    """Decide whether LML is new enough; if LML or the code host is silent, the gate is shut."""
    key = settings.lml_api_key.get_secret_value() if settings.lml_api_key else None
    try:
        async with open_probe(str(settings.library_metadata_url), key) as lml:
            running = (await lml.health()).commit
            facts = Facts(required, running, local=settings.local_dev)
            while True:
                match decide(facts):
                    case Open() | Shut() as answer:
                        return answer
                    case Compare(base, head):
                        facts = replace(facts, relation=await _compare(settings, base, head))
                    case ProbeRoutes():
                        facts = replace(facts, statuses=await _statuses(lml, routes))
    except NoAnswerError as error:
        return Shut(str(error), "fix that and try again, or unset GATE_COMMIT_SHA")


async def _compare(settings: Settings, base: str, head: str) -> Relation:
    token = settings.github_token.get_secret_value() if settings.github_token else None
    return await compare_commits(settings.gate_compare_url or "", base, head, token)


async def _statuses(lml: LmlProbe, routes: Iterable[Route]) -> dict[Route, int]:
    return {route: (await lml.probe(route)).status for route in routes}
