"""Reading tables: what a file claims is looked at before its values, and then read in pieces.

Knows no store and no meaning of a column; `epochal.data.tables` writes, and reads whole tables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from epochal.data.errors import Damaged, StoreRefused
from epochal.data.parquet_layout import Layout
from epochal.data.schemas import Column, Schema

# N rows

MAX_ROWS = 1 << 27  # larger tables are to be sharded by id
MAX_TEXT_CHARACTERS = 1024
_MAX_FOOTER_ITEM_BYTES = 1 << 20
_TEXT_BYTES = 256  # of a row, on average, where a writer uses no dictionary
_SLACK_BYTES = 1 << 22  # of pages, dictionaries and levels, for so many rows:
_SLACK_ROWS = 1 << 16
_BATCH_ROWS = 1 << 16  # that pyarrow decodes at once
PREFIX = "epochal."
SCHEMA, VERSION = f"{PREFIX}schema", f"{PREFIX}schema_version"
_WHOLE = re.compile(r"[1-9][0-9]{0,8}")

Arrays = dict[str, npt.NDArray[Any]]


class TableReader:
    """An open table, checked but for its values, which come in pieces of consecutive rows.

    rows: N. metadata: what was written beside the columns. A context. Raises as
    `epochal.data.tables.read_table`, its methods too.

    only: the columns to read, as far as the file has them; None: all of the schema. Holds what it
    is asked for, and a batch of pyarrow's.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: Schema,
        max_rows: int = MAX_ROWS,
        only: Collection[str] | None = None,
    ) -> None:
        self._path, self._schema = Path(path), schema
        self._stream = self._path.open("rb")
        try:
            with told(self._path):
                self._open(max_rows, only)
        except BaseException:
            self._stream.close()
            raise

    def _open(self, max_rows: int, only: Collection[str] | None) -> None:
        path, schema = self._path, self._schema
        layout = Layout(self._stream)
        found = text_metadata(layout.metadata)
        check_schema(path, found, schema)
        check_sizes(path, layout, schema, max_rows=max_rows)
        wanted = check_columns(path, open_parquet(self._stream).schema_arrow, schema)
        if only is not None:
            wanted = [one for one in wanted if one.name in only or one.name == schema.unique_by]
        self.rows = layout.rows
        self.metadata = {
            name.removeprefix(PREFIX): text
            for name, text in found.items()
            if name not in {SCHEMA, VERSION}
        }
        self._wanted = wanted
        # As words and their numbers: one long word in each of many rows is large only in memory.
        self._file = open_parquet(self._stream, [one.name for one in wanted if one.dtype == "text"])
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._read: list[pa.Table] = []
        self._waiting = 0
        self._last: int | None = None
        self.rows_taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def all(self) -> Arrays:
        """All columns, of shape (N,)."""
        assert self._batches is None
        with told(self._path):
            table = self._file.read(columns=[one.name for one in self._wanted], use_threads=False)
            return self._arrays(table, expected=self.rows)

    def take(self, count: int) -> Arrays:
        """The next `count` rows, or as many as there are."""
        with told(self._path):
            while self._waiting < count and self._fill():
                pass
            return self._out(min(count, self._waiting))

    def take_through(self, last: int) -> Arrays:
        """The next rows whose `unique_by`, by which they are sorted, is at most `last`."""
        name = self._schema.unique_by
        assert name is not None
        with told(self._path):
            while (not self._read or self._read[-1].column(name)[-1].as_py() <= last) and (
                self._fill()
            ):
                pass
            ids = [one.column(name).to_numpy() for one in self._read]
            return self._out(sum(int(np.searchsorted(one, last, side="right")) for one in ids))

    def _fill(self) -> bool:
        """Reads one more batch; False at the end."""
        if self._batches is None:
            self._batches = self._file.iter_batches(
                batch_size=_BATCH_ROWS,
                columns=[one.name for one in self._wanted],
                use_threads=False,
            )
        batch = next(self._batches, None)
        if batch is None:
            if self.rows_taken + self._waiting != self.rows:
                raise Damaged(f"{self._path}: its columns do not all have its {self.rows} rows")
            return False
        if batch.num_rows:
            self._read.append(pa.Table.from_batches([batch]))
            self._waiting += batch.num_rows
        return True

    def _out(self, count: int) -> Arrays:
        parts, missing = [], count
        while missing:
            first = self._read.pop(0)
            if first.num_rows > missing:
                self._read.insert(0, first.slice(missing))
                first = first.slice(0, missing)
            parts.append(first)
            missing -= first.num_rows
        self._waiting -= count
        self.rows_taken += count
        table = (
            pa.concat_tables(parts)
            if parts
            else self._file.schema_arrow.empty_table().select([one.name for one in self._wanted])
        )
        return self._arrays(table, expected=count)

    def _arrays(self, table: pa.Table, *, expected: int) -> Arrays:
        columns = {one.name: to_numpy(self._path, table, one) for one in self._wanted}
        if any(len(array_N) != expected for array_N in columns.values()):
            raise Damaged(f"{self._path}: its columns do not all have its {self.rows} rows")
        name = self._schema.unique_by
        if name is not None and expected:
            ids_N = columns[name]
            sorted_on = self._last is None or ids_N[0] > self._last
            if not (sorted_on and bool(np.all(ids_N[1:] > ids_N[:-1]))):
                raise Damaged(f"{self._path}: the rows are not sorted by {name!r}")
            self._last = int(ids_N[-1])
        return columns


