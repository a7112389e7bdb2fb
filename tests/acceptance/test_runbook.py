"""The command `runbook`: what it lists, prints, and says of a name that it does not know."""

from __future__ import annotations

import re

import pytest

from listener.cli.runbook import runbook_command
from tests.acceptance.test_look import look
from tests.runbooks import ROOT, RUNBOOKS, all_runbooks

pytestmark = pytest.mark.timeout(60)

NAMES = {path.parent.name if path.stem == "README" else path.stem for path in all_runbooks()}


def test_list_has_every_runbook_with_its_meaning() -> None:
    listed = look("", "runbook")
    assert listed.returncode == 0, listed.stderr
    header, *lines = [line.rstrip().split(maxsplit=1) for line in listed.stdout.splitlines()]
    assert header == ["runbook", "about"]
    assert {name for name, _ in lines} == NAMES - {"runbooks"}


@pytest.mark.parametrize(
    ("name", "path"), [("lml-down", "lml-down.md"), ("alerts", "alerts/README.md")]
)
def test_pipe_gets_the_markdown(name: str, path: str) -> None:
    printed = look("", "runbook", name)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == (RUNBOOKS / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lag", "did you mean lag-growing? "),
        ("lml", "did you mean lml-down or lml-errors? "),
        ("down", "did you mean database-down or lml-down? "),
        ("lagg", "did you mean lag-growing? "),
        ("lml-dwon", "did you mean lml-down or lml-errors? "),
        ("../README", ""),
    ],
)
def test_unknown_name_is_an_error_with_the_closest(name: str, meant: str) -> None:
    printed = look("", "runbook", name)
    assert printed.returncode == 2
    assert not printed.stdout
    assert f"there is no runbook {name!r}; {meant}`listener runbook` lists" in printed.stderr


def test_runbooks_that_messages_name_exist() -> None:
    named = {
        name
        for path in (ROOT / "listener").rglob("*.py")
        for name in re.findall(r"`listener runbook ([a-z-]+)`", path.read_text(encoding="utf-8"))
    }
    assert "capture-missed" in named
    assert named <= NAMES


def test_shell_completes_names() -> None:
    context = runbook_command.make_context("runbook", [])
    (argument,) = (each for each in runbook_command.params if each.name == "name")
    completed = {item.value for item in argument.shell_complete(context, "lml")}
    assert completed == {"lml-down", "lml-errors"}
