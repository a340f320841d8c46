"""The sample table: what all epochs so far saw of each sample, and who trains in the next one.

Arrays sorted by sample id; nothing here loops over samples. Who trains is decided elsewhere, by the
policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.errors import StateMismatch
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.tables.writing import MAX_ROWS, SAMPLES, first_of_each, read_table

# N samples of the data set, S of them seen in an epoch, Q asked for

NEVER = -1
"""The `epoch_seen` of a sample that no epoch has trained on."""

FLAG_NON_FINITE = 1
"""Bit of `flags`: the last loss was NaN or infinite."""

FLAG_SUSPECT = 2
"""Bit of `flags`: its label seems to be wrong; it is left out, unless the floor needs it."""

_SCORES = ("loss", "confidence", "p_true", "margin", "el2n")
Rows = npt.NDArray[np.int64] | slice
_MAX_COUNT = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class SampleTable:
    """One row for each sample of a data set, sorted by id.

    columns: the names of `epochal.data.tables.writing.SAMPLES` that it has → array of shape (N,).
    """

    columns: Mapping[str, npt.NDArray[Any]]

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["sample_id"])

    def keep_by_id(self, ids_Q: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of these samples trains in the next epoch: bool of shape (Q,).

        Raises StateMismatch for an id that the table does not have.
        """
        return self._by_id("keep", ids_Q)

    def weight_by_id(self, ids_Q: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The weight of each sample's loss: float32 of shape (Q,). Raises as `keep_by_id`."""
        return self._by_id("weight", ids_Q)

    def with_plan(
        self,
        *,
        keep_N: npt.NDArray[np.bool_],
        weight_N: npt.NDArray[np.float32],
        more: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> SampleTable:
        """The same scores with another plan for the next epoch; arrays in the table's order.

        more: further columns that the plan fixes.
        """
        assert keep_N.shape == weight_N.shape == (len(self),), (keep_N.shape, weight_N.shape)
        plan = {"keep": keep_N.astype(bool), "weight": weight_N.astype(np.float32)}
        return SampleTable({**self.columns, **(more or {}), **plan})

    def with_columns(self, more: Mapping[str, npt.NDArray[Any]]) -> SampleTable:
        """The same table with these columns, of shape (N,), in its order."""
        return SampleTable({**self.columns, **more})

    def _by_id(self, name: str, ids_Q: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        ids_N = self.columns["sample_id"]
        if np.array_equal(ids_N, ids_Q):
            return self.columns[name].copy()
        return self.columns[name][_rows_of(ids_N, ids_Q, asked_by="the data set")]


def update(
    previous: SampleTable | None,
    observations: Mapping[str, npt.NDArray[Any]],
    *,
    epoch: int,
    sample_ids_N: npt.NDArray[np.int64],
    labels_N: npt.NDArray[np.int64] | None,
    confidence: float,
    trained_T: npt.NDArray[np.int64] | None = None,
) -> SampleTable:
    """The table after `epoch`, whose observations replace the scores of the samples that it saw.

    previous: the table before, None at first. observations: the columns of
    `data.tables.schemas.OBSERVATIONS`, of shape (S,), in any order; of a sample that occurs twice
    the first row counts. sample_ids_N, labels_N: of the data set, by position; where training
    observed a label, that one counts; a negative label is unknown. confidence: the probability from
    which a right prediction is easy. trained_T: ids that the epoch trained on, where the
    observations are of a scoring pass; None: those of the observations. Samples that were not seen
    keep their scores. The new table plans to keep everything; `with_plan` sets another plan.

    Raises StateMismatch if previous table, observations and data set are not of the same samples.
    """
    ids_N = np.asarray(sample_ids_N, dtype=np.int64)
    by_id = None if _rises(ids_N) else np.argsort(ids_N, kind="stable")
    ids_N = ids_N if by_id is None else ids_N[by_id]
    table = _empty(ids_N) if previous is None else _copied(previous, ids_N)
    seen = {name: np.asarray(values_S) for name, values_S in observations.items()}
    first = first_of_each(seen["sample_id"])
    if first is not None:
        seen = {name: values_S[first] for name, values_S in seen.items()}
    # A full epoch saw every row: slices copy nothing, and gather nothing.
    rows_S: Rows = slice(None)
    if not np.array_equal(seen["sample_id"], ids_N):
        rows_S = _rows_of(ids_N, seen["sample_id"], asked_by="the observations")
    epoch_seen_N = table["epoch_seen"]
    if trained_T is not None:
        epoch_seen_N = epoch_seen_N.copy()
        epoch_seen_N[_rows_of(ids_N, trained_T, asked_by="the observations")] = epoch
    _observe(table, seen, rows_S, epoch=epoch, confidence=confidence)
    if trained_T is not None:
        table["epoch_seen"] = epoch_seen_N
    labels_S = seen["label"]
    table["label"][rows_S] = np.where(labels_S < 0, table["label"][rows_S], labels_S)
    if labels_N is not None:
        stated_N = np.maximum(np.asarray(labels_N, dtype=np.int64), -1)
        stated_N = stated_N if by_id is None else stated_N[by_id]
        table["label"] = np.where(table["label"] < 0, stated_N, table["label"])
    table["keep"] = np.ones(len(ids_N), dtype=bool)
    table["weight"] = np.ones(len(ids_N), dtype=np.float32)
    return SampleTable(table)


def read_plan(path: Path, *, max_rows: int = MAX_ROWS) -> SampleTable:
    """Only the plan of the sample table in the file `path`: `sample_id`, `keep` and `weight`.

    In memory that is 13 bytes for a sample instead of some 70. Raises as `read_table`.
    """
    only = ("keep", "weight")
    return SampleTable(read_table(path, schema=SAMPLES, max_rows=max_rows, only=only).columns)


def _observe(
    table: dict[str, npt.NDArray[Any]],
    seen: Mapping[str, npt.NDArray[Any]],
    rows_S: Rows,
    *,
    epoch: int,
    confidence: float,
) -> None:
    """Puts one epoch's observations into the rows `rows_S` of the columns in `table`."""
    was_correct_S, correct_S = table["correct"][rows_S], seen["correct"].astype(bool)
    # In float64: float32 would round the threshold, too.
    easy_S = correct_S & (seen["confidence"].astype(np.float64) >= confidence)
    streak_S = np.minimum(table["easy_streak"][rows_S].astype(np.int32) + 1, _MAX_COUNT)
    table["easy_streak"][rows_S] = np.where(easy_S, streak_S, 0)
    forgot_S = table["forget_count"][rows_S].astype(np.int32) + (was_correct_S & ~correct_S)
    table["forget_count"][rows_S] = np.minimum(forgot_S, _MAX_COUNT)
    is_new_S = table["n_seen"][rows_S] == 0
    p_true_S = seen["p_true"].astype(np.float64)
    for name, values_S in (
        ("margin_sum", seen["margin"].astype(np.float64)),
        ("p_true_sum", p_true_S),
        ("p_true_sq", p_true_S**2),
    ):
        before_S = np.where(is_new_S, 0.0, table[name][rows_S])
        with np.errstate(over="ignore", invalid="ignore"):  # infinite margins stay what they are
            table[name][rows_S] = before_S + values_S
    table["n_seen"][rows_S] += 1
    table["epoch_seen"][rows_S] = epoch
    for name in (*_SCORES, "correct"):
        table[name][rows_S] = seen[name]
    flags_S = table["flags"][rows_S] & np.uint8(0xFF ^ FLAG_NON_FINITE)
    non_finite_S = ~np.isfinite(seen["loss"])
    table["flags"][rows_S] = flags_S | (non_finite_S * FLAG_NON_FINITE).astype(np.uint8)


def _empty(ids_N: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Columns of samples that nothing has seen."""
    fills: dict[str, Any] = {"label": -1, "epoch_seen": NEVER}
    table: dict[str, npt.NDArray[Any]] = {"sample_id": ids_N}
    for column in SAMPLES.columns[1:]:
        if not column.required:
            continue
        dtype = np.dtype(column.dtype)
        fill = fills.get(column.name, np.nan if dtype.kind == "f" else 0)
        table[column.name] = np.full(len(ids_N), fill, dtype=dtype)
    return table


def _copied(previous: SampleTable, ids_N: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    if not np.array_equal(previous["sample_id"], ids_N):
        raise StateMismatch(
            f"the sample table has {len(previous)} samples and the data set {len(ids_N)}, and "
            "their ids are not the same; was the data set changed under one `version`?"
        )
    return {name: values_N.copy() for name, values_N in previous.columns.items()}


def _rises(ids_N: npt.NDArray[np.int64]) -> bool:
    return bool(np.all(ids_N[1:] > ids_N[:-1]))


def _rows_of(
    ids_N: npt.NDArray[np.int64], ids_Q: npt.NDArray[np.int64], *, asked_by: str
) -> npt.NDArray[np.int64]:
    rows_Q = np.searchsorted(ids_N, ids_Q)
    known_Q = np.zeros(len(ids_Q), dtype=bool)
    inside_Q = rows_Q < len(ids_N)
    known_Q[inside_Q] = ids_N[rows_Q[inside_Q]] == ids_Q[inside_Q]
    if not known_Q.all():
        strange = int(ids_Q[~known_Q][0])
        raise StateMismatch(
            f"{asked_by}: sample id {strange} is none of the {len(ids_N)} in the sample table; was "
            "the data set changed under one `version`?"
        )
    return rows_Q


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
    nothing = {column.name: np.empty(0, dtype=column.dtype) for column in OBSERVATIONS.columns}
    wider = update(None, nothing, epoch=0, sample_ids_N=ids_N, labels_N=None, confidence=confidence)
    rows = np.searchsorted(ids_N, table["sample_id"])
    columns = {}
    for name, values_N in wider.columns.items():
        columns[name] = values_N.copy()
        columns[name][rows] = table[name]
    return SampleTable(columns)
