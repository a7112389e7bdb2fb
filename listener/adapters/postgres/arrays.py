"""Columns of values as binary arrays: psycopg's own dumper makes one Python call per element."""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, ClassVar

from psycopg.adapt import AdaptersMap, Buffer, Dumper
from psycopg.pq import Format

_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)


@dataclass(slots=True)
class _Column:
    """Values of one type, `written` only once although several statements send them."""

    values: Sequence[Any]
    written: bytes | None = field(default=None, init=False)


class Int4s(_Column):
    """A column of int4, None for NULL."""

    __slots__ = ()


class Int8s(_Column):
    """A column of int8."""

    __slots__ = ()


class Float4s(_Column):
    """A column of float4, None for NULL."""

    __slots__ = ()


class Texts(_Column):
    """A column of text, None for NULL."""

    __slots__ = ()


class Byteas(_Column):
    """A column of bytea."""

    __slots__ = ()


class _ArrayDumper(Dumper):
    """Writes PostgreSQL's binary array: header, then each element behind its length."""

    format = Format.BINARY
    element: ClassVar[int]

    def dump(self, obj: _Column) -> Buffer | None:
        if obj.written is None:
            obj.written = self._array(obj.values)
        return obj.written

    def _array(self, values: Sequence[Any]) -> bytes:
        if not values:
            return _HEADER.pack(0, 0, self.element, 0, 0)[:12]
        return _HEADER.pack(1, 1, self.element, len(values), 1) + self.elements(values)

    @abstractmethod
    def elements(self, values: Sequence[Any]) -> bytes: ...


class _NumberDumper(_ArrayDumper):
    code: ClassVar[str]

    def elements(self, values: Sequence[Any]) -> bytes:
        if None in values:
            pack = struct.Struct(f"!{self.code}").pack
            return _variable([None if value is None else pack(value) for value in values])
        size = struct.calcsize(f"!{self.code}")
        lengths_and_values = chain.from_iterable(zip(repeat(size), values, strict=False))
        return struct.pack("!" + f"i{self.code}" * len(values), *lengths_and_values)


class _Int4Dumper(_NumberDumper):
    oid, element, code = 1007, 23, "i"


class _Int8Dumper(_NumberDumper):
    oid, element, code = 1016, 20, "q"


class _Float4Dumper(_NumberDumper):
    oid, element, code = 1021, 700, "f"


class _TextDumper(_ArrayDumper):
    oid, element = 1009, 25

    def elements(self, values: Sequence[str | None]) -> bytes:
        return _variable([None if value is None else value.encode() for value in values])


class _ByteaDumper(_ArrayDumper):
    oid, element = 1001, 17

    def elements(self, values: Sequence[bytes]) -> bytes:
        return _variable(values)


def _variable(values: Sequence[bytes | None]) -> bytes:
    pack = _LENGTH.pack
    return b"".join([_NULL if value is None else pack(len(value)) + value for value in values])


def register_columns(adapters: AdaptersMap) -> None:
    """Register the columns of this module with a connection's adapters."""
    adapters.register_dumper(Int4s, _Int4Dumper)
    adapters.register_dumper(Int8s, _Int8Dumper)
    adapters.register_dumper(Float4s, _Float4Dumper)
    adapters.register_dumper(Texts, _TextDumper)
    adapters.register_dumper(Byteas, _ByteaDumper)
