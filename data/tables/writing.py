"""Writing tables as Parquet files, and reading whole ones. Equal columns give equal bytes.

Every page has a checksum, so that a damaged byte is an error and never a wrong number. Knows no
store and no meaning of a column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from epochal.data.tables.checks import (
    MAX_TEXT_CHARACTERS,
    PREFIX,
    SCHEMA,
    VERSION,
    arrow_type,
)
from epochal.data.tables.reading import MAX_ROWS, TableReader
from epochal.data.tables.schemas import OBSERVATIONS, SAMPLES, UPDATES, Column, Schema

__all__ = [
    "MAX_ROWS",
    "OBSERVATIONS",
    "SAMPLES",
    "UPDATES",
    "Table",
    "TableReader",
    "TableWriter",
    "first_of_each",
    "read_table",
    "write_table",
]

# N rows

ROW_GROUP_ROWS = 1 << 20  # from 64 k to 1 M rows size and speed are the same
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
    with TableWriter(path, schema=schema, names=arrays, metadata=metadata) as writer:
        writer.write(arrays)


class TableWriter:
    """Writes a table piece by piece: the bytes are those of `write_table` with all rows at once.

    names: the columns that the pieces will have. To be used in a `with` block, at whose end the
    file is whole. Holds up to one row group in memory. Raises as `write_table`.
    """

    def __init__(
        self, path: Path, *, schema: Schema, names: Collection[str], metadata: Mapping[str, str]
    ) -> None:
        self._schema = schema
        self._columns = [column for column in schema.columns if column.name in names]
        header = {SCHEMA: schema.name, VERSION: str(schema.version)}
        header |= {f"{PREFIX}{name}": metadata[name] for name in sorted(metadata)}
        assert len(header) == len(metadata) + 2, "metadata: `schema` and `schema_version` are taken"
        self._arrow = pa.schema(
            [pa.field(column.name, arrow_type(column), nullable=False) for column in self._columns],
            metadata=header,
        )
        self._waiting: list[pa.Table] = []
        self._last: int | None = None
        encoded = {column.name: column.encoding for column in self._columns}
        self._writer = pq.ParquetWriter(
            path,
            self._arrow,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name, how in encoded.items() if how == "dictionary"],
            column_encoding={
                name: _ENCODINGS[how] for name, how in encoded.items() if how != "dictionary"
            },
            write_page_checksum=True,
        )
        self._groups = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush(all_rows=True)
        self._writer.close()

    def write(self, columns: Mapping[str, Any]) -> None:
        """The next rows, sorted by `unique_by`; the arrays are not to be changed later."""
        arrays = _checked(columns, self._schema)
        assert set(arrays) == {column.name for column in self._columns}, sorted(arrays)
        name = self._schema.unique_by
        if name is not None and len(ids_N := arrays[name]):
            assert self._last is None or ids_N[0] > self._last, (ids_N[0], self._last)
            self._last = int(ids_N[-1])
        self._waiting.append(
            pa.Table.from_arrays(
                [
                    pa.array(arrays[column.name], type=arrow_type(column))
                    for column in self._columns
                ],
                schema=self._arrow,
            )
        )
        self._flush(all_rows=False)

    def _flush(self, *, all_rows: bool) -> None:
        """Writes the row groups that are full; all_rows: the last one too."""
        rows = sum(table.num_rows for table in self._waiting)
        whole = rows if all_rows else rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS
        if whole or (all_rows and not self._groups):
            table = pa.concat_tables(self._waiting) if self._waiting else self._arrow.empty_table()
            self._writer.write_table(table.slice(0, whole), row_group_size=ROW_GROUP_ROWS)
            self._groups += 1
            self._waiting = [table.slice(whole)] if whole < rows else []


def read_table(
    path: Path,
    *,
    schema: Schema,
    max_rows: int = MAX_ROWS,
    only: Collection[str] | None = None,
) -> Table:
    """The table in the file `path`; columns that the schema does not know are left out.

    A file that names no schema, as other programs write it, is read as this one if it has its
    columns. only: the columns to read beside that of `unique_by`; None: all of them. Raises
    CorruptObject, naming the file, for flipped bits, missing columns, other types, empty cells and
    sizes that no honest table has; BadStore if a newer version wrote it; FileNotFoundError or
    OSError if the file cannot be read.
    """
    with TableReader(path, schema=schema, max_rows=max_rows, only=only) as reader:
        return Table(columns=reader.all(), metadata=reader.metadata)


def first_of_each(ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Rows that sort `ids_N` and keep the first of equal ids; None if all ids rise already."""
    if len(ids_N) < 2 or bool(np.all(ids_N[1:] > ids_N[:-1])):  # noqa: PLR2004 - a single id is sorted
        return None
    rows = np.argsort(ids_N, kind="stable")
    sorted_N = ids_N[rows]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = sorted_N[1:] != sorted_N[:-1]
    return rows[is_first]


def _checked(columns: Mapping[str, Any], schema: Schema) -> dict[str, npt.NDArray[Any]]:
    unknown = sorted(set(columns) - set(schema.names))
    missing = [
        column.name for column in schema.columns if column.required and column.name not in columns
    ]
    if unknown or missing:
        raise ValueError(
            f"{schema.name}: columns missing: {missing}, unknown: {unknown}; "
            f"expected {', '.join(schema.names)}"
        )
    arrays = {
        column.name: _cast(columns[column.name], column, schema)
        for column in schema.columns
        if column.name in columns
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"{schema.name}: expected columns of one shape (N,), found {shapes}")
    return arrays


def _cast(values: Any, column: Column, schema: Schema) -> npt.NDArray[Any]:
    array = np.asarray(values)
    name = f"{schema.name}, column {column.name!r}"
    if column.dtype == "text":
        texts: npt.NDArray[Any] = array.astype(object)
        lengths = [len(text) if isinstance(text, str) else -1 for text in texts.tolist()]
        if lengths and not 0 <= min(lengths) <= max(lengths) <= MAX_TEXT_CHARACTERS:
            raise ValueError(f"{name}: expected texts of up to {MAX_TEXT_CHARACTERS} characters")
        return texts
    wanted = np.dtype(column.dtype)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise ValueError(f"{name}: found {array.dtype}, expected {wanted}")
    cast_N = array.astype(wanted, copy=False)
    if wanted.kind in "iu" and not bool(np.array_equal(cast_N, array)):
        raise ValueError(f"{name}: found values that {wanted} cannot hold")
    return cast_N
