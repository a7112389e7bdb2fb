"""The command `runbook`."""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches

import click

from listener import shipped
from listener.cli.errors import examples
from listener.cli.look import FittingTable, console

_LISTED = re.compile(r"^\| \[.+?\]\((.+?)(?:/README)?\.md\) \| (.+?) \|$", re.MULTILINE)


def _complete(_context: click.Context, _argument: click.Parameter, begun: str) -> list[str]:
    return [name for name, _ in _all() if name.startswith(begun)]


@click.command(
    name="runbook",
    epilog=examples(
        ("listener runbook", "list all of them"),
        ("listener runbook lml-down", "read one"),
        ("listener runbook lml-down | less", "read it as Markdown"),
    ),
)
@click.argument("name", required=False, shell_complete=_complete)
def runbook_command(*, name: str | None) -> None:
    """Print a runbook; without NAME, list all of them.

    On a terminal it is laid out; a pipe gets the Markdown. Needs no settings.
    """
    lines = console()
    if not name:
        lines.print(FittingTable(("runbook", "about"), _all()))
        return
    text = _text_of(name)
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    # Importing it takes longer than most commands take to start.
    from listener.cli.markdown import print_markdown  # noqa: PLC0415

    print_markdown(lines, text)


def _all() -> list[tuple[str, str]]:
    """Return the name and the meaning of every runbook, from the README of the runbooks."""
    return _LISTED.findall((shipped("runbooks") / "README.md").read_text(encoding="utf-8"))


def _text_of(name: str) -> str:
    names = [each for each, _ in _all()]
    if name not in names:
        begun = [each for each in names if each.startswith(name)]
        close = (
            begun
            or [each for each in names if name in each]
            or get_close_matches(name, names, cutoff=0.5)
        )
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise click.UsageError(
            f"there is no runbook {name!r}; {meant}`listener runbook` lists all of them"
        )
    path = shipped("runbooks") / name
    return (path / "README.md" if path.is_dir() else path.with_suffix(".md")).read_text("utf-8")
