"""The kinds of values that settings have, and what makes one valid."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import time, timedelta
from ipaddress import ip_address
from typing import Annotated, LiteralString

from pydantic import AfterValidator, AnyHttpUrl, BeforeValidator, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from listener.domain.refreshing import LML_REFRESH_BATCH_CAP
from listener.domain.words import WRITTEN
from listener.network import USABLE, is_address, is_host, is_port

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
# The SDK's own rule, known before the SDK is imported.
_SENTRY_DSN = re.compile(
    r"https?://[^\s:/@]+(?::[^\s/@]*)?@[^\s:/@]+(?::[0-9]+)?/(?:[^\s?#]*/)?[0-9]+"
)
_SENTRY_ENVIRONMENT = re.compile(r"[^\s/]{1,64}")
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+)):([0-9]+)")
_TOKEN = re.compile(r"[!-~]+")
_COMMIT = re.compile(r"[0-9a-fA-F]{7,40}")
# A ValueError would be reported in its own words; for this, `demand_of` states the demand.
_UNREADABLE: tuple[LiteralString, LiteralString] = ("unreadable", "cannot be read")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; an IPv6 address must be in brackets."""
    match = _HOST_AND_PORT.fullmatch(address)
    host, port = (match[1] or match[2], match[3]) if match else ("", "")
    # Port 0 means any that is free.
    if not is_host(host) or not (is_port(port) or port == "0"):
        message = "must be like 127.0.0.1:8080, [::1]:8080 or localhost:8080"
        raise ValueError(message)
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Return whether `host` is reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise PydanticCustomError(*_UNREADABLE)
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
        raise PydanticCustomError(*_UNREADABLE)
    return time(int(match[1]), int(match[2]))


def _blank_is_none(value: object) -> object:
    # Deployment templates set a variable to the empty string to omit it.
    return None if value == "" else value


def _token(value: SecretStr | None) -> SecretStr | None:
    # What a header can carry and a person can paste.
    if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return value


def _base_url(value: AnyHttpUrl) -> AnyHttpUrl:
    if value.username or value.password:
        raise ValueError("must not contain user:password@: use LML_API_KEY")
    if any(mark in str(value) for mark in "?#"):
        raise ValueError("must not contain a query or a fragment: paths are appended to it")
    if not is_address(str(value)):
        raise ValueError(f"must be an address like https://lml.example, with {USABLE}")
    return value


def _more_than_index(value: int, info: ValidationInfo) -> int:
    index = info.data.get("partition_index", 0)
    if index >= value:
        raise ValueError(f"must be greater than PARTITION_INDEX, which is {index}")
    return value


def _taken_by_lml(value: object) -> object:
    if str(value).isdecimal() and int(str(value)) > LML_REFRESH_BATCH_CAP:
        message = (
            f"LML accepts at most {LML_REFRESH_BATCH_CAP} identities per call; unset it. That "
            "many uncached ones take four of the five minutes that LML's proxy allows"
        )
        raise ValueError(message)
    return value


def _guarded(value: str, info: ValidationInfo) -> str:
    open_to_all = info.data.get("http_allow_anonymous", True)
    guarded = info.data.get("http_token", True) is not None
    if value and not (is_loopback(split_address(value)[0]) or guarded or open_to_all):
        message = (
            "other hosts can reach that address; set HTTP_TOKEN, "
            "or HTTP_ALLOW_ANONYMOUS=1 to allow access without one"
        )
        raise ValueError(message)
    return value


def _commit(value: str | None) -> str | None:
    if value is not None and not _COMMIT.fullmatch(value):
        raise ValueError("must be 7 to 40 hexadecimal digits")
    return value


def _comparing(value: str | None, info: ValidationInfo) -> str | None:
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


def _sentry_dsn(value: SecretStr | None) -> SecretStr | None:
    dsn = value.get_secret_value() if value is not None else None
    if dsn is not None and not (_SENTRY_DSN.fullmatch(dsn) and is_address(dsn)):
        raise ValueError(f"must be like https://KEY@HOST/PROJECT, with {USABLE}")
    return value


def _sentry_environment(value: str) -> str:
    if not _SENTRY_ENVIRONMENT.fullmatch(value):
        raise ValueError("must be 1 to 64 characters, without spaces or slashes")
    return value


def _in_case(convert: Callable[[str], str]) -> BeforeValidator:
    def converted(value: object) -> object:
        return convert(value) if isinstance(value, str) else value

    return BeforeValidator(converted)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
TimeOfDay = Annotated[time | None, BeforeValidator(_time_of_day)]
Token = Annotated[SecretStr | None, BeforeValidator(_blank_is_none), AfterValidator(_token)]
BaseUrl = Annotated[AnyHttpUrl, AfterValidator(_base_url)]
Commit = Annotated[str | None, AfterValidator(_commit)]
CompareUrl = Annotated[str | None, AfterValidator(_comparing)]
SentryDsn = Annotated[
    SecretStr | None, BeforeValidator(_blank_is_none), AfterValidator(_sentry_dsn)
]
SentryEnvironment = Annotated[str, AfterValidator(_sentry_environment)]
Bind = Annotated[str, AfterValidator(_guarded)]
# Marks to add to the type of a setting.
MORE_THAN_INDEX = AfterValidator(_more_than_index)
TAKEN_BY_LML = BeforeValidator(_taken_by_lml)
LOWER = _in_case(str.lower)
UPPER = _in_case(str.upper)
