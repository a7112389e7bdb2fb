"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from listener.cli.errors import examples

_PROGRAM, _VARIABLE = "listener", "_LISTENER_COMPLETE"


@click.command(
    name="completion",
    epilog=examples(
        ('eval "$(listener completion bash)"', "in ~/.bashrc"),
        ('eval "$(listener completion zsh)"', "in ~/.zshrc"),
        ("listener completion fish | source", "in ~/.config/fish/config.fish"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the shell completion script."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion script for {shell}")
    click.echo(kind(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())
