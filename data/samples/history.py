"""One table of all epochs out of their observations, for runs in which no stage makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.samples.table import SampleTable, update
from epochal.data.tables.schemas import OBSERVATIONS

# N samples known by then, S of them seen in an epoch


def table_of_all(
    epochs: Iterable[tuple[int, Mapping[str, npt.NDArray[Any]]]], *, confidence: float
) -> SampleTable | None:
    """The sample table that `mine` stages would have made; None of no epoch.

    epochs: (epoch, the columns of its observations of shape (S,)), rising. confidence: from which
    a right prediction is easy. Samples that no epoch has seen are in no row.
    """
    table: SampleTable | None = None
    for epoch, seen in epochs:
        ids_S = seen["sample_id"]
        if len(ids_S) > 1 and not (ids_S[1:] > ids_S[:-1]).all():  # tables are sorted: no work
            ids_S = np.unique(ids_S)
        if table is None:
            ids_N = ids_S
        else:
            ids_N = table["sample_id"]
            if not (np.array_equal(ids_S, ids_N) or np.isin(ids_S, ids_N).all()):
                ids_N = np.union1d(ids_N, ids_S)
                table = _with_rows(table, ids_N, confidence=confidence)
        table = update(
            table, seen, epoch=epoch, sample_ids_N=ids_N, labels_N=None, confidence=confidence
        )
    return table


def _with_rows(
    table: SampleTable, ids_N: npt.NDArray[np.int64], *, confidence: float
) -> SampleTable:
    """The same table with rows for more samples, which nothing has seen."""
    nothing = {one.name: np.empty(0, dtype=one.dtype) for one in OBSERVATIONS.columns}
    wider = update(None, nothing, epoch=0, sample_ids_N=ids_N, labels_N=None, confidence=confidence)
    rows = np.searchsorted(ids_N, table["sample_id"])
    columns = {}
    for name, values_N in wider.columns.items():
        columns[name] = values_N.copy()
        columns[name][rows] = table[name]
    return SampleTable(columns)
