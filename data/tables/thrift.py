"""Reading Thrift's compact protocol, as far as Parquet's footer and page headers use it.

A structure becomes `{field number: value}`; names and meanings are the caller's. Nothing is
allocated for a size that is only claimed.
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md)
"""

from __future__ import annotations

from typing import Any

Struct = dict[int, Any]

MAX_DEPTH = 16
MAX_VARINT_BYTES = 10
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_INTEGERS = {_I16: 16, _I32: 32, _I64: 64}
_MORE = 0x80  # this bit of a varint's byte: another one follows
_LONG_LIST = 15  # the size follows as a varint


class ThriftError(ValueError):
    """The bytes are no structure."""


class NotEnoughBytes(ThriftError):
    """The structure goes on after the last byte."""


class CompactReader:
    """Reads structures from `data`, from `position` on."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    def struct(self, depth: int = 0) -> Struct:
        """One structure. Raises ThriftError."""
        if depth > MAX_DEPTH:
            raise ThriftError(f"structures nested deeper than {MAX_DEPTH} levels")
        fields: Struct = {}
        number = 0
        while header := self._byte():
            kind, step = header & 0x0F, header >> 4
            number = number + step if step else self._zigzag(16)
            if number in fields:
                raise ThriftError(f"field {number} stands twice")
            is_flag = kind in {_TRUE, _FALSE}
            fields[number] = kind == _TRUE if is_flag else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._zigzag(_INTEGERS[kind])
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in {_LIST, _SET}:
            return self._list(depth)
        if kind in {_BYTE, _TRUE, _FALSE}:  # in a list a flag is one byte
            return self._byte()
        if kind == _DOUBLE:
            return self._take(8)
        raise ThriftError(f"type {kind}, which Parquet does not use")

    def _list(self, depth: int) -> list[Any]:
        if depth > MAX_DEPTH:
            raise ThriftError(f"lists nested deeper than {MAX_DEPTH} levels")
        header = self._byte()
        kind, size = header & 0x0F, header >> 4
        if size == _LONG_LIST:
            size = self._varint()
        if size > len(self._data) - self.position:  # no item has less than a byte
            raise NotEnoughBytes(f"a list claims {size} items")
        return [self._value(kind, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise NotEnoughBytes("cut off")
        self.position += 1
        return self._data[self.position - 1]

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self.position:
            raise NotEnoughBytes(f"a text claims {size} bytes")
        self.position += size
        return self._data[self.position - size : self.position]

    def _varint(self) -> int:
        value = 0
        for index in range(MAX_VARINT_BYTES):
            byte = self._byte()
            value |= (byte & 0x7F) << (7 * index)
            if not byte & _MORE:
                return value
        raise ThriftError(f"a number of more than {MAX_VARINT_BYTES} bytes")

    def _zigzag(self, bits: int) -> int:
        value = self._varint()
        value = (value >> 1) ^ -(value & 1)
        if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
            raise ThriftError(f"{value} does not fit into {bits} bits")
        return value
