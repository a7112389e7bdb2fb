"""The settings table of the README, made from the model; run as a module it writes it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from listener.settings import Settings

README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- settings: written by `make settings-table` -->\n", "<!-- /settings -->"


def table() -> str:
    """Return the table in Markdown."""
    lines = ["| name | default | allowed | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{name.upper()}` | {_default(field)} | {_allowed(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """Return the README with the table as it should be."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    return "" if field.default is None else f"`{_shown(field.default)}`"


def _allowed(field: FieldInfo) -> str:
    least = next((_shown(m.ge) for m in field.metadata if isinstance(m, Ge)), None)
    above = next((_shown(m.gt) for m in field.metadata if isinstance(m, Gt)), None)
    most = next((_shown(m.le) for m in field.metadata if isinstance(m, Le)), None)
    if most is None:
        return ""
    return f"{least} to {most}" if least is not None else f"above {above}, to {most}"


def _shown(value: object) -> str:
    if not isinstance(value, timedelta):
        return str(value)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count = value.total_seconds() / size
        if count >= 1 and count.is_integer():
            return f"{int(count)}{unit}"
    return f"{int(value.total_seconds() * 1000)}ms" if value else "0s"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
