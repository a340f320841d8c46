"""Tables as Parquet files: equal columns give equal bytes, and no wrong byte is read as a number.

Every page has a checksum. A file's sizes are looked at before its values are read, and its columns
are compared with the schema's. Knows no store and no meaning of a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from epochal.data.errors import Damaged, StoreRefused
from epochal.data.parquet_layout import Layout
from epochal.data.schemas import OBSERVATIONS, SAMPLES, UPDATES, Column, Schema

__all__ = [
    "OBSERVATIONS",
    "SAMPLES",
    "UPDATES",
    "Table",
    "first_of_each",
    "read_table",
    "write_table",
]

# N rows

ROW_GROUP_ROWS = 1 << 20  # from 64 k to 1 M rows size and speed are the same
MAX_ROWS = 1 << 27  # larger tables are to be sharded by id
MAX_TEXT_CHARACTERS = 1024
_MAX_FOOTER_ITEM_BYTES = 1 << 20
_TEXT_BYTES = 256  # of a row, on average, where a writer uses no dictionary
_SLACK_BYTES = 1 << 22  # of pages, dictionaries and levels, for so many rows:
_SLACK_ROWS = 1 << 16
_PREFIX = "epochal."
_SCHEMA, _VERSION = f"{_PREFIX}schema", f"{_PREFIX}schema_version"
_WHOLE = re.compile(r"[1-9][0-9]{0,8}")
_ENCODINGS = {"plain": "PLAIN", "delta": "DELTA_BINARY_PACKED", "split": "BYTE_STREAM_SPLIT"}


@dataclass(frozen=True)
class Table:
    """A table in memory.

    columns: name → array of shape (N,), read-only; text is an array of `str` objects.
    metadata: what was written beside them.
    """

    columns: dict[str, npt.NDArray[Any]]
    metadata: dict[str, str] = field(default_factory=dict)


def write_table(
    columns: Mapping[str, Any], path: Path, *, schema: Schema, metadata: Mapping[str, str]
) -> None:
    """Writes `columns`, arrays of shape (N,), to the file `path`.

    Where the schema has `unique_by`, rows are sorted by it, and of several rows with one value
    only the first is written: a sample that an epoch saw twice counts once, as first seen.

    Raises ValueError for a column that is missing, unknown, of another length, or whose values its
    type cannot hold; OSError if the file cannot be written.
    """
    arrays = _checked(columns, schema)
    if schema.unique_by is not None:
        rows = first_of_each(arrays[schema.unique_by])
        if rows is not None:
            arrays = {name: array_N[rows] for name, array_N in arrays.items()}
    written = [one for one in schema.columns if one.name in arrays]
    header = {_SCHEMA: schema.name, _VERSION: str(schema.version)}
    header |= {f"{_PREFIX}{name}": metadata[name] for name in sorted(metadata)}
    assert len(header) == len(metadata) + 2, "metadata: `schema` and `schema_version` are taken"
    table = pa.Table.from_arrays(
        [pa.array(arrays[one.name], type=_arrow_type(one)) for one in written],
        schema=pa.schema(
            [pa.field(one.name, _arrow_type(one), nullable=False) for one in written],
            metadata=header,
        ),
    )
    pq.write_table(
        table,
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=1,
        use_dictionary=[one.name for one in written if one.encoding == "dictionary"],
        column_encoding={
            one.name: _ENCODINGS[one.encoding] for one in written if one.encoding != "dictionary"
        },
        write_page_checksum=True,
    )


def read_table(path: Path, *, schema: Schema, max_rows: int = MAX_ROWS) -> Table:
    """The table in the file `path`; columns that the schema does not know are left out.

    A file that names no schema, as other programs write it, is read as this one if it has its
    columns. Raises Damaged, naming the file, for flipped bits, missing columns, other types, empty
    cells and sizes that no honest table has; StoreRefused if a newer version wrote it;
    FileNotFoundError or OSError if the file cannot be read.
    """
    path = Path(path)
    with _told(path), path.open("rb") as stream:
        layout = Layout(stream)
        metadata = _text_metadata(layout.metadata)
        _check_schema(path, metadata, schema)
        _check_sizes(path, layout, schema, max_rows=max_rows)
        wanted = _check_columns(path, _parquet(stream).schema_arrow, schema)
        # As words and their numbers: one long word in each of many rows is large only in memory.
        texts = [one.name for one in wanted if one.dtype == "text"]
        table = _parquet(stream, texts).read(
            columns=[one.name for one in wanted], use_threads=False
        )
        columns = {one.name: _to_numpy(path, table, one) for one in wanted}
        if any(len(array_N) != layout.rows for array_N in columns.values()):
            raise Damaged(f"{path}: its columns do not all have its {layout.rows} rows")
    if schema.unique_by is not None:
        ids_N = columns[schema.unique_by]
        if len(ids_N) > 1 and not bool(np.all(ids_N[1:] > ids_N[:-1])):
            raise Damaged(f"{path}: the rows are not sorted by {schema.unique_by!r}")
    own = {_SCHEMA, _VERSION}
    return Table(
        columns=columns,
        metadata={
            name.removeprefix(_PREFIX): text
            for name, text in metadata.items()
            if name.startswith(_PREFIX) and name not in own
        },
    )


def first_of_each(ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Rows that sort `ids_N` and hold each id once, as it first occurs; None: all as they are."""
    if len(ids_N) < 2 or bool(np.all(ids_N[1:] > ids_N[:-1])):  # noqa: PLR2004 - one is sorted
        return None
    rows = np.argsort(ids_N, kind="stable")
    sorted_N = ids_N[rows]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = sorted_N[1:] != sorted_N[:-1]
    return rows[is_first]


