"""How to reach the database: the settings that every command needs."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any
from urllib.parse import quote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from listener.domain.words import trimmed
from listener.network import CONTROL, LAST_PORT, is_host, is_openable, is_port
from listener.settings.bounds import Unit

ENV_FILE = ".env"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What would have a meaning of its own in a statement: a placeholder, the end of a body or comment.
_UNFIT_FOR_SQL = re.compile(r"%|\$\$|/\*|\*/|[\x00-\x1f\x7f-\x9f]")
# A backend's environment may have these instead of DATABASE_URL.
_NEEDED_PARTS = ("db_host", "db_name", "db_username")
_PARTS = ("db_host", "db_port", "db_name", "db_username", "db_password")
# A path, or a name in Linux's abstract namespace.
_SOCKETS = ("/", "@")
# What libpq opens unchecked. It checks a file with a password or a key first.
_FILES = ("servicefile", "sslcert", "sslrootcert", "sslcrl")


def _of_parts(value: object) -> object:
    """Return the URL itself, or the one that its parts make, with special characters escaped."""
    if not isinstance(value, dict):
        return value
    if missing := [part.upper() for part in _NEEDED_PARTS if not value[part]]:
        raise ValueError(f"set it, or set {' and '.join(missing)} as well")
    if not _are_hosts(value["db_host"]):
        raise ValueError("DB_HOST is not a valid host name")
    try:
        host, port, name, user, password = (quote(str(value[part]), safe="") for part in _PARTS)
    except UnicodeError:
        raise ValueError("DB_NAME, DB_USERNAME and DB_PASSWORD must be UTF-8") from None
    if ":" in value["db_host"]:
        host = f"[{quote(value['db_host'], safe=':')}]"
    # An invalid port is reported under its own name.
    port = f":{port}" if is_port(port) else ""
    return f"postgresql://{user}{f':{password}' if password else ''}@{host}{port}/{name}"


def _postgresql(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must start with postgresql://")
    # libpq would take part of such a password for the host and print it in its error.
    address = url.partition("://")[2].partition("?")[0]
    authority, _, path = address.partition("/")
    if address.count("@") > 1 or "@" in path or _BAD_ESCAPE.search(authority):
        raise ValueError("has an unescaped @, / or % in its password: write %40, %2F or %25")
    parts = _conninfo(url)
    if not all(is_port(port) for port in parts.get("port", "").split(",") if port):
        raise ValueError(f"has an invalid port: use a number from 1 to {LAST_PORT}")
    if not _are_hosts(parts.get("host", "")):
        raise ValueError("has an invalid host name")
    if not parts.get("host") and not _are_hosts(os.environ.get("PGHOST", "")):
        raise ValueError("has no host, and PGHOST is not a valid host name")
    given = {name: parts.get(name, "") for name in _FILES}
    given |= {name: os.environ.get(name, "") for name in (f"PG{each.upper()}" for each in _FILES)}
    for name, path in given.items():
        if path and not is_openable(path):
            raise ValueError(f"cannot be used: {name} is {path!r}, which is not a file")
    return value


def _fit_for_sql(value: str) -> str:
    if _UNFIT_FOR_SQL.search(value):
        raise ValueError("must not contain %, $$, /*, */ or control characters")
    return value


def _are_hosts(listed: str) -> bool:
    """Return whether libpq can use each of some hosts; it takes the path of a socket as well."""
    hosts = filter(None, listed.split(","))
    return all(host.startswith(_SOCKETS) or is_host(host) for host in hosts)


def _conninfo(address: str) -> dict[str, str]:
    """Return what libpq reads from an address; its own errors would quote a password."""
    try:
        parts = conninfo_to_dict(address)
    except (ProgrammingError, UnicodeError):
        parts = None
    if parts is None or CONTROL.search(address):
        message = (
            "is not a valid URL: write %XX for special characters in its parts, in UTF-8 and "
            "never %00, and name=value for parameters"
        )
        raise ValueError(message)
    return {name: str(value) for name, value in parts.items()}


_PostgresUrl = Annotated[SecretStr, BeforeValidator(_of_parts), AfterValidator(_postgresql)]


class DatabaseSettings(BaseSettings):
    """The settings that every command needs."""

    # Built on loading: a command loads only one of the three models.
    model_config = SettingsConfigDict(
        env_file=ENV_FILE, extra="ignore", frozen=True, defer_build=True
    )

    database_url: _PostgresUrl = Field(description="URL of the backend's PostgreSQL.")
    db_host: str | None = Field(
        None, description="Database host. DATABASE_URL overrides all DB_* settings."
    )
    db_port: Annotated[int | None, Unit("port")] = Field(
        5432, ge=1, le=LAST_PORT, description="Database port, if DATABASE_URL is not set."
    )
    db_name: str | None = Field(None, description="Database name, if DATABASE_URL is not set.")
    db_username: str | None = Field(
        None, description="Role to connect as, if DATABASE_URL is not set."
    )
    db_password: SecretStr | None = Field(
        None, description="The role's password, unescaped, if DATABASE_URL is not set."
    )
    wxyc_schema_name: Annotated[str, AfterValidator(_fit_for_sql)] = Field(
        "wxyc_schema", min_length=1, max_length=63, description="The backend's schema."
    )

    @model_validator(mode="before")
    @classmethod
    def _has_parts(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Deployment templates set a variable to the empty string to omit it.
        given = {name: trimmed(value) for name, value in values.items()}
        given = {name: value for name, value in given.items() if value != "" or name not in _PARTS}
        if not given.get("database_url") and any(part in given for part in _NEEDED_PARTS):
            given["database_url"] = {part: given.get(part, "") for part in _PARTS}
        return given
