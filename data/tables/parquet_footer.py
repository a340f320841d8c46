"""What a Parquet file would cost to read, and whether its parts lie where they should.

Looks at the footer and at the header of each page, before pyarrow reads any of it. pyarrow takes
what the footer claims for true, does not cover page headers by the pages' checksums, and ends the
process at some damaged footers (seen with 25.0 in a column's size statistics). Decodes no value.
(https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

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


MAX_FOOTER_BYTES = 1 << 22
MAX_GROUPS = 1 << 12
_MAGIC = b"PAR1"
_TAIL = 8  # length of the footer, magic
_HEADER_BYTES = (1 << 10, 1 << 17)  # of a page: tried one after the other; statistics lengthen it
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_UNCOMPRESSED, _ZSTD = 0, 6
_CODECS = range(8)  # pyarrow reads one that it does not know as if it were none
_VALUES_OF = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # page type → field of its own header


class LayoutError(ValueError):
    """The file is not laid out as Parquet."""


class Layout:
    """A file's layout: by its own word, compared with its bytes as far as a method says.

    metadata: the footer's keys and values. Raises LayoutError if the footer is none.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        footer, self._end = _footer(stream, os.fstat(stream.fileno()).st_size)
        self.metadata = _metadata(footer)
        self.rows = _count(footer, 3, "rows")
        self._groups = _list(footer, 4)

    def page_bytes(self, columns: Collection[str], *, whole: bool) -> int:
        """Bytes of the pages of these columns, decompressed.

        whole: as we write it: every byte before the footer belongs to a page, each page has a
        checksum, and all columns are looked at. Raises LayoutError for what cannot be read.
        """
        if len(self._groups) > MAX_GROUPS:
            raise LayoutError(f"{len(self._groups)} row groups, expected at most {MAX_GROUPS}")
        if sum(_count(group, 3, "rows of a group") for group in self._groups) != self.rows:
            raise LayoutError("its row groups do not have the rows that it claims")
        wanted = {name.encode() for name in columns}
        total, place = 0, len(_MAGIC)
        for group in self._groups:
            for column in _list(group, 1):
                chunk = _chunk(column, rows=_count(group, 3, "rows of a group"), end=self._end)
                if chunk is None:
                    continue
                if chunk.codec not in ({_ZSTD} if whole else _CODECS):
                    raise LayoutError(f"column {chunk.name!r} has the compression {chunk.codec}")
                if whole and chunk.start != place:
                    raise LayoutError(f"column {chunk.name!r} does not begin where the last ends")
                place = chunk.end
                if whole or chunk.name in wanted:
                    total += sum(_pages(self._stream, chunk, checksums=whole))
        if whole and place != self._end:
            raise LayoutError("there are bytes between its last column and its footer")
        return total


@dataclass(frozen=True)
class _Chunk:
    """One column of one row group, which lies in [start, end) of the file."""

    name: bytes
    codec: int
    values: int
    start: int
    end: int


def _footer(stream: BinaryIO, size: int) -> tuple[Struct, int]:
    if size < len(_MAGIC) + _TAIL:
        raise LayoutError(f"it has {size} bytes, which is too few")
    head, tail = _bytes(stream, 0, len(_MAGIC)), _bytes(stream, size - _TAIL, _TAIL)
    if head != _MAGIC or tail[4:] != _MAGIC:
        raise LayoutError("it does not begin and end as Parquet does")
    length = int.from_bytes(tail[:4], "little")
    start = size - _TAIL - length
    if length > MAX_FOOTER_BYTES or start < len(_MAGIC):
        raise LayoutError(f"its footer claims {length} bytes")
    reader = CompactReader(_bytes(stream, start, length))
    try:
        footer = reader.struct()
    except ThriftError as error:
        raise LayoutError(f"its footer: {error}") from error
    if reader.position != length:
        raise LayoutError("its footer has bytes too many")
    return footer, start


