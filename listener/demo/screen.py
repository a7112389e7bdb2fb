"""What the demo prints: aligned lines, plain unless on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_LABEL = 12
_TIME = 8
_GAP = 2
_NARROWEST_WHAT = 24
_WIDEST_WHAT = 46
# Reserved for an outcome; longer ones wrap in their column.
_OUTCOME = 34
# Without a terminal nothing is wrapped.
_ENDLESS = 1000
# How many parts of the progress each get a line there.
_PARTS = 4


class Screen:
    """Standard output, with colours and a progress bar on a terminal only."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._console = Console(
            highlight=False,
            markup=False,
            emoji=False,
            force_terminal=self.is_terminal,
            width=None if self.is_terminal else _ENDLESS,
        )
        left = self._console.width - _LABEL - _TIME - _OUTCOME - 4 * _GAP
        self._what = min(_WIDEST_WHAT, max(_NARROWEST_WHAT, left))

    @property
    def room_for_outcome(self) -> int:
        """How many cells an outcome may take on its line."""
        return self._console.width - _LABEL - self._what - _TIME - 4 * _GAP

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def fact(self, label: str, text: str, *, took: timedelta | None = None) -> None:
        """Print a labelled line, with how long it took."""
        line = Text(_printable(text))
        if took is not None:
            line.append(f"  {_seconds(took)}", style="dim")
        row = _row()
        row.add_column(overflow="fold")
        row.add_row("", label, line)
        self._console.print(row)

    def change(self, label: str, what: str, took: timedelta | None, outcome: str) -> None:
        """Print what was done to the library, the time until it was answered, and the outcome."""
        row, text = _row(), Text(_printable(what))
        width = self._what if took is not None else self._what + _GAP + _TIME
        row.add_column(width=width, overflow="fold")
        if took is not None:
            row.add_column(width=_TIME, justify="right", no_wrap=True, style="bold")
        row.add_column(overflow="fold")
        times = () if took is None else (_milliseconds(took),)
        row.add_row("", label, text, *times, outcome)
        self._console.print(row)

    def command(self, label: str, text: str) -> None:
        """Print something to copy: it is never wrapped."""
        line = Text.assemble(" " * _GAP, (f"{label:<{_LABEL + _GAP}}", "cyan"), text)
        self._console.print(line, soft_wrap=True)

    def complaint(self, text: str) -> None:
        """Print what went wrong."""
        for line in text.splitlines():
            self._console.print(Text(_printable(line), style="red"), soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how much of `total` is done; yields the function that takes that number."""
        if self.is_terminal:
            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
            with Progress(
                *columns, TimeElapsedColumn(), console=self._console, transient=True
            ) as bar:
                task = bar.add_task(what, total=total)
                yield lambda done: bar.update(task, completed=done)
        else:
            yield self._plain_progress(what, total)

    def _plain_progress(self, what: str, total: int) -> Callable[[int], None]:
        shown = 0

        def show(done: int) -> None:
            nonlocal shown
            if done < total and done * _PARTS // total > shown:
                shown = done * _PARTS // total
                self.fact(what, f"{done:,} of {total:,}")

        return show


def _row() -> Table:
    row = Table.grid(padding=(0, _GAP, 0, 0))
    row.add_column(width=0)
    row.add_column(width=_LABEL, no_wrap=True, style="cyan")
    return row


def _printable(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.1f} s"


def _milliseconds(duration: timedelta) -> str:
    milliseconds = duration.total_seconds() * 1000
    return f"{milliseconds:,.1f} ms" if milliseconds < 100 else f"{milliseconds:,.0f} ms"  # noqa: PLR2004
