"""Lays out Markdown for a terminal."""

from __future__ import annotations

import re
from textwrap import indent

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table

_COMMANDS = re.compile(r"^```.*\n((?:.*\n)*?)```$", re.MULTILINE)


class _FoldingTable(TableElement):
    """A table whose long words are folded instead of cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _Prose(Markdown):
    elements = Markdown.elements | {"table_open": _FoldingTable}


def print_markdown(console: Console, text: str) -> None:
    """Print prose as wide as the terminal, and commands in one line each, to be copied."""
    for number, part in enumerate(_COMMANDS.split(text)):
        if number % 2:
            console.print(f"\n{indent(part, '    ')}", soft_wrap=True)
        else:
            console.print(_Prose(part, hyperlinks=False))
