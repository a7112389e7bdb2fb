"""Describes in words what a setting may be: its type, unit, default and bounds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import time, timedelta
from enum import StrEnum
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import AnyHttpUrl, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from listener.domain.words import WRITTEN

NEEDED = "required"

_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    timedelta: "duration",
    time: "time of day",
    SecretStr: "secret",
    AnyHttpUrl: "address",
}


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts: `Annotated[int, Unit("rows")]`; a duration is written with its unit."""

    name: str


def kind_of(field: FieldInfo) -> str:
    """Return the type of a setting in words, such as whole number, duration or one of."""
    return "one of" if _words(field) else _KINDS.get(_plain(field), "text")


def unit_of(field: FieldInfo) -> str:
    """Return what a number counts, and an empty string if the setting is not a number."""
    return next((mark.name for mark in field.metadata if isinstance(mark, Unit)), "")


def default_of(field: FieldInfo) -> str:
    """Return the default as it would be written, `NEEDED`, or an empty string if it is empty."""
    return NEEDED if field.default is PydanticUndefined else shown(field.default)


def bounds_of(field: FieldInfo) -> str:
    """Return the minimum and maximum, or the allowed words; empty if everything is allowed."""
    if words := _words(field):
        return f"{', '.join(words[:-1])} or {words[-1]}"
    longest = next((mark.max_length for mark in field.metadata if isinstance(mark, MaxLen)), None)
    if longest is not None:
        shortest = sum(mark.min_length for mark in field.metadata if isinstance(mark, MinLen))
        return f"{shortest} to {longest} characters"
    least = next((shown(mark.ge) for mark in field.metadata if isinstance(mark, Ge)), None)
    above = next((shown(mark.gt) for mark in field.metadata if isinstance(mark, Gt)), None)
    most = next((shown(mark.le) for mark in field.metadata if isinstance(mark, Le)), None)
    if most is None:
        return f"{least} or more" if least is not None else ""
    return f"{least} to {most}" if least is not None else f"above {above}, to {most}"


def demand_of(field: FieldInfo) -> str:
    """Return the demand for the error about an invalid value, with the bounds."""
    bounds, kind = bounds_of(field), kind_of(field)
    match kind:
        case "one of" | "text":
            return f"must be {bounds or 'some text'}"
        case "duration":
            return f"must be {bounds}, as a number of seconds or like 250ms, 30s, 15m, 1h, 7d"
        case "time of day":
            return "must be a time of day like 09:00, or empty"
        case "address":
            return "must be an address like https://lml.example"
        case "true or false":
            return f"must be {kind}"
        case _:
            return f"must be a {kind}{f', {bounds}' if bounds else ''}"


def shown(value: object) -> str:
    """Return a value as it would be written in the environment."""
    return _WRITTEN.get(type(value), str)(value)


def _words(field: FieldInfo) -> list[str]:
    plain = _plain(field)
    if get_origin(plain) is Literal:
        return list(get_args(plain))
    if isinstance(plain, type) and issubclass(plain, StrEnum):
        return [str(word) for word in plain]
    return []


def _plain(field: FieldInfo) -> Any:  # noqa: ANN401 - a type or a form of one
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    optional = NoneType in get_args(field.annotation)
    return kinds[0] if optional else field.annotation


def _duration(value: timedelta) -> str:
    for unit, size in WRITTEN.items():
        count = value.total_seconds() / size
        if count >= 1 and count.is_integer():
            return f"{int(count)}{unit}"
    return f"{round(value.total_seconds() * 1000)}ms" if value else "0s"


_WRITTEN: dict[type, Callable[[Any], str]] = {
    NoneType: lambda _: "",
    bool: lambda value: str(value).lower(),
    float: "{:g}".format,
    time: "{:%H:%M}".format,
    timedelta: _duration,
    SecretStr: SecretStr.get_secret_value,
}


_MASK = "********"
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@]*@")
_PASSWORD_PARAMETER = re.compile(r"([?&](?:ssl)?password=)[^&]*")
_SOMEBODY = re.compile(r"(?<=://)[^/@]*@")


def masked(name: str, value: object) -> str | None:
    """Return a value as it would be written, with its secrets masked."""
    if value is None:
        return None
    text = shown(value)
    if name == "database_url":
        return _PASSWORD_PARAMETER.sub(rf"\1{_MASK}", _PASSWORD.sub(rf"\1:{_MASK}@", text))
    if isinstance(value, SecretStr):
        return _MASK if text else ""
    return _SOMEBODY.sub(f"{_MASK}@", text)
