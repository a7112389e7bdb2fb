"""The deploy gate: whether the LML that runs is new enough to be asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# What the code host is asked with; nothing else that LML says may get into that address.
_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)
# What a server without the route answers.
ABSENT = frozenset((404, 405))


class GateError(Exception):
    """The gate is shut; the message says why and what to do."""


class Route(StrEnum):
    """What we ask LML, by its path under /api/v1."""

    LIBRARY = "identity/bulk-resolve-libraries"
    ROTATION = "cache/refresh-for-identities"
    MINT = "identity/resolve"


class Relation(StrEnum):
    """How the running commit stands to the required one, in the code host's words."""

    IDENTICAL = "identical"
    AHEAD = "ahead"
    BEHIND = "behind"
    DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known so far.

    `running` is the commit that LML names, or None if it names none. `relation` and `statuses`
    are None until they were asked for; `statuses` holds what each route answered to a question
    about nothing.
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
    """LML must not be asked; the advice says what to do about it."""

    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class Compare:
    """The code host must tell how the running commit stands to the required one."""

    required: str
    running: str


@dataclass(frozen=True, slots=True)
class ProbeRoutes:
    """LML names no commit: its routes must tell whether they are there."""


def decide(facts: Facts) -> Open | Shut | Compare | ProbeRoutes:
    """Tell whether the gate is open, or what else must be known."""
    if facts.running is None:
        return _without_commit(facts)
    if _COMMIT.fullmatch(facts.running) is None:
        return Shut(
            f"LML names {facts.running[:60]!r} as its commit, which is none",
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
        return Open("LML names no commit, which LOCAL_DEV allows")
    if facts.statuses is None:
        return ProbeRoutes()
    absent = {route: status for route, status in facts.statuses.items() if status in ABSENT}
    if absent:
        named = ", ".join(f"{route} ({status})" for route, status in absent.items())
        return Shut(f"LML names no commit and has no {named}", "deploy an LML that has it")
    return Open("LML names no commit, but has the routes")


def _same(required: str, running: str) -> bool:
    short, long = sorted((required.lower(), running.lower()), key=len)
    return long.startswith(short)
