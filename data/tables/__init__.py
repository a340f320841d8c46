"""Parquet tables with page checksums: schemas, writing, reading, checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.lazy import lazy_names

if TYPE_CHECKING:
    from epochal.data.tables.reading import TableReader
    from epochal.data.tables.writing import Table, TableWriter, read_table, write_table

__all__ = ["Table", "TableReader", "TableWriter", "read_table", "write_table"]

__getattr__ = lazy_names(
    __name__,
    {
        "Table": "epochal.data.tables.writing",
        "TableReader": "epochal.data.tables.reading",
        "TableWriter": "epochal.data.tables.writing",
        "read_table": "epochal.data.tables.writing",
        "write_table": "epochal.data.tables.writing",
    },
)
