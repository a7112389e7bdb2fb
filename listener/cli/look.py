"""How commands print what they read: tables and JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import click
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
json_array_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")

_LABEL = 10
# In a narrower column, wrapped text is harder to read than a sentence.
_LEAST_WRAPPED = 12
# Wide enough for the longest names: a pipe gets one line for each row.
_PIPE_WIDTH = 500
# For a pipe: lines stay as long as they are.
_UNWRAPPED = 1_000_000


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # `Commands` handles it as for every other command; rich would exit by itself.
        raise  # noqa: PLE0704 - called while the error is handled


def console(pipe_width: int = _PIPE_WIDTH) -> Console:
    """Return a console on standard output; `pipe_width` applies unless it is a terminal."""
    width = None if sys.stdout.isatty() else pipe_width
    return _Console(width=width, highlight=False, markup=False, emoji=False)


def print_labelled(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines, each beside its label; on a terminal they wrap beside it."""
    screen = console(_UNWRAPPED)
    for label, line in lines:
        parts = Text(line).wrap(screen, max(_LABEL, screen.width - _LABEL), overflow="fold")
        for number, part in enumerate(parts):
            click.echo(f"{'' if number else label:<{_LABEL}}{part.plain.rstrip()}")


def plain_table(
    *columns: str, gap: int = 2, widths: Sequence[int | None] = (), wrapping: int = 1
) -> Table:
    """Make a borderless table; `>name` aligns a column right.

    The last `wrapping` columns may wrap. A column with a width wraps within it.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for column, width in zip_longest(columns, widths):
        table.add_column(
            column.lstrip(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=width is None and column not in columns[-wrapping:],
            width=width,
            overflow="fold",
        )
    return table


@dataclass(frozen=True, slots=True)
class FittingTable:
    """A plain table that is never truncated: if it is too wide, each row becomes a sentence.

    Before that, its last `wrapping` columns wrap between words.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    wrapping: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for gap in (2, 1):
            room = options.max_width - gap * (len(self.columns) - 1)
            if widths := self._widths(room):
                table = plain_table(*self.columns, gap=gap, widths=widths)
                for row in self.rows:
                    table.add_row(*row)
                yield table
                return
        for row in self.rows:
            named = zip(self._names(), row, strict=True)
            yield Text("; ").join(Text.assemble(name, " ", cell) for name, cell in named)

    def _names(self) -> list[str]:
        return [column.removeprefix(">") for column in self.columns]

    def _widths(self, room: int) -> list[int] | None:
        rows = [self._names(), *([str(cell) for cell in row] for row in self.rows)]
        columns = list(zip(*rows, strict=True))
        most = [max(map(cell_len, column)) for column in columns]
        least = list(most)
        for column in range(-self.wrapping, 0):
            words = " ".join(columns[column]).split()
            least[column] = max(min(most[column], _LEAST_WRAPPED), *map(cell_len, words))
        return _widened(least, most, room) if sum(least) <= room else None


def _widened(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    widths = list(least)
    for _ in range(min(room, sum(most)) - sum(least)):
        narrow = [column for column, width in enumerate(widths) if width < most[column]]
        widths[min(narrow, key=widths.__getitem__)] += 1
    return widths