def _metadata(footer: Struct) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for pair in _list(footer, 5):
        key: bytes = _typed(pair, 1, bytes)
        value = pair.get(2, b"")
        if key in found or not isinstance(value, bytes):
            raise LayoutError(f"its key {key[:40]!r} stands twice or has no text")
        found[key] = value
    return found


def _chunk(column: Any, *, rows: int, end: int) -> _Chunk | None:
    """Where the column lies; None where it has no row and no byte."""
    if not isinstance(column, dict) or 1 in column:  # a path: its pages are in another file
        raise LayoutError("a column has its pages in another file")
    meta: Struct = _typed(column, 3, dict)
    path = _list(meta, 3)
    if not path or not all(isinstance(part, bytes) for part in path):
        raise LayoutError("a column has no name")
    values, size = _count(meta, 5, "values"), _count(meta, 7, "bytes of a column")
    if not rows and not size and not values:
        return None
    # Of a chunk without a value some writers leave one place 0.
    places = [_count({9: meta.get(field, 0)}, 9, "the place of a page") for field in (9, 11)]
    start = min(filter(None, places), default=0)
    if start < len(_MAGIC) or start + size > end:
        raise LayoutError(f"column {path[0]!r} does not lie inside the file")
    if len(path) == 1 and values != rows:
        raise LayoutError(f"column {path[0]!r} has {values} values for {rows} rows")
    return _Chunk(
        name=b".".join(path),
        codec=_count(meta, 4, "the number of its compression"),
        values=values,
        start=start,
        end=start + size,
    )


def _pages(stream: BinaryIO, chunk: _Chunk, *, checksums: bool) -> Iterator[int]:
    """Decompressed bytes of each page of the chunk. Raises LayoutError."""
    place, values = chunk.start, 0
    while place < chunk.end:
        page, length = _page_header(stream, place, limit=chunk.end - place)
        kind = _typed(page, 1, int)
        plain, stored = _count(page, 2, "bytes of a page"), _count(page, 3, "bytes of a page")
        if chunk.codec == _UNCOMPRESSED and plain != stored:
            raise LayoutError(f"a page of column {chunk.name!r} has two sizes")
        yield plain
        place += length + stored
        if checksums and not isinstance(page.get(4), int):
            raise LayoutError(f"a page of column {chunk.name!r} has no checksum")
        if kind in _VALUES_OF:
            header: Struct = _typed(page, _VALUES_OF[kind], dict)
            count = _count(header, 1, "values of a page")
            values += count if kind != _DICTIONARY else 0
    if place != chunk.end or values != chunk.values:
        raise LayoutError(f"the pages of column {chunk.name!r} do not fill it")


def _page_header(stream: BinaryIO, place: int, *, limit: int) -> tuple[Struct, int]:
    for size in _HEADER_BYTES:
        reader = CompactReader(_bytes(stream, place, min(size, limit)))
        try:
            return reader.struct(), reader.position
        except NotEnoughBytes:
            continue
        except ThriftError as error:
            raise LayoutError(f"a page's header: {error}") from error
    raise LayoutError("a page's header is cut off")


def _bytes(stream: BinaryIO, place: int, size: int) -> bytes:
    stream.seek(place)
    data = stream.read(size)
    if len(data) != size:
        raise LayoutError("it ends too early")
    return data


def _typed(struct: Any, field: int, kind: type) -> Any:
    found = struct.get(field) if isinstance(struct, dict) else None
    if not isinstance(found, kind):
        raise LayoutError(f"a field of its footer or pages is {type(found).__name__}")
    return found


def _count(struct: Any, field: int, what: str) -> int:
    found: int = _typed(struct, field, int)
    if found < 0:
        raise LayoutError(f"it claims {found} {what}")
    return found


def _list(struct: Any, field: int) -> list[Any]:
    if isinstance(struct, dict) and field not in struct:
        return []  # an empty list may be left out
    found: list[Any] = _typed(struct, field, list)
    return found
