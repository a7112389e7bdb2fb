"""A command imports what it needs: libraries that it does not use would take most of its time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.commands import NAMES, command_of

HEAVY = {
    "apscheduler",
    "asyncio",
    "httpx",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "rich",
    "sentry_sdk",
    "starlette",
    "structlog",
    "uvicorn",
}
LOOKS = {"asyncio", "psycopg", "pydantic", "rich", "structlog"}
ASKS = {*LOOKS, "httpx"}


def imported(program: str) -> set[str]:
    program += "\nimport sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_command_line_itself_imports_no_library_but_its_own() -> None:
    modules = imported("import listener.__main__, listener.cli")

    assert not modules & HEAVY
    ours = {".".join(name.split(".")[:2]) for name in modules if name.startswith("listener.")}
    assert ours == {"listener.__main__", "listener.cli", "listener.domain"}


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("completion", set()),
        ("settings", LOOKS),
        ("why", LOOKS),
        ("status", LOOKS),
        ("migrate", LOOKS),
        ("doctor", ASKS),
        ("sweep", ASKS),
        ("run", {*ASKS, "apscheduler"}),
    ],
)
def test_command_imports_only_what_it_needs(name: str, needed: set[str]) -> None:
    modules = imported(f"from tests.commands import command_of; command_of({name!r})")

    assert modules & HEAVY <= needed


@pytest.mark.parametrize("name", NAMES)
def test_command_is_called_what_the_list_calls_it(name: str) -> None:
    assert command_of(name).name == name