def arrow_type(column: Column) -> pa.DataType:
    """The type of a column as pyarrow has it."""
    if column.dtype == "text":
        return pa.string()
    return pa.from_numpy_dtype(np.dtype(column.dtype))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What pyarrow raises at bad bytes becomes Damaged; what the system raises stays."""
    try:
        yield
    except (
        OSError, pa.ArrowException, MemoryError, ValueError, OverflowError, LookupError
    ) as error:  # fmt: skip
        if isinstance(error, OSError) and error.errno is not None:
            raise
        cause = " ".join(str(error).split())[:300]
        raise Damaged(
            f"{path} is no whole Parquet file: {cause}; it is to be made again"
        ) from error


def open_parquet(stream: Any, texts: Sequence[str] = ()) -> pq.ParquetFile:
    """The open file as pyarrow reads it, with limits; texts: columns to be read as dictionaries."""
    stream.seek(0)
    return pq.ParquetFile(
        stream,
        read_dictionary=list(texts),
        thrift_string_size_limit=_MAX_FOOTER_ITEM_BYTES,
        thrift_container_size_limit=_MAX_FOOTER_ITEM_BYTES,
        page_checksum_verification=True,
    )


def text_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """Our own of a footer's keys, with our prefix."""
    return {
        name.decode(): text.decode()
        for name, text in metadata.items()
        if name.startswith(PREFIX.encode())
    }


def check_schema(path: Path, metadata: Mapping[str, str], schema: Schema) -> None:
    """Raises Damaged for a table of another kind, StoreRefused for one of a newer version."""
    name, version = metadata.get(SCHEMA, schema.name), metadata.get(VERSION, "1")
    if name != schema.name:
        raise Damaged(f"{path} is a table of {name!r}, expected one of {schema.name!r}")
    if _WHOLE.fullmatch(version) is None:
        raise Damaged(f"{path} names the version {version!r:.40}, expected a number from 1 on")
    if int(version) > schema.version:
        raise StoreRefused(
            f"{path} has version {version} of the table {schema.name!r}, this version of Epochal "
            f"reads up to {schema.version}: install the newer version that wrote it"
        )


def check_sizes(path: Path, layout: Layout, schema: Schema, *, max_rows: int) -> None:
    """Raises Damaged for more rows or bytes than an honest table of that schema has."""
    if layout.rows > max_rows:
        raise Damaged(f"{path} claims {layout.rows} rows, expected at most {max_rows}")
    row_bytes = sum(_bytes_per_row(one) for one in schema.columns)
    slack = _SLACK_BYTES * (1 + layout.rows // _SLACK_ROWS)
    allowed = 2 * row_bytes * layout.rows + slack
    claimed = layout.page_bytes(schema.names, whole=SCHEMA.encode() in layout.metadata)
    if claimed > allowed:
        raise Damaged(
            f"{path} claims {claimed} bytes for {layout.rows} rows, expected at most {allowed}"
        )


def _bytes_per_row(column: Column) -> int:
    return _TEXT_BYTES if column.dtype == "text" else np.dtype(column.dtype).itemsize


def check_columns(path: Path, found: pa.Schema, schema: Schema) -> list[Column]:
    """The schema's columns that the file has. Raises Damaged for missing ones and other types."""
    wanted = [one for one in schema.columns if one.required or one.name in found.names]
    missing = [one.name for one in wanted if one.name not in found.names]
    if missing or len(set(found.names)) < len(found.names):
        raise Damaged(
            f"{path}: a table of {schema.name!r} needs the columns "
            f"{', '.join(missing or schema.names)} once each; found {', '.join(found.names)}"
        )
    for one in wanted:
        kind = found.field(one.name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_large_string(kind):
            kind = pa.string()
        if kind != arrow_type(one):
            raise Damaged(f"{path}: column {one.name!r} is {kind}, expected {arrow_type(one)}")
    return wanted


def to_numpy(path: Path, table: pa.Table, column: Column) -> npt.NDArray[Any]:
    """A column as a read-only array. Raises Damaged for empty cells."""
    chunks = table.column(column.name)
    if chunks.null_count:
        raise Damaged(f"{path}: column {column.name!r} has {chunks.null_count} empty cells")
    array_N: npt.NDArray[Any] = (
        np.concatenate(
            [np.empty(0, dtype=object), *(_texts(path, column, one) for one in chunks.chunks)]
        )
        if column.dtype == "text"
        else chunks.to_numpy()
    )
    array_N.flags.writeable = False
    return array_N


def _texts(path: Path, column: Column, chunk: Any) -> npt.NDArray[Any]:
    encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    if any(word is None or len(word) > MAX_TEXT_CHARACTERS for word in words):
        raise Damaged(
            f"{path}: column {column.name!r} has a text of more than {MAX_TEXT_CHARACTERS} "
            "characters"
        )
    word_W: npt.NDArray[Any] = np.array(words, dtype=object)
    rows_N: npt.NDArray[Any] = encoded.indices.to_numpy(zero_copy_only=False)
    if len(rows_N) and not 0 <= rows_N.min() <= rows_N.max() < len(words):
        raise Damaged(f"{path}: column {column.name!r} names words that are not in its dictionary")
    return word_W[rows_N] if words else np.empty(0, dtype=object)
