"""Parquet files that are read by row groups: footers, whole columns, and groups in a bounded cache.

Opened by their footers alone. Nothing stays open: each row group is asked for by its bytes, so that
any process and thread may do it, on any storage.
"""

from __future__ import annotations

import io
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from epochal.data.errors import DataError
from epochal.data.files.parquet_paths import find_parquet
from epochal.data.files.reading import Piece, Reader
from epochal.data.store.failures import cause_of

# F files, G row groups of all of them, N rows

GROUPS_BYTES = 256 << 20
"""Decoded row groups that one process keeps."""

FETCHED_BYTES = 64 << 20  # of row groups that are asked for together
WHOLE_BYTES = 8 << 20  # of a file that is read whole, at a time
TAIL_BYTES = 1 << 16  # holds most footers whole
_MAGIC = b"PAR1"
_END_BYTES = 8  # the footer's length and the magic


@dataclass(frozen=True)
class ParquetFile:
    """One file. name: below the root. stamp: of its time or ETag. footer: the bytes of it."""

    name: str
    size: int
    stamp: int
    footer: bytes
    metadata: pq.FileMetaData


class ParquetFiles:
    """The row groups of all files at `path`: a file, a folder, a pattern with `*`, or an address.

    Files are in the order of their names. Raises DataError, naming the file, for what is missing,
    no Parquet, or of another schema than the first in one of `columns`, leaves such as
    `image.bytes` or whole ones.
    """

    def __init__(self, path: str, *, name: str) -> None:
        self.name = name
        root, found = find_parquet(path, name)
        self.reader = Reader(root)
        self.files = _opened(self.reader, found, name)
        groups_F = [file.metadata.num_row_groups for file in self.files]
        rows_G: list[int] = []
        for number, file in enumerate(self.files):
            rows = [file.metadata.row_group(group).num_rows for group in range(groups_F[number])]
            if min(rows, default=0) < 0 or sum(rows) != file.metadata.num_rows:
                raise self.damaged(number, ValueError(f"{sum(rows)} rows in its row groups"))
            rows_G += rows
        self.file_G = np.repeat(np.arange(len(groups_F)), groups_F)
        self.first_G1 = np.append(0, np.cumsum(np.array(rows_G, dtype=np.int64)))
        self.first_group_F = np.append(0, np.cumsum(np.array(groups_F, dtype=np.int64)))
        self.num_rows = int(self.first_G1[-1])
        self.schema: pa.Schema = self.files[0].metadata.schema.to_arrow_schema()
        if not self.num_rows:
            raise DataError(
                f"{name}: {path}: found no rows in {len(self.files)} files; expected one"
            )

    def field(self, column: str) -> pa.Field:
        """The column, of one type in all files. Raises DataError."""
        if column not in self.schema.names:
            raise DataError(
                f"{self.name}: {self.place(0)} has no column {column!r}; it has "
                f"{', '.join(self.schema.names)}; correct the argument"
            )
        wanted = self.schema.field(column)
        for number, file in enumerate(self.files[1:], start=1):
            schema = file.metadata.schema.to_arrow_schema()
            found = schema.field(column).type if column in schema.names else "none"
            if found != wanted.type:
                raise DataError(
                    f"{self.name}: {self.place(number)} has the column {column!r} of type {found}, "
                    f"and {self.place(0)} of type {wanted.type}; expected files of one data set"
                )
        return wanted

    def place(self, file: int) -> str:
        """Where the file is, for people."""
        return self.reader.address(self.files[file].name)

    def damaged(self, file: int, error: Exception) -> DataError:
        """To be raised where a file cannot be what its footer says."""
        return DataError(
            f"{self.name}: {self.place(file)} is no whole Parquet file: {cause_of(error)}; it has "
            f"{self.files[file].size} bytes; fetch it again, or remove it"
        )

    def row_name(self, row: int) -> str:
        """`part-3.parquet row 17`, counted in its file from 0."""
        group = self.group_of(row)
        file = int(self.file_G[group])
        first = int(self.first_G1[self.first_group_F[file]])
        return f"{self.files[file].name} row {row - first}"

    def group_of(self, row: int) -> int:
        """The row group, counted over all files, that a row is in."""
        return int(np.searchsorted(self.first_G1, row, side="right")) - 1

    def column(self, column: str) -> pa.ChunkedArray:
        """A whole column of all files, read as one. For one of few bytes a row."""
        chunks: list[pa.Array] = []
        for number, file in enumerate(self.files):
            pieces = list(_chunks(self, number, column))
            window = _Window(file.size, pieces, self.reader.read(pieces))
            groups = list(range(file.metadata.num_row_groups))
            found = _decoded(self, number, groups, column, window).column(0)
            chunks += found.chunks
        return pa.chunked_array(chunks, type=self.field(column).type)

    def spread_bytes(
        self, *, num_pieces: int, piece_bytes: int, whole_below: int
    ) -> Iterator[bytes]:
        """All bytes of all files where they are few, else pieces that lie evenly among them."""
        sizes = [file.size for file in self.files]
        total = sum(sizes)
        if total <= whole_below:
            for file in self.files:
                for start in range(0, file.size, WHOLE_BYTES):
                    end = min(start + WHOLE_BYTES, file.size)
                    yield from self.reader.read([Piece(file.name, start, end)])
            return
        pieces = []
        ends_F = np.cumsum(np.array(sizes, dtype=np.int64))
        for place in np.linspace(0, total - 1, num_pieces).astype(np.int64).tolist():
            number = int(np.searchsorted(ends_F, place, side="right"))
            start = place - (int(ends_F[number]) - sizes[number])
            end = min(start + piece_bytes, sizes[number])
            pieces.append(Piece(self.files[number].name, start, end))
        yield from self.reader.read(pieces)