def _checked(columns: Mapping[str, Any], schema: Schema) -> dict[str, npt.NDArray[Any]]:
    unknown = sorted(set(columns) - set(schema.names))
    missing = [one.name for one in schema.columns if one.required and one.name not in columns]
    if unknown or missing:
        raise ValueError(
            f"{schema.name}: columns missing: {missing}, unknown: {unknown}; "
            f"expected {', '.join(schema.names)}"
        )
    arrays = {
        one.name: _cast(columns[one.name], one, schema)
        for one in schema.columns
        if one.name in columns
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"{schema.name}: expected columns of one shape (N,), found {shapes}")
    return arrays


def _cast(values: Any, column: Column, schema: Schema) -> npt.NDArray[Any]:
    found = np.asarray(values)
    name = f"{schema.name}, column {column.name!r}"
    if column.dtype == "text":
        texts: npt.NDArray[Any] = found.astype(object)
        lengths = [len(text) if isinstance(text, str) else -1 for text in texts.tolist()]
        if lengths and not 0 <= min(lengths) <= max(lengths) <= MAX_TEXT_CHARACTERS:
            raise ValueError(f"{name}: expected texts of up to {MAX_TEXT_CHARACTERS} characters")
        return texts
    wanted = np.dtype(column.dtype)
    if not np.can_cast(found.dtype, wanted, "same_kind"):
        raise ValueError(f"{name}: found {found.dtype}, expected {wanted}")
    cast_N = found.astype(wanted, copy=False)
    if wanted.kind in "iu" and not bool(np.array_equal(cast_N, found)):
        raise ValueError(f"{name}: found values that {wanted} cannot hold")
    return cast_N


def _arrow_type(column: Column) -> pa.DataType:
    if column.dtype == "text":
        return pa.string()
    return pa.from_numpy_dtype(np.dtype(column.dtype))


@contextmanager
def _told(path: Path) -> Iterator[None]:
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


def _parquet(stream: Any, texts: Sequence[str] = ()) -> pq.ParquetFile:
    stream.seek(0)
    return pq.ParquetFile(
        stream,
        read_dictionary=list(texts),
        thrift_string_size_limit=_MAX_FOOTER_ITEM_BYTES,
        thrift_container_size_limit=_MAX_FOOTER_ITEM_BYTES,
        page_checksum_verification=True,
    )


def _text_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    return {
        name.decode(): text.decode()
        for name, text in metadata.items()
        if name.startswith(_PREFIX.encode())
    }


def _check_schema(path: Path, metadata: Mapping[str, str], schema: Schema) -> None:
    name, version = metadata.get(_SCHEMA, schema.name), metadata.get(_VERSION, "1")
    if name != schema.name:
        raise Damaged(f"{path} is a table of {name!r}, expected one of {schema.name!r}")
    if _WHOLE.fullmatch(version) is None:
        raise Damaged(f"{path} names the version {version!r:.40}, expected a number from 1 on")
    if int(version) > schema.version:
        raise StoreRefused(
            f"{path} has version {version} of the table {schema.name!r}, this version of Epochal "
            f"reads up to {schema.version}: install the newer version that wrote it"
        )


def _check_sizes(path: Path, layout: Layout, schema: Schema, *, max_rows: int) -> None:
    if layout.rows > max_rows:
        raise Damaged(f"{path} claims {layout.rows} rows, expected at most {max_rows}")
    row_bytes = sum(_bytes_per_row(one) for one in schema.columns)
    slack = _SLACK_BYTES * (1 + layout.rows // _SLACK_ROWS)
    allowed = 2 * row_bytes * layout.rows + slack
    claimed = layout.page_bytes(schema.names, whole=_SCHEMA.encode() in layout.metadata)
    if claimed > allowed:
        raise Damaged(
            f"{path} claims {claimed} bytes for {layout.rows} rows, expected at most {allowed}"
        )


def _bytes_per_row(column: Column) -> int:
    return _TEXT_BYTES if column.dtype == "text" else np.dtype(column.dtype).itemsize


def _check_columns(path: Path, found: pa.Schema, schema: Schema) -> list[Column]:
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
        if kind != _arrow_type(one):
            raise Damaged(f"{path}: column {one.name!r} is {kind}, expected {_arrow_type(one)}")
    return wanted


def _to_numpy(path: Path, table: pa.Table, column: Column) -> npt.NDArray[Any]:
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
