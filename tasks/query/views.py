"""The five views of a store as Arrow has them: records in memory, tables as files not yet opened.

A table's rows have the run and the epoch beside them as constants of their file, so that a question
on one run or epoch opens the files of that alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from epochal.data.store.open import files_of
from epochal.data.tables.checks import arrow_type
from epochal.data.tables.schemas import OBSERVATIONS, SAMPLES, UPDATES, Schema
from epochal.tasks.query.rows import Rows, epoch_rows_of, run_rows
from epochal.tasks.runs.find_run import FoundRun

VIEWS = {
    "runs": "a row for each run and generation: how far it is, its last and best metrics, config",
    "epochs": "a row for each trained epoch: loss, gradient norm, samples, validation metrics",
    "updates": "a row for each number of an update: step (from 1 over the run), key, value",
    "observations": "a row for each sample of each epoch: what training saw of it",
    "samples": "a row for each sample after each epoch that was mined: scores, who trains next",
}
"""View → what it holds."""
_TABLES: dict[str, tuple[str, Schema]] = {
    "updates": ("train", UPDATES),
    "observations": ("train", OBSERVATIONS),
    "samples": ("mine", SAMPLES),
}
"""View → the kind of stage whose artifact of that name it reads, and the table's columns."""
_BESIDE = (("run", pa.string()), ("generation", pa.int64()), ("epoch", pa.int64()))
_TYPES = {"run": pa.string(), "branched_from": pa.string(), "weights_sha256": pa.string(),
          "config": pa.string(), "key": pa.string()}  # fmt: skip
_WHOLE = {
    "generation", "epochs", "epochs_done", "updates", "stopped_early", "shared_epochs",
    "best_epoch", "epoch", "spikes", "samples", "updates_done", "updates_skipped", "kept_next",
}  # fmt: skip


def store_views(runs: Sequence[FoundRun]) -> dict[str, Any]:
    """View → what DuckDB reads it from. Opens no file of a table."""
    records = {"runs": run_rows(runs), "epochs": epoch_rows_of(runs)}
    return {
        **{name: _in_memory(rows) for name, rows in records.items()},
        **{name: _of_files(name, runs) for name in _TABLES},
    }


def _in_memory(rows: Rows) -> pa.Table:
    columns, values = rows
    types = {name: pa.int64() if name in _WHOLE else _TYPES.get(name) for name in columns}
    schema = pa.schema([(name, kind or pa.float64()) for name, kind in types.items()])
    arrays = [
        pa.array([row.get(name) for row in values], schema.field(name).type) for name in columns
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _of_files(view: str, runs: Sequence[FoundRun]) -> ds.Dataset:
    kind, table = _TABLES[view]
    columns = [(column.name, arrow_type(column)) for column in table.columns]
    schema = pa.schema([*_BESIDE, *columns])
    scan = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=scan)
    fragments = []
    files = folder = None
    for run in runs:
        if files is None:
            files, folder = files_of(run.store)
        for stage, record in run.of_kind(kind):
            path = f"{folder}/{run.stage_store.artifact_path(record, view)}"
            beside = _constants(
                {"run": run.plan.run, "generation": run.plan.generation, "epoch": stage.number}
            )
            fragments.append(
                parquet.make_fragment(path, filesystem=files, partition_expression=beside)
            )
    return ds.FileSystemDataset(fragments, schema, parquet, filesystem=files)


def _constants(values: Mapping[str, Any]) -> ds.Expression:
    found = None
    for name, kind in _BESIDE:
        one = ds.field(name) == pa.scalar(values[name], kind)
        found = one if found is None else found & one
    return found


def columns_of(views: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """View → its columns, each with its type."""
    return {
        name: [(one.name, str(one.type)) for one in view.schema] for name, view in views.items()
    }