class RowGroups:
    """The row groups of one column, or one leaf of it, decoded when they are asked for.

    A process keeps the last used ones, up to `kept_bytes`, or one. Safe for threads and forks.
    """

    def __init__(self, files: ParquetFiles, leaf: str, *, kept_bytes: int = GROUPS_BYTES) -> None:
        self._files = files
        self._leaf = leaf
        self._kept_bytes = kept_bytes
        numbers = range(len(files.files))
        self._pieces = [piece for number in numbers for piece in _chunks(files, number, leaf)]
        self._mine = _Kept(kept_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mine": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._mine = _Kept(self._kept_bytes)

    @property
    def num_bytes_G(self) -> list[int]:
        """Bytes of each row group as it is stored."""
        return [_piece_bytes(piece) for piece in self._pieces]

    def will_read(self, groups: Iterable[int]) -> None:
        """These are read next, in this order."""
        kept = self._kept()
        self._files.reader.will_read(
            [self._pieces[group] for group in groups if group not in kept.futures]
        )

    def together(self, groups: Iterable[int]) -> Iterable[list[int]]:
        """The groups in runs that are fetched at the same time: 64 MiB, or one."""
        run: list[int] = []
        left = FETCHED_BYTES
        for group in groups:
            size = _piece_bytes(self._pieces[group])
            if run and size > left:
                yield run
                run, left = [], FETCHED_BYTES
            run.append(group)
            left -= size
        if run:
            yield run

    def get(self, groups: Sequence[int]) -> list[pa.Array]:
        """The values of the leaf in each of these groups; the missing ones are read together.

        Raises DataError for a file that has changed, or cannot be decoded.
        """
        kept = self._kept()
        mine, futures = kept.claim(groups)
        try:
            for group, table in zip(mine, self.fetch(mine), strict=True):
                kept.give(group, _values(table.column(0)))
        except BaseException as error:
            kept.fail(mine, error)
            raise
        return [future.result() for future in futures]

    def fetch(self, groups: Sequence[int]) -> list[pa.Table]:
        """Reads these groups, kept or not."""
        pieces = [self._pieces[group] for group in groups]
        reader = self._files.reader
        return [
            self._decoded(group, piece, data)
            for group, piece, data in zip(groups, pieces, reader.read(pieces), strict=True)
        ]

    def _decoded(self, group: int, piece: Piece, data: bytes) -> pa.Table:
        files = self._files
        number = int(files.file_G[group])
        window = _Window(files.files[number].size, [piece], [data])
        inside = group - int(files.first_group_F[number])
        return _decoded(files, number, [inside], self._leaf, window)

    def _kept(self) -> _Kept:
        if self._mine.pid != os.getpid():
            self._mine = _Kept(self._kept_bytes)
        return self._mine


def _values(column: pa.ChunkedArray) -> pa.Array:
    while pa.types.is_struct(column.type):
        column = pc.struct_field(column, 0)  # of a leaf that was asked for alone
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class _Kept:
    """The row groups that one process has decoded, and those that one of its threads is reading."""

    def __init__(self, limit: int) -> None:
        self.pid = os.getpid()
        self.futures: OrderedDict[int, Future[pa.Array]] = OrderedDict()
        self._lock = threading.Lock()
        self._limit = limit
        self._held = 0

    def claim(self, groups: Sequence[int]) -> tuple[list[int], list[Future[pa.Array]]]:
        """Which of them the caller is to read, and what will hold each."""
        mine: list[int] = []
        with self._lock:
            for group in groups:
                if group not in self.futures:
                    self.futures[group] = Future()
                    mine.append(group)
                self.futures.move_to_end(group)
            return mine, [self.futures[group] for group in groups]

    def give(self, group: int, values: pa.Array) -> None:
        """What was read."""
        with self._lock:
            self.futures[group].set_result(values)
            self._held += values.nbytes
            for old in list(self.futures):
                if self._held <= self._limit or old == group:
                    break
                if self.futures[old].done():
                    self._held -= self.futures.pop(old).result().nbytes

    def fail(self, groups: Sequence[int], error: BaseException) -> None:
        """What could not be read: whoever waits for it gets the error, whoever comes later asks."""
        with self._lock:
            for group in groups:
                if not self.futures[group].done():
                    self.futures.pop(group).set_exception(error)


class _Window(io.RawIOBase):
    """A file of which only these pieces, in their order, are here."""

    def __init__(self, size: int, pieces: Sequence[Piece], data: Sequence[bytes]) -> None:
        self._size = size
        self._starts = [piece.start for piece in pieces]
        self._data = data
        self._at = 0
        self.was_asked = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> Any:
        self.was_asked = True
        start = self._at
        end = self._size if size < 0 else min(start + size, self._size)
        number = bisect_right(self._starts, start) - 1
        if number < 0 or end - self._starts[number] > len(self._data[number]):
            raise OSError(f"bytes {start} to {end} are not those of the row group")
        self._at = end
        first = self._starts[number]
        return memoryview(self._data[number])[start - first : end - first]


def _decoded(
    files: ParquetFiles, number: int, groups: list[int], leaf: str, window: _Window
) -> pa.Table:
    """The leaf in these row groups of one file. Raises DataError."""
    metadata = files.files[number].metadata
    try:
        source = pa.PythonFile(window, mode="r")
        # Read ahead, neighbouring pieces would be one, with bytes between them that are not here.
        parquet = pq.ParquetFile(
            source, metadata=metadata, pre_buffer=False, page_checksum_verification=True
        )
        table = parquet.read_row_groups(groups, columns=[leaf], use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        where = f"row group {groups[0]}" if len(groups) == 1 else f"the column {leaf!r}"
        raise DataError(
            f"{files.name}: {files.place(number)}: {where} cannot be decoded: {cause_of(error)}; "
            "expected the file as it was when it was opened: if it was written anew, run the same "
            "command again; if it is damaged, fetch it again"
        ) from error
    first = int(files.first_group_F[number])
    rows = sum(int(files.first_G1[first + at + 1] - files.first_G1[first + at]) for at in groups)
    if table.num_rows != rows:
        found = ValueError(f"found {table.num_rows} rows, where its footer has {rows}")
        raise files.damaged(number, found)
    return table


def _piece_bytes(piece: Piece) -> int:
    assert piece.end is not None
    return piece.end - piece.start


def _chunks(files: ParquetFiles, number: int, leaf: str) -> Iterable[Piece]:
    """Where the leaf, or all leaves below it, lies in each row group. Raises DataError."""
    file = files.files[number]
    metadata = file.metadata
    leaves = [
        column
        for column in range(metadata.num_columns)
        if (path := metadata.schema.column(column).path) == leaf or path.startswith(f"{leaf}.")
    ]
    _check_chunks(files, number, leaf)
    for group in range(metadata.num_row_groups):
        start, end = file.size, 0
        for column in leaves:
            try:
                chunk = metadata.row_group(group).column(column)
            except IndexError as error:
                raise files.damaged(number, error) from error
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                first = min(first, chunk.dictionary_page_offset)
            start, end = min(start, first), max(end, first + chunk.total_compressed_size)
        if not len(_MAGIC) <= start <= end <= file.size:
            raise files.damaged(number, ValueError(f"row group {group} is at {start} to {end}"))
        yield Piece(file.name, start, end, stamp=file.stamp)


def _check_chunks(files: ParquetFiles, number: int, leaf: str) -> None:
    """Lets Arrow look at all that the footer says of the leaf. Raises DataError.

    Where it is asked for one by one in Python, a damaged footer ends the process: what its C++
    throws is not caught there. Here it is. Where each chunk lies is found out before the first
    byte is read, and nothing can be read of this file.
    """
    metadata = files.files[number].metadata
    if not metadata.num_row_groups:
        return
    nothing = _Window(files.files[number].size, [], [])
    try:
        parquet = pq.ParquetFile(pa.PythonFile(nothing, "r"), metadata=metadata, pre_buffer=True)
        groups = list(range(metadata.num_row_groups))
        parquet.read_row_groups(groups, columns=[leaf], use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        if not nothing.was_asked:
            raise files.damaged(number, error) from error


def _opened(reader: Reader, found: Sequence[tuple[str, int, int]], name: str) -> list[ParquetFile]:
    tails = reader.read(
        [Piece(file, max(0, size - TAIL_BYTES), size, stamp=stamp) for file, size, stamp in found]
    )
    footers = [_footer_bytes(tail) for tail in tails]
    longer = [
        place
        for place, (length, (_, size, _)) in enumerate(zip(footers, found, strict=True))
        if length is not None and TAIL_BYTES < length <= size
    ]
    again = [
        Piece(file, size - length, size, stamp=stamp)
        for file, size, stamp, length in ((*found[at], footers[at] or 0) for at in longer)
    ]
    for place, tail in zip(longer, reader.read(again), strict=True):
        tails[place] = tail
    files = []
    for (file, size, stamp), tail, length in zip(found, tails, footers, strict=True):
        footer = b"" if length is None else tail[-length:]
        try:
            metadata = pq.read_metadata(pa.BufferReader(footer))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{name}: {reader.address(file)} is no whole Parquet file: {cause_of(error)}; it "
                f"has {size} bytes; fetch it again, or remove it"
            ) from error
        files.append(ParquetFile(file, size, stamp, footer, metadata))
    return files


def _footer_bytes(tail: bytes) -> int | None:
    """Length of the footer with its end, or None where the file has none."""
    if len(tail) < _END_BYTES or tail[-4:] != _MAGIC:
        return None
    return int.from_bytes(tail[-_END_BYTES:-4], "little") + _END_BYTES
