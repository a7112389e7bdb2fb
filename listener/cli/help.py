"""Lays out `--help` and messages for the width of the terminal."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from textwrap import TextWrapper, wrap

import click

_PAIR = re.compile(r"( *)(\S.*?)(  +)(\S.*)")
# If less is left for the second column, it goes below the first one.
_LEAST_ROOM = 20
_BELOW = 4


class _Formatter(click.HelpFormatter):
    """Also wraps lists of two columns, which click leaves as they are after a backspace."""

    def write_text(self, text: str) -> None:
        width = self.width - self.current_indent
        super().write_text("\n\n".join(_fitted(part, width) for part in text.split("\n\n")))


class HelpContext(click.Context):
    """A context whose help fits."""

    formatter_class = _Formatter


def fitted(message: str, before: str) -> str:
    """Return a message wrapped for a terminal, on which it follows `before`."""
    if not sys.stderr.isatty():
        return message
    # Words are kept whole: a path or an address is copied.
    wrapper = TextWrapper(break_long_words=False, break_on_hyphens=False)
    wrapper.width = shutil.get_terminal_size().columns
    return wrapper.fill(before + message).removeprefix(before)


def _fitted(paragraph: str, width: int) -> str:
    lines = paragraph.splitlines()
    if lines[:1] != ["\b"] or max(map(len, lines)) <= width:
        return paragraph
    return "\n".join(each for line in lines for each in _folded(line, width))


def _folded(line: str, width: int) -> Iterator[str]:
    found = _PAIR.fullmatch(line)
    if found is None:
        yield line
        return
    indent, name, gap, meaning = found.groups()
    column = len(indent + name + gap)
    if width - column >= _LEAST_ROOM:
        first, *rest = wrap(meaning, width - column)
        yield f"{indent}{name}{gap}{first}"
    else:
        column = len(indent) + _BELOW
        yield indent + name
        rest = wrap(meaning, width - column)
    yield from (" " * column + each for each in rest)
