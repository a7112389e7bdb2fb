"""Settings: the environment, read once, checked at start."""

from __future__ import annotations

import os
import re
from datetime import time, timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import quote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
)

from listener.bounds import Unit, demand_of, kind_of, shown
from listener.domain.asking import IncludeTracks
from listener.domain.durations import WRITTEN
from listener.domain.refreshing import LML_REFRESH_BATCH_CAP
from listener.domain.words import trimmed
from listener.network import (
    CONTROL,
    LAST_PORT,
    USABLE,
    is_address,
    is_host,
    is_port,
    proxy_for,
    require_trust,
)

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
# The SDK's own rule, known before the SDK is imported.
_SENTRY_DSN = re.compile(
    r"https?://[^\s:/@]+(?::[^\s/@]*)?@[^\s:/@]+(?::[0-9]+)?/(?:[^\s?#]*/)?[0-9]+"
)
_SENTRY_ENVIRONMENT = re.compile(r"[^\s/]{1,64}")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+)):([0-9]+)")
_TOKEN = re.compile(r"[!-~]+")
# What has another meaning in a statement: a placeholder, the end of a body or of a comment.
_UNFIT_FOR_SQL = re.compile(r"%|\$\$|/\*|\*/|[\x00-\x1f\x7f-\x9f]")
# A backend's environment may have these in place of DATABASE_URL.
_NEEDED_PARTS = ("db_host", "db_name", "db_username")
_PARTS = ("db_host", "db_port", "db_name", "db_username", "db_password")
# A path, or a name in Linux's abstract namespace.
_SOCKETS = ("/", "@")
# LML_KEY and LML_API_KEY are that much alike, on a scale to 1.
_ALIKE = 0.75
_COMMIT = re.compile(r"[0-9a-fA-F]{7,40}")


class SettingsError(Exception):
    """Some settings are missing or invalid; the message names each, its value and the remedy."""


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        message = "must be a number of seconds or like 250ms, 30s, 15m, 1h, 7d"
        raise ValueError(message)
    seconds = float(match[1]) * WRITTEN[match[2] or "s"]
    # Exceeds every bound: a value too long for a timedelta gets the same message.
    return timedelta(seconds=min(seconds, timedelta.max.total_seconds() / 2))


