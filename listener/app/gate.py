"""Keeps LML from being asked while it lacks the commit that GATE_COMMIT_SHA names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

import structlog

from listener.adapters.lml.health import LmlProbe, NoAnswerError, compare_commits, open_probe
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
from listener.engine.supervisor import until
from listener.settings import Settings

_log = structlog.stdlib.get_logger()


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
