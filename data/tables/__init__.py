"""Parquet tables with page checksums: schemas, writing, reading, checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.lazy import lazy_names

__all__ = ["Table", "TableReader", "TableWriter", "read_table", "write_table"]

if TYPE_CHECKING:
    from epochal.data.tables.reading import TableReader
    from epochal.data.tables.writing import Table, TableWriter, read_table, write_table
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "epochal.data.tables.reading": ("TableReader",),
            "epochal.data.tables.writing": ("Table", "TableWriter", "read_table", "write_table"),
        },
    )
