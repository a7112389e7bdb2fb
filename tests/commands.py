"""Commands by name: the command line imports each only on demand."""

from __future__ import annotations

import click

from listener.cli import main

NAMES = main.list_commands(click.Context(main))


def command_of(name: str) -> click.Command:
    """Return the command of that name."""
    command = main.get_command(click.Context(main), name)
    assert command is not None, name
    return command
