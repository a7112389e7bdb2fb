"""The command `settings`."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click
from rich.padding import Padding

from listener.app.wording import printable
from listener.cli.errors import examples
from listener.cli.look import console, json_array_option
from listener.settings import Settings, load_settings, origins
from listener.settings.bounds import masked, unit_of


@click.command(
    name="settings",
    epilog=examples(
        ("listener settings", "all values, their sources and meanings"),
        ("listener settings --changed", "only values that differ from the default"),
        ("listener settings --json", "machine-readable"),
    ),
)
@click.option("--changed", is_flag=True, help="Leave out settings at their default.")
@json_array_option
def settings_command(*, changed: bool, as_json: bool) -> None:
    """Print the effective settings and their sources.

    A setting comes from the environment, the file .env or its default, in this order. Secrets are
    masked. Exits 2 if any setting is missing or invalid, and lists every one that is.
    """
    settings, origin = load_settings(Settings), origins(Settings)
    entries = [
        {
            "name": name.upper(),
            "value": masked(name, getattr(settings, name)),
            "unit": unit_of(field) or None,
            "from": origin.get(name, "default"),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
        if not changed or getattr(settings, name) != field.default
    ]
    if as_json:
        click.echo(json.dumps(entries))
        return
    lines = console()
    for entry in entries:
        lines.print(f"{entry['name']}  {_with_unit(entry)}  ({entry['from']})", overflow="fold")
        lines.print(Padding(entry["meaning"] or "", (0, 0, 0, 4)))


def _with_unit(entry: Mapping[str, str | None]) -> str:
    value, unit = entry["value"], entry["unit"]
    if not value:
        return "-"
    return printable(value) if unit is None else f"{value} {unit}"
