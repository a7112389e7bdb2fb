"""The command `doctor`."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from listener.app.doctor import examine
from listener.app.wording import printable
from listener.cli.errors import SOME_FAILED, examples
from listener.cli.look import console, json_array_option, plain_table
from listener.domain.finding import Finding, State

_STYLES = {State.OK: "green", State.WARN: "yellow", State.FAIL: "bold red", State.SKIP: "dim"}
# Never wrap a line in a pipe.
_PIPE_WIDTH = 10_000


@click.command(
    name="doctor",
    epilog=examples(
        ("listener doctor", "one screen of checks and fixes"),
        ("listener doctor --before-start", "before the first daemon is started"),
        ("listener doctor --json", "machine-readable"),
    ),
)
@json_array_option
@click.option("--before-start", is_flag=True, help="Do not look for daemons and their work.")
def doctor_command(*, as_json: bool, before_start: bool) -> None:
    """Check the installation and the daemons, and suggest fixes.

    Changes nothing. Exits 0, or 1 if a check failed. A warning is not a failure.
    """
    findings = asyncio.run(examine(at_work=not before_start))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        _print(findings)
    if any(finding.state is State.FAIL for finding in findings):
        raise SystemExit(SOME_FAILED)


def _table(findings: Sequence[Finding]) -> Table:
    shown = plain_table("check", "state", "finding", "what to do", wrapping=2)
    for finding in findings:
        shown.add_row(
            finding.check,
            Text(finding.state, style=_STYLES[finding.state]),
            Text(_lines(finding.finding)),
            Text(_lines(finding.advice)),
        )
    return shown


def _print(findings: Sequence[Finding]) -> None:
    if sys.stdout.isatty():
        console().print(_table(findings))
        return
    text = io.StringIO()
    Console(file=text, width=_PIPE_WIDTH, color_system=None).print(_table(findings))
    for line in text.getvalue().splitlines():
        click.echo(line.rstrip())


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())