def _time_of_day(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not value:
        return None
    match = _TIME_OF_DAY.fullmatch(value)
    if match is None:
        message = "must be a time of day like 09:00, or empty"
        raise ValueError(message)
    return time(int(match[1]), int(match[2]))


def _address_of(parts: dict[str, str]) -> str:
    """Build a URL from its parts, escaping any special characters."""
    host, port, name, user, password = (quote(str(parts[part]), safe="") for part in _PARTS)
    if ":" in parts["db_host"]:
        host = f"[{quote(parts['db_host'], safe=':')}]"
    # An invalid port is reported under its own name.
    port = f":{port}" if is_port(port) else ""
    return f"postgresql://{user}{f':{password}' if password else ''}@{host}{port}/{name}"


T = TypeVar("T", bound="DatabaseSettings")

Duration = Annotated[timedelta, BeforeValidator(_duration)]
TimeOfDay = Annotated[time | None, BeforeValidator(_time_of_day)]


class DatabaseSettings(BaseSettings):
    """The settings that every command needs."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    database_url: SecretStr = Field(description="URL of the backend's PostgreSQL.")
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
    wxyc_schema_name: str = Field(
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

    @field_validator("database_url", mode="before")
    @classmethod
    def _is_of_parts(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        if missing := [part.upper() for part in _NEEDED_PARTS if not value[part]]:
            message = f"set it, or set {' and '.join(missing)} as well"
            raise ValueError(message)
        if not _are_hosts(value["db_host"]):
            message = "DB_HOST is no host that can be looked up"
            raise ValueError(message)
        try:
            return _address_of(value)
        except UnicodeError:
            message = "DB_NAME, DB_USERNAME and DB_PASSWORD must be UTF-8"
            raise ValueError(message) from None

    @field_validator("wxyc_schema_name")
    @classmethod
    def _is_fit_for_sql(cls, value: str) -> str:
        if _UNFIT_FOR_SQL.search(value):
            message = "must not contain %, $$, /*, */ or control characters"
            raise ValueError(message)
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            message = "must start with postgresql://"
            raise ValueError(message)
        # libpq would take part of such a password for the host and print it in its error.
        address = value.get_secret_value().partition("://")[2].partition("?")[0]
        authority, _, path = address.partition("/")
        if address.count("@") > 1 or "@" in path or _BAD_ESCAPE.search(authority):
            message = "has an unescaped @, / or % in its password: write %40, %2F or %25"
            raise ValueError(message)
        parts = _conninfo(value.get_secret_value())
        if not all(is_port(port) for port in parts.get("port", "").split(",") if port):
            message = f"has an invalid port: use a number from 1 to {LAST_PORT}"
            raise ValueError(message)
        if not _are_hosts(parts.get("host", "")):
            message = "has a host that cannot be looked up"
            raise ValueError(message)
        if not parts.get("host") and not _are_hosts(os.environ.get("PGHOST", "")):
            message = "names no host, and PGHOST none that can be looked up"
            raise ValueError(message)
        return value


class StatusSettings(DatabaseSettings):
    """The settings that decide when a row is due, and whether all is well."""

    stale_threshold_days: Annotated[float, Unit("days")] = Field(
        7, gt=0, le=3650, description="Days until LML is asked again about a row with an identity."
    )
    unresolved_retry_days: Annotated[float, Unit("days")] = Field(
        7, gt=0, le=3650, description="Days until LML is asked again about a row without one."
    )
    include_null_canonical: bool = Field(
        default=True,
        description="Whether searches include rows without canonical_entity_id; "
        "set to false for a staged rollout.",
    )
    rotation_min_coverage: Annotated[float, Unit("of 1")] = Field(
        0.99,
        ge=0,
        le=1,
        description="Share of the rotation rows with a Discogs release that must have an identity "
        "before the whole rotation is refreshed; 0.99 is 99 %.",
    )
    ready_max_lag: Duration = Field(
        timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(days=30),
        description="How long a library change may wait, while LML answers, before /readyz "
        "reports the daemon as not ready.",
    )


class Settings(StatusSettings):
    """All settings. A duration is a number of seconds, or like `250ms`, `30s`, `7d`."""

    library_metadata_url: AnyHttpUrl = Field(description="LML's base URL, with or without /api/v1.")
    lml_api_key: SecretStr | None = Field(None, description="LML's bearer token.")
    batch_size: Annotated[int, Unit("rows")] = Field(
        500, ge=1, le=1000, description="Most rows asked in one call."
    )
    va_batch_size: Annotated[int, Unit("rows")] = Field(
        100, ge=1, le=1000, description="Most compilations asked in one call; replies are long."
    )
    include_tracks: IncludeTracks = Field(
        IncludeTracks.COMPILATIONS,
        description="Which releases to request tracks for.",
    )
    lml_max_concurrent: Annotated[int, Unit("calls")] = Field(
        2,
        ge=1,
        le=5,
        description="Most bulk calls in flight. Searches leave one free for changes. LML works on "
        "five rows at a time across all its clients, and one page fills that: more calls do not "
        "make it faster.",
    )
    lml_timeout: Duration = Field(
        timedelta(minutes=3),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=10),
        description="Timeout of one bulk call. A single row may wait 75 s behind another client's "
        "page of cold identities; a call that is given up queues at the back again.",
    )
    lml_attempts: Annotated[int, Unit("tries")] = Field(
        3, ge=1, le=10, description="Attempts of one call before LML counts as unavailable."
    )
    lml_max_reply_bytes: Annotated[int, Unit("bytes")] = Field(
        16 * 2**20,
        ge=2**16,
        le=2**30,
        description="Largest reply accepted from LML, once unpacked. A thousand compilations with "
        "their tracks take 11 MB.",
    )
    backfill_lml_batch_timeout_ms: Annotated[int, Unit("milliseconds")] = Field(
        360_000, ge=1_000, le=3_600_000, description="Timeout of one refresh call."
    )
    backfill_lml_batch_size: Annotated[int, Unit("identities")] = Field(
        LML_REFRESH_BATCH_CAP,
        ge=1,
        le=LML_REFRESH_BATCH_CAP,
        description="Kept from the old job and otherwise unused: a refresh call holds as many "
        "identities as the budget allows, up to 50. A higher value is rejected at start.",
    )
    backfill_lml_rps: Annotated[int, Unit("calls a minute")] = Field(
        30,
        ge=1,
        le=600,
        description="Most refresh calls per MINUTE, despite the name, across all daemons and "
        "commands. A separate budget limits their calls to Discogs.",
    )
    backfill_lml_max_concurrent: Annotated[int, Unit("calls")] = Field(
        2,
        ge=1,
        le=4,
        description="Most refresh calls in flight across all daemons and commands. At 1, a change "
        "waits for the daily walk's call to end. At most four identities that may be cold are in "
        "flight, because LML works on five rows and identities at a time across all its clients.",
    )
    linger: Duration = Field(
        timedelta(milliseconds=100),
        ge=timedelta(0),
        le=timedelta(seconds=10),
        description="How long a batch of more than a few changes may wait to fill.",
    )
    reask_after: Duration = Field(
        timedelta(seconds=2),
        ge=timedelta(0),
        le=timedelta(minutes=5),
        description="How soon after one question about a row the next may follow.",
    )
    poll_interval: Duration = Field(
        timedelta(seconds=5),
        ge=timedelta(milliseconds=100),
        le=timedelta(days=1),
        description="How often to read the outbox without a wake-up.",
    )
    max_attempts: Annotated[int, Unit("failures")] = Field(
        8,
        ge=1,
        le=100,
        description="Consecutive failures before a row is parked, provided that other rows were "
        "answered for hours in between.",
    )
    withdraw_on_change: bool = Field(
        default=True,
        description="Whether a renamed row loses its identity if LML finds none for the new name.",
    )
    partition_index: Annotated[int, Unit("share")] = Field(
        0, ge=0, le=999, description="Share of the library that commands search, from 0."
    )
    partition_count: Annotated[int, Unit("shares")] = Field(
        1,
        validate_default=True,
        ge=1,
        le=1000,
        description="Number of shares into which the library is split.",
    )
    dry_run: bool = Field(
        default=False, description="Whether sweep and backfill ask LML but write nothing."
    )
    sweep_interval: Duration = Field(
        timedelta(minutes=15),
        ge=timedelta(seconds=1),
        le=timedelta(days=7),
        description="How often the daemon searches for rows that are due by time, "
        "or that gained credits.",
    )
    audit_interval: Duration = Field(
        timedelta(days=1),
        ge=timedelta(seconds=1),
        le=timedelta(days=30),
        description="How often the daemon checks every row for missed changes.",
    )
    rotation_warm_at: TimeOfDay = Field(
        time(10, 41),
        description="UTC time at which the daemon starts refreshing the whole rotation once a day; "
        "the start may be up to five minutes later. Avoid minutes in which another job that uses "
        "LML starts. Empty: no daily refresh, only changes are warmed.",
    )
    shutdown_timeout: Duration = Field(
        timedelta(seconds=10),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="How long to wait for calls in flight when stopping. "
        "The process exits at most a second later.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level to log."
    )
    gate_commit_sha: str | None = Field(
        None, description="Commit that the deployed LML must include."
    )
    gate_compare_url: str | None = Field(
        None,
        validate_default=True,
        description="URL at which the code host compares commits, containing {base} and {head}. "
        "Required with GATE_COMMIT_SHA.",
    )
    github_token: SecretStr | None = Field(
        None, description="Token for the code host, if it requires one."
    )
    local_dev: bool = Field(
        default=False, description="Whether the gate accepts an LML that reports no commit."
    )

    http_token: SecretStr | None = Field(
        None,
        description="Bearer token or password that clients must send; "
        "/livez and /readyz do not require it.",
    )
    http_allow_anonymous: bool = Field(
        default=False,
        description="Whether HTTP_BIND may be reachable from other hosts without HTTP_TOKEN.",
    )
    http_bind: str = Field(
        "127.0.0.1:8080",
        description="HOST:PORT at which the daemon serves its page, metrics and health checks. "
        "Port 0: any free port. Empty: serve nothing.",
    )

    sentry_dsn: SecretStr | None = Field(
        None, description="DSN for reporting runs and errors to Sentry; unset: report nothing."
    )
    sentry_traces_sample_rate: Annotated[float, Unit("of 1")] = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of windows and sweeps sent to Sentry. Commands, walks, audits and "
        "errors are always sent.",
    )
    sentry_environment: str = Field("production", description="Environment name shown in Sentry.")

    @model_validator(mode="after")
    def _reaches_others(self) -> Self:
        for url in filter(None, (self.library_metadata_url, self.gate_compare_url)):
            proxy_for(str(url))
        require_trust()
        return self

    @field_validator("library_metadata_url")
    @classmethod
    def _is_base(cls, value: AnyHttpUrl) -> AnyHttpUrl:
        if value.username or value.password:
            message = "must not contain user:password@: use LML_API_KEY"
            raise ValueError(message)
        if any(mark in str(value) for mark in "?#"):
            message = "must not contain a query or a fragment: paths are appended to it"
            raise ValueError(message)
        if not is_address(str(value)):
            message = f"must be an address like https://lml.example, with {USABLE}"
            raise ValueError(message)
        return value

    @field_validator("partition_count")
    @classmethod
    def _partition_exists(cls, value: int, info: ValidationInfo) -> int:
        index = info.data.get("partition_index", 0)
        if index >= value:
            message = f"must be greater than PARTITION_INDEX, which is {index}"
            raise ValueError(message)
        return value

    @field_validator("sentry_environment")
    @classmethod
    def _is_sentry_environment(cls, value: str) -> str:
        if not _SENTRY_ENVIRONMENT.fullmatch(value):
            message = "must be 1 to 64 characters, without spaces or slashes"
            raise ValueError(message)
        return value

    @field_validator("backfill_lml_batch_size", mode="before")
    @classmethod
    def _is_taken_by_lml(cls, value: object) -> object:
        if str(value).isdecimal() and int(str(value)) > LML_REFRESH_BATCH_CAP:
            message = (
                f"LML accepts at most {LML_REFRESH_BATCH_CAP} identities per call; unset it. That "
                "many uncached ones take four of the five minutes that LML's proxy allows"
            )
            raise ValueError(message)
        return value

    @field_validator("lml_api_key", "github_token", "http_token")
    @classmethod
    def _is_token(cls, value: SecretStr | None) -> SecretStr | None:
        # What a header can carry and a person can paste.
        if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
            message = "must be printable ASCII without spaces"
            raise ValueError(message)
        return value

    @field_validator("http_bind")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        open_to_all = info.data.get("http_allow_anonymous", True)
        guarded = info.data.get("http_token", True) is not None
        if value and not (is_loopback(split_address(value)[0]) or guarded or open_to_all):
            message = (
                "other hosts can reach that address; set HTTP_TOKEN, "
                "or HTTP_ALLOW_ANONYMOUS=1 to allow access without one"
            )
            raise ValueError(message)
        return value

    @field_validator("gate_commit_sha")
    @classmethod
    def _is_commit(cls, value: str | None) -> str | None:
        if value is not None and not _COMMIT.fullmatch(value):
            message = "must be 7 to 40 hexadecimal digits"
            raise ValueError(message)
        return value

    @field_validator("gate_compare_url")
    @classmethod
    def _compares_commits(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("gate_commit_sha") is None:
            return value
        address = value or ""
        if not is_address(address) or not all(name in address for name in ("{base}", "{head}")):
            message = (
                "GATE_COMMIT_SHA needs an address like "
                "https://api.github.com/repos/OWNER/REPO/compare/{base}...{head}, "
                f"with {USABLE}"
            )
            raise ValueError(message)
        return value

    @field_validator("lml_api_key", "github_token", "http_token", "sentry_dsn", mode="before")
    @classmethod
    def _blank_is_none(cls, value: object) -> object:
        # Deployment templates set a variable to the empty string to omit it.
        return None if value == "" else value

    @field_validator("sentry_dsn")
    @classmethod
    def _is_sentry_dsn(cls, value: SecretStr | None) -> SecretStr | None:
        dsn = value.get_secret_value() if value is not None else None
        if dsn is not None and not (_SENTRY_DSN.fullmatch(dsn) and is_address(dsn)):
            message = f"must be like https://KEY@HOST/PROJECT, with {USABLE}"
            raise ValueError(message)
        return value

    @field_validator("include_tracks", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; an IPv6 address must be in brackets."""
    match = _ADDRESS.fullmatch(address)
    host, port = (match[1] or match[2], match[3]) if match else ("", "")
    # Port 0 means any that is free.
    if not is_host(host) or not (is_port(port) or port == "0"):
        message = "must be like 127.0.0.1:8080, [::1]:8080 or localhost:8080"
        raise ValueError(message)
    return host, int(port)


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
            "is no address that can be read: write %XX for special characters of its parts, in "
            "UTF-8 and never %00, and name=value for parameters"
        )
        raise ValueError(message)
    return {name: str(value) for name, value in parts.items()}


def is_loopback(host: str) -> bool:
    """Return whether `host` is reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def load_settings(model: type[T]) -> T:
    """Read the environment and `.env`; raises one `SettingsError` that lists every problem."""
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
    """Return the names in the file `.env` that are no settings, with those that they resemble."""
    names = [name.upper() for name in Settings.model_fields]
    try:
        written = [name.upper() for name in DotEnvSettingsSource(Settings).env_vars]
    except (UnicodeDecodeError, OSError):
        # Loading the settings says so.
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
        ours = detail["type"] == "value_error" and kind_of(field) != "duration"
        demand = reason if ours else demand_of(field)
        lines.append(f"{name.upper()}{_value(field, detail['input'])}: {demand}")
    return lines


def _value(field: FieldInfo, given: object) -> str:
    # A URL may contain a password or a key even where the setting is not a secret.
    if "SecretStr" in str(field.annotation) or {"@", "?"} & set(str(given)):
        return ""
    return " is not set" if given is None else f" is {shown(given)!r}"
