"""The command `settings`."""

from __future__ import annotations

import json
import re

import click
from pydantic import SecretStr

from listener.bounds import shown
from listener.cli.look import console, plain_table, printable
from listener.cli.manners import examples
from listener.settings import Settings, load_settings, origins

_MASK = "********"
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@]*@")
_PASSWORD_PARAMETER = re.compile(r"([?&](?:ssl)?password=)[^&]*")
_SOMEBODY = re.compile(r"(?<=://)[^/@]*@")
# What reads from a pipe gets one line a setting.
_PIPE_WIDTH = 500


@click.command(
    name="settings",
    epilog=examples(
        ("listener settings", "what is in force, and where it comes from"),
        ("listener settings --json", "for a machine"),
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def settings_command(*, as_json: bool) -> None:
    """Print the settings in force, and where each comes from.

    From the environment, the file .env or the default, in this order. Secrets are masked. Exits 2
    if any is missing or wrong, and names them all.
    """
    settings, origin = load_settings(Settings), origins(Settings)
    rows = [
        (name.upper(), masked(name, getattr(settings, name)), origin.get(name, "default"))
        for name in Settings.model_fields
    ]
    if as_json:
        keys = ("name", "value", "from")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    table = plain_table("setting", "from", "value")
    for name, value, source in rows:
        table.add_row(name, source, "-" if value is None else printable(value))
    console(_PIPE_WIDTH).print(table)


def masked(name: str, value: object) -> str | None:
    """Return a value as it would be written, without what is secret in it."""
    if value is None:
        return None
    text = shown(value)
    if name == "database_url":
        return _PASSWORD_PARAMETER.sub(rf"\1{_MASK}", _PASSWORD.sub(rf"\1:{_MASK}@", text))
    if isinstance(value, SecretStr):
        return _MASK if text else ""
    return _SOMEBODY.sub(f"{_MASK}@", text)
