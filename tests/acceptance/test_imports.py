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


def printed(program: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def imported(program: str) -> set[str]:
    return set(printed(program + "\nimport sys; print(*sys.modules)"))


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


def test_modules_are_not_searched_for_garbage() -> None:
    program = "import gc; from tests.commands import command_of; before = len(gc.get_objects())"
    program += "\ncommand_of('sweep'); print(gc.isenabled(), before, gc.get_freeze_count())"
    program += "\nprint(len(gc.get_objects()))"

    enabled, before, frozen, searched = printed(program)

    assert enabled == "True"
    assert int(searched) < int(before) < int(frozen)


@pytest.mark.parametrize("name", NAMES)
def test_command_has_the_name_in_the_list(name: str) -> None:
    assert command_of(name).name == name
