"""The settings table of the README, made from the model; run as a module it writes it."""

from __future__ import annotations

from pathlib import Path

from pydantic.fields import FieldInfo

from listener.settings import Settings
from listener.settings.bounds import NEEDED, bounds_of, default_of, kind_of, unit_of

README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- settings: written by `make settings-table` -->\n", "<!-- /settings -->"


def table() -> str:
    """Return the table in Markdown."""
    lines = ["| name | type | unit | default | allowed | meaning |", "|---|---|---|---|---|---|"]
    lines += [_line(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """Return the README with the table as it should be."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


def _line(name: str, field: FieldInfo) -> str:
    default = default_of(field)
    cells = (
        f"`{name.upper()}`",
        kind_of(field),
        unit_of(field),
        default if default in {"", NEEDED} else f"`{default}`",
        bounds_of(field),
        field.description or "",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
