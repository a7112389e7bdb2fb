"""The deploy gate: decides whether the running LML is new enough to be asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from listener.domain.faults import FixableError

# This goes into the code host's URL; nothing else that LML sends may get there.
_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)
# How a server without the route answers.
ABSENT = frozenset((404, 405))


class GateError(FixableError):
    """The gate is shut; the message says why and what to do."""


class Route(StrEnum):
    """The routes of LML that we call, by path under /api/v1."""

    LIBRARY = "identity/bulk-resolve-libraries"
    ROTATION = "cache/refresh-for-identities"
    MINT = "identity/resolve"


class Relation(StrEnum):
    """How the running commit relates to the required one, in the code host's terms."""

    IDENTICAL = "identical"
    AHEAD = "ahead"
    BEHIND = "behind"
    DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known so far.

    `running` is the commit that LML reports, None if it reports none. `relation` and `statuses` are
    None until requested; `statuses` holds each route's reply to an empty request.
    """

    required: str
    running: str | None
    local: bool = False
    relation: Relation | None = None
    statuses: Mapping[Route, int] | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """LML may be asked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Shut:
    """LML must not be asked; `advice` says what to do about it."""

    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask the code host how the running commit relates to the required one."""

    required: str
    running: str


@dataclass(frozen=True, slots=True)
class ProbeRoutes:
    """LML reports no commit: check that it has each route."""


def decide(facts: Facts) -> Open | Shut | Compare | ProbeRoutes:
    """Decide whether the gate is open, or what must be found out first."""
    if facts.running is None:
        return _without_commit(facts)
    if _COMMIT.fullmatch(facts.running) is None:
        return Shut(
            f"LML reports {facts.running[:60]!r} as its commit, which is not a commit id",
            "deploy LML with its commit, or unset GATE_COMMIT_SHA",
        )
    if _same(facts.required, facts.running):
        return Open(f"LML runs {facts.running}")
    match facts.relation:
        case None:
            return Compare(facts.required, facts.running)
        case Relation.IDENTICAL | Relation.AHEAD:
            return Open(f"LML runs {facts.running}, which contains {facts.required}")
        case Relation.BEHIND | Relation.DIVERGED:
            return Shut(
                f"LML runs {facts.running}, which does not contain {facts.required} "
                f"({facts.relation})",
                "deploy LML, or set GATE_COMMIT_SHA to what is deployed",
            )


def _without_commit(facts: Facts) -> Open | Shut | ProbeRoutes:
    if facts.local:
        return Open("LML reports no commit, which LOCAL_DEV allows")
    if facts.statuses is None:
        return ProbeRoutes()
    absent = {route: status for route, status in facts.statuses.items() if status in ABSENT}
    if absent:
        named = ", ".join(f"{route} ({status})" for route, status in absent.items())
        return Shut(f"LML reports no commit and lacks {named}", "deploy an LML that has it")
    return Open("LML reports no commit, but has all routes")


def _same(required: str, running: str) -> bool:
    short, long = sorted((required.lower(), running.lower()), key=len)
    return long.startswith(short)
