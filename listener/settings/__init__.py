"""Settings: the environment, read once, checked at start."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from listener.domain.faults import FixableError
from listener.network import is_openable
from listener.settings.bounds import demand_of, shown
from listener.settings.database import ENV_FILE, DatabaseSettings
from listener.settings.model import Settings, StatusSettings
from listener.settings.values import is_loopback, split_address

__all__ = [
    "DatabaseSettings",
    "Settings",
    "SettingsError",
    "StatusSettings",
    "is_loopback",
    "load_settings",
    "origins",
    "resembling",
    "split_address",
]

# How much alike LML_KEY and LML_API_KEY are, on a scale from 0 to 1.
_ALIKE = 0.75

T = TypeVar("T", bound=DatabaseSettings)


class SettingsError(FixableError):
    """Some settings are missing or invalid; the message names each, its value and the remedy."""


def load_settings(model: type[T]) -> T:
    """Read the environment and `.env`; raises one `SettingsError` that lists every problem."""
    if not is_openable(ENV_FILE):
        raise SettingsError(f"{ENV_FILE} is not a file; remove it, or replace it with a file")
    try:
        return model()
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(error))) from None
    except UnicodeDecodeError:
        raise SettingsError("the file .env is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        message = f"cannot read the file .env: {error.strerror}"
        raise SettingsError(message) from None


def resembling() -> dict[str, str]:
    """Return names in the file `.env` that are not settings, each with the one it resembles."""
    names = [name.upper() for name in Settings.model_fields]
    if not is_openable(ENV_FILE):
        # `load_settings` reports that.
        return {}
    try:
        written = [name.upper() for name in DotEnvSettingsSource(Settings).env_vars]
    except (UnicodeDecodeError, OSError):
        return {}
    close = {name: get_close_matches(name, names, 1, _ALIKE) for name in written}
    return {name: found[0] for name, found in close.items() if found and name not in names}


def origins(model: type[DatabaseSettings]) -> dict[str, str]:
    """Return where each setting comes from, `environment` or `.env`; defaults are left out."""
    by_file = DotEnvSettingsSource(model)()
    by_environment = EnvSettingsSource(model)()
    found = dict.fromkeys(by_file, ".env") | dict.fromkeys(by_environment, "environment")
    if not (by_environment.get("database_url") or by_file.get("database_url")):
        found["database_url"] = "DB_*"
    return found


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for detail in error.errors(include_url=False):
        reason = detail["msg"].removeprefix("Value error, ")
        if not detail["loc"]:
            lines.append(reason)
            continue
        name = str(detail["loc"][0])
        field = Settings.model_fields[name]
        if detail["type"] == "missing":
            what = (field.description or "").rstrip(".")
            lines.append(f"{name.upper()} is not set: {what}")
            continue
        # Our message says more than the type; pydantic's names only the bound that was crossed.
        demand = reason if detail["type"] == "value_error" else demand_of(field)
        lines.append(f"{name.upper()}{_value(field, detail['input'])}: {demand}")
    return lines


def _value(field: FieldInfo, given: object) -> str:
    # A URL may contain a password or a key even where the setting is not a secret.
    if "SecretStr" in str(field.annotation) or {"@", "?"} & set(str(given)):
        return ""
    return " is not set" if given is None else f" is {shown(given)!r}"
