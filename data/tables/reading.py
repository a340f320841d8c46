"""Reading tables in pieces: the sizes and types in a file's footer are checked before its values.

Knows no store and no meaning of a column. `epochal.data.tables.writing` writes tables, and its
`read_table` reads a whole one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from epochal.data.errors import CorruptObject
from epochal.data.tables.checks import (
    PREFIX,
    SCHEMA,
    VERSION,
    check_columns,
    check_layout,
    check_schema,
    open_parquet,
    text_metadata,
    to_numpy,
    told,
)
from epochal.data.tables.schemas import Schema

# N rows

MAX_ROWS = 1 << 27  # larger tables are to be sharded by id
_WHOLE_ROWS = 1 << 22  # up to so many rows are read in one call of pyarrow
_BATCH_ROWS = 1 << 16  # that pyarrow decodes at once

Arrays = dict[str, npt.NDArray[Any]]


class TableReader:
    """An open table whose footer is checked; its values come in pieces of consecutive rows.

    rows: how many the table has. metadata: what was written beside the columns. only: the columns
    to read, as far as the file has them; None: all of the schema. To be used in a `with` block.
    In memory are the rows that were asked for and one decoded batch.

    It and its methods raise as `epochal.data.tables.writing.read_table`.
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
        file = open_parquet(self._stream)
        metadata = text_metadata(file.metadata.metadata or {})
        check_schema(path, metadata, schema)
        check_layout(path, file.metadata, schema, max_rows=max_rows)
        wanted = check_columns(path, file.schema_arrow, schema)
        if only is not None:
            wanted = [
                column
                for column in wanted
                if column.name in only or column.name == schema.unique_by
            ]
        self.rows = file.metadata.num_rows
        self.metadata = {
            name.removeprefix(PREFIX): text
            for name, text in metadata.items()
            if name not in {SCHEMA, VERSION}
        }
        self._wanted = wanted
        # Texts come as a dictionary of words and a number for each row: a long word that stands
        # in many rows is small in the file, and would be large only in memory.
        self._file = open_parquet(
            self._stream, [column.name for column in wanted if column.dtype == "text"]
        )
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
        if self.rows > _WHOLE_ROWS and all(column.dtype != "text" for column in self._wanted):
            return self._filled()
        with told(self._path):
            table = self._file.read(
                columns=[column.name for column in self._wanted], use_threads=False
            )
            return self._arrays(table, expected=self.rows)

    def _filled(self) -> Arrays:
        """All columns, without the second copy in memory that pyarrow would make."""
        columns = {column.name: np.empty(self.rows, dtype=column.dtype) for column in self._wanted}
        while self.rows_taken < self.rows:
            start = self.rows_taken
            for name, part_B in self.take(_WHOLE_ROWS).items():
                columns[name][start : self.rows_taken] = part_B
        for array_N in columns.values():
            array_N.flags.writeable = False
        return columns

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
            ids_of_batches = [table.column(name).to_numpy() for table in self._read]
            return self._out(
                sum(int(np.searchsorted(ids_B, last, side="right")) for ids_B in ids_of_batches)
            )

    def _fill(self) -> bool:
        """Reads one more batch; False at the end."""
        if self._batches is None:
            self._batches = self._batches_of_groups()
        batch = next(self._batches, None)
        if batch is None:
            if self.rows_taken + self._waiting != self.rows:
                raise CorruptObject(
                    f"{self._path}: its columns do not all have its {self.rows} rows"
                )
            return False
        if batch.num_rows:
            self._read.append(pa.Table.from_batches([batch]))
            self._waiting += batch.num_rows
        return True

    def _batches_of_groups(self) -> Iterator[pa.RecordBatch]:
        """One row group at a time: asked for all, pyarrow keeps every byte that it has read."""
        for group in range(self._file.num_row_groups):
            yield from self._file.iter_batches(
                batch_size=_BATCH_ROWS,
                row_groups=[group],
                columns=[column.name for column in self._wanted],
                use_threads=False,
            )

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
            else self._file.schema_arrow.empty_table().select(
                [column.name for column in self._wanted]
            )
        )
        return self._arrays(table, expected=count)

    def _arrays(self, table: pa.Table, *, expected: int) -> Arrays:
        columns = {column.name: to_numpy(self._path, table, column) for column in self._wanted}
        if any(len(array_N) != expected for array_N in columns.values()):
            raise CorruptObject(f"{self._path}: its columns do not all have its {self.rows} rows")
        name = self._schema.unique_by
        if name is not None and expected:
            ids_N = columns[name]
            sorted_on = self._last is None or ids_N[0] > self._last
            if not (sorted_on and bool(np.all(ids_N[1:] > ids_N[:-1]))):
                raise CorruptObject(f"{self._path}: the rows are not sorted by {name!r}")
            self._last = int(ids_N[-1])
        return columns
