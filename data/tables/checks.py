"""Checks of a Parquet file beyond pyarrow's own, and pyarrow's errors turned into Epochal's.

A table of a store was compared with its digest before it comes here. These checks recognise a table
of another kind, version or program, and see to it that damage in a file whose digest nobody has
checked gives an error, never a wrong number. Against a file that was made to do harm they only
bound the sizes that its footer may claim: docs/security.md. Knows no store and no meaning of a
column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from epochal.data.errors import BadStore, CorruptObject, out_of_memory
from epochal.data.tables.schemas import Column, Schema

# N rows

MAX_TEXT_CHARACTERS = 1024
_MAX_FOOTER_ITEM_BYTES = 1 << 20
_MAGIC_BYTES = 4  # before the first page
_TEXT_BYTES = 256  # allowed for a text, on average, where a writer uses no dictionary
# Allowed for headers of pages, dictionaries and levels: _SLACK_BYTES for each _SLACK_ROWS rows.
_SLACK_BYTES = 1 << 22
_SLACK_ROWS = 1 << 16
PREFIX = "epochal."
SCHEMA, VERSION = f"{PREFIX}schema", f"{PREFIX}schema_version"


def arrow_type(column: Column) -> pa.DataType:
    """The type of a column as pyarrow has it."""
    if column.dtype == "text":
        return pa.string()
    return pa.from_numpy_dtype(np.dtype(column.dtype))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns what pyarrow raises at bad bytes into CorruptObject; errors of the system stay.

    Raises Unavailable if memory runs out: what a file may claim is checked before it is asked for.
    """
    try:
        yield
    except MemoryError as error:
        raise out_of_memory(path) from error
    except (OSError, pa.ArrowException, ValueError, OverflowError, LookupError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        cause = " ".join(str(error).split())[:300]
        raise CorruptObject(
            f"{path} is no whole Parquet file: {cause}; it is to be made again"
        ) from error


def open_parquet(stream: Any, texts: Sequence[str] = ()) -> pq.ParquetFile:
    """Opens a file with limits on its footer. texts: columns that are read as dictionaries."""
    stream.seek(0)
    return pq.ParquetFile(
        stream,
        read_dictionary=list(texts),
        thrift_string_size_limit=_MAX_FOOTER_ITEM_BYTES,
        thrift_container_size_limit=_MAX_FOOTER_ITEM_BYTES,
        page_checksum_verification=True,
    )


def text_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """The entries of a footer's metadata that Epochal wrote; names keep the prefix `epochal.`."""
    return {
        name.decode(): text.decode()
        for name, text in metadata.items()
        if name.startswith(PREFIX.encode())
    }


def check_schema(path: Path, metadata: Mapping[str, str], schema: Schema) -> None:
    """Raises CorruptObject for a table of another kind, BadStore for one of a newer version."""
    name, version = metadata.get(SCHEMA, schema.name), metadata.get(VERSION, "1")
    if name != schema.name:
        raise CorruptObject(f"{path} is a table of {name!r}, expected one of {schema.name!r}")
    if int(version) > schema.version:
        raise BadStore(
            f"{path} has version {version} of the table {schema.name!r}, this version of Epochal "
            f"reads up to {schema.version}: install the newer version that wrote it"
        )


def check_layout(path: Path, footer: pq.FileMetaData, schema: Schema, *, max_rows: int) -> None:
    """Raises CorruptObject for more rows or bytes than an honest table of that schema has.

    In a table that Epochal wrote, also for a column that does not begin where the one before it
    ends, or is not compressed with ZSTD. No checksum covers the footer, so pyarrow would not notice
    a flipped bit in these entries.
    """
    rows = footer.num_rows
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    if rows > max_rows:
        raise CorruptObject(f"{path} claims {rows} rows, expected at most {max_rows}")
    if sum(group.num_rows for group in groups) != rows:
        raise CorruptObject(f"{path}: its groups of rows do not have the {rows} that it claims")
    chunks = [group.column(index) for group in groups for index in range(footer.num_columns)]
    row_bytes = sum(_bytes_per_row(column) for column in schema.columns)
    allowed = 2 * row_bytes * rows + _SLACK_BYTES * (1 + rows // _SLACK_ROWS)
    claimed = sum(
        chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in schema.names
    )
    if claimed > allowed:
        raise CorruptObject(
            f"{path} claims {claimed} bytes for {rows} rows, expected at most {allowed}"
        )
    if not rows or SCHEMA.encode() not in (footer.metadata or {}):
        return
    place = _MAGIC_BYTES
    for chunk in chunks:
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        if start != place or chunk.compression != "ZSTD":
            raise CorruptObject(
                f"{path}: column {chunk.path_in_schema!r} begins at byte {start} with the "
                f"compression {chunk.compression}, expected byte {place} and ZSTD"
            )
        place += chunk.total_compressed_size


def _bytes_per_row(column: Column) -> int:
    return _TEXT_BYTES if column.dtype == "text" else np.dtype(column.dtype).itemsize


def check_columns(path: Path, stored: pa.Schema, schema: Schema) -> list[Column]:
    """The schema's columns that the file has. Raises CorruptObject if one is missing or wrong."""
    wanted = [column for column in schema.columns if column.required or column.name in stored.names]
    missing = [column.name for column in wanted if column.name not in stored.names]
    if missing or len(set(stored.names)) < len(stored.names):
        raise CorruptObject(
            f"{path}: a table of {schema.name!r} needs the columns "
            f"{', '.join(missing or schema.names)} once each; found {', '.join(stored.names)}"
        )
    for column in wanted:
        kind = stored.field(column.name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_large_string(kind):
            kind = pa.string()
        if kind != arrow_type(column):
            raise CorruptObject(
                f"{path}: column {column.name!r} is {kind}, expected {arrow_type(column)}"
            )
    return wanted


def to_numpy(path: Path, table: pa.Table, column: Column) -> npt.NDArray[Any]:
    """A column as a read-only array. Raises CorruptObject for empty cells."""
    chunks = table.column(column.name)
    if chunks.null_count:
        raise CorruptObject(f"{path}: column {column.name!r} has {chunks.null_count} empty cells")
    array_N: npt.NDArray[Any] = (
        np.concatenate([np.empty(0, dtype=object), *map(_texts, chunks.chunks)])
        if column.dtype == "text"
        else chunks.to_numpy()
    )
    array_N.flags.writeable = False
    return array_N


def _texts(chunk: Any) -> npt.NDArray[Any]:
    """The texts of one chunk; rows with the same text share one `str` object."""
    encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
    words_W: npt.NDArray[Any] = np.array(encoded.dictionary.to_pylist(), dtype=object)
    text_N: npt.NDArray[Any] = words_W[encoded.indices.to_numpy(zero_copy_only=False)]
    return text_N
