"""Scores that follow from a table's columns: mean margin, data map, what was learned and forgotten.

Pure functions over arrays. Sources: AUM (Pleiss et al. 2020), data maps (Swayamdipta et al.
2020), forgetting events (Toneva et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_u64
from epochal.data.samples.table import FLAG_SUSPECT

# N samples of a table, M of them on a data map

Columns = Mapping[str, npt.NDArray[Any]]

STATES = ("never forgotten", "forgotten, right again", "forgotten, wrong now", "never right")
"""How a sample's predictions went, in the epochs that trained on it."""
ENOUGH_EPOCHS = 2
"""Epochs that must have seen a sample before it has a variability."""


def has_classes(columns: Columns) -> bool:
    """Whether training saw probabilities of classes: without them nothing is right or wrong."""
    return bool(np.isfinite(columns["p_true"]).any())


def mean_margin(columns: Columns) -> npt.NDArray[np.float64]:
    """AUM: float64 of shape (N,), logits; NaN where a sample was not seen."""
    return _mean(columns["margin_sum"], columns["n_seen"])


def mean_p_true(columns: Columns) -> npt.NDArray[np.float64]:
    """The data map's confidence: float64 of shape (N,), from 0 to 1; NaN where not seen."""
    return _mean(columns["p_true_sum"], columns["n_seen"])


def variability(columns: Columns) -> npt.NDArray[np.float64]:
    """Standard deviation of `p_true` over the epochs: float64 of shape (N,), from 0 to 0.5."""
    mean_N = mean_p_true(columns)
    spread_N = _mean(columns["p_true_sq"], columns["n_seen"]) - mean_N**2
    # The sums are float32: where nothing varies, their difference may lie just below 0.
    deviation_N: npt.NDArray[np.float64] = np.sqrt(np.maximum(spread_N, 0.0))
    return deviation_N


def never_right(columns: Columns) -> npt.NDArray[np.bool_]:
    """Seen, and predicted wrong each time: bool of shape (N,).

    A prediction that was right once is right now, or was forgotten since.
    """
    never_right_N: npt.NDArray[np.bool_] = (
        (columns["n_seen"] > 0) & ~columns["correct"] & (columns["forget_count"] == 0)
    )
    return never_right_N


def is_flagged(columns: Columns) -> npt.NDArray[np.bool_]:
    """Whether the policy leaves it out because its label seems wrong: bool of shape (N,)."""
    return (columns["flags"] & FLAG_SUSPECT).astype(bool)


def states(columns: Columns) -> npt.NDArray[np.int64]:
    """Which of `STATES` each sample is in: int64 of shape (N,)."""
    forgotten_N = columns["forget_count"] > 0
    forgotten_as_N = np.where(columns["correct"], 1, 2)
    state_N: npt.NDArray[np.int64] = np.where(
        forgotten_N, forgotten_as_N, np.where(never_right(columns), 3, 0)
    )
    return state_N


@dataclass(frozen=True, eq=False)
class DataMap:
    """Where samples lie on a data map.

    variability_M, mean_p_true_M: float64 of shape (M,); state_M: index into `STATES`; lot_M:
    uint64, a hash of the id: the order in which points are painted, and which of too many are;
    row_M: int64, its row in the table.
    left_out: samples that fewer than two epochs saw, or whose probabilities are not finite.
    """

    variability_M: npt.NDArray[np.float64]
    mean_p_true_M: npt.NDArray[np.float64]
    state_M: npt.NDArray[np.int64]
    lot_M: npt.NDArray[np.uint64]
    row_M: npt.NDArray[np.int64]
    left_out: int

    def __len__(self) -> int:
        return len(self.state_M)


def data_map(columns: Columns) -> DataMap | None:
    """The data map of a sample table, or None where no sample can be on it."""
    mean_N, spread_N = mean_p_true(columns), variability(columns)
    on_N = (columns["n_seen"] >= ENOUGH_EPOCHS) & np.isfinite(mean_N) & np.isfinite(spread_N)
    if not on_N.any():
        return None
    return DataMap(
        variability_M=spread_N[on_N],
        mean_p_true_M=mean_N[on_N],
        state_M=states(columns)[on_N],
        lot_M=hash_u64(columns["sample_id"][on_N], "data map"),
        row_M=np.flatnonzero(on_N),
        left_out=int(np.count_nonzero(~on_N)),
    )


def _mean(sum_N: npt.NDArray[Any], n_seen_N: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    mean_N: npt.NDArray[np.float64] = sum_N.astype(np.float64) / np.maximum(n_seen_N, 1)
    return np.where(n_seen_N > 0, mean_N, np.nan)
