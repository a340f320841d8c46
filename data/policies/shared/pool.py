"""The pool: which samples a policy may leave out of an epoch, and how many it has to keep.

The same for all policies: not in the pool, because they have to train, are samples that were never
seen, whose last loss or score is not finite, or whose return is due (`revisit`). Samples whose
labels are suspected to be wrong are not in it either: they are left out already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_u64

# N samples, R of them in the pool, P of these that are picked

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class PlanContext:
    """The epoch that is planned, and its settings.

    epoch: the epoch that is planned, the one after the last observations.
    full: whether it trains on everything. seed: of the run. budget: the policy's share in this
    epoch, or None. noise: whether samples with suspected labels are left out, as many as the table
    lets estimate (`estimate`) or as were left out before (`frozen`); None: none are.
    """

    epoch: int
    full: bool
    seed: int
    budget: float | None = None
    noise: str | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """What a policy chose.

    rest_Q: rows that do not train, int64 of shape (Q,).
    probability_N: the probability with which each sample was to be kept, for weights from it.
    weight_N: weights of the losses that the policy sets itself, instead.
    Both float32 of shape (N,); where neither is given, every weight is one.
    """

    rest_Q: npt.NDArray[np.int64]
    probability_N: npt.NDArray[np.float32] | None = None
    weight_N: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """The rows that a policy chooses from.

    rows_R: int64 of shape (R,), rising. score_N: of all samples, of shape (N,). total: N.
    forced: how many train whatever is chosen. own: calls the user's function, for policy custom.
    """

    columns: Columns
    rows_R: npt.NDArray[np.int64]
    score_N: npt.NDArray[np.floating]
    total: int
    forced: int
    context: PlanContext
    own: Callable[[], Any] | None = None

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A column of the pool's rows, of shape (R,)."""
        return self.columns[name][self.rows_R]

    @property
    def ids_R(self) -> npt.NDArray[np.int64]:
        """Sample ids of shape (R,)."""
        return self["sample_id"]

    @property
    def score_R(self) -> npt.NDArray[np.float64]:
        """How hard each one is: float64 of shape (R,), finite."""
        return self.score_N[self.rows_R].astype(np.float64)

    @property
    def budget(self) -> float:
        """The epoch's share."""
        assert self.context.budget is not None
        return self.context.budget

    @property
    def picks(self) -> int:
        """How many of the pool the budget allows to keep, after those that are forced."""
        wanted = round(self.budget * self.total) - self.forced
        return min(max(wanted, 0), len(self.rows_R))

    def highest(
        self, value_R: npt.NDArray[np.floating], *, count: int, lot: str
    ) -> npt.NDArray[np.bool_]:
        """Which are the `count` highest, equal ones by lot: bool of shape (R,). lot: its name."""
        lot_R = hash_u64(self.ids_R, lot, self.context.seed, self.context.epoch)
        return highest(value_R, lot_R, count=count)

    def rest(
        self,
        kept_R: npt.NDArray[np.bool_],
        *,
        probability_R: npt.NDArray[np.float32] | None = None,
        weight_N: npt.NDArray[np.float32] | None = None,
    ) -> Choice:
        """The choice that keeps `kept_R` of the pool. Outside the pool the probability is one."""
        probability_N = None
        if probability_R is not None:
            probability_N = np.ones(self.total, dtype=np.float32)
            probability_N[self.rows_R] = probability_R
        return Choice(self.rows_R[~kept_R], probability_N, weight_N)


def make_pool(
    columns: Columns,
    context: PlanContext,
    *,
    score_N: npt.NDArray[np.floating],
    due_N: npt.NDArray[np.bool_],
    suspect_N: npt.NDArray[np.bool_] | None,
    own: Callable[[], Any] | None = None,
) -> Pool:
    """The pool of a table. score_N: how hard the samples are. due_N: whose return is due."""
    inside_N = (columns["epoch_seen"] >= 0) & np.isfinite(columns["loss"]) & ~due_N
    inside_N &= np.isfinite(score_N)
    suspects = 0
    if suspect_N is not None:
        inside_N &= ~suspect_N
        suspects = int(suspect_N.sum())
    rows_R = np.flatnonzero(inside_N)
    total = len(inside_N)
    return Pool(columns, rows_R, score_N, total, total - len(rows_R) - suspects, context, own)


def highest(
    score_R: npt.NDArray[np.floating], lot_R: npt.NDArray[np.uint64], *, count: int
) -> npt.NDArray[np.bool_]:
    """Which are the `count` highest, equal ones by lot: bool of shape (R,)."""
    if count >= len(score_R):
        return np.ones(len(score_R), dtype=bool)
    if count <= 0:
        return np.zeros(len(score_R), dtype=bool)
    limit = np.partition(score_R, len(score_R) - count)[len(score_R) - count]
    chosen_R: npt.NDArray[np.bool_] = score_R > limit
    equal_T = np.flatnonzero(score_R == limit)
    left = count - int(np.count_nonzero(chosen_R))
    if left == len(equal_T):
        chosen_R[equal_T] = True
        return chosen_R
    lot_T = lot_R[equal_T]
    last = np.partition(lot_T, left - 1)[left - 1]  # linear, where sorting all lots is not
    chosen_R[equal_T[lot_T < last]] = True
    same_T = equal_T[lot_T == last]
    chosen_R[same_T[: count - int(np.count_nonzero(chosen_R))]] = True
    return chosen_R


def stable_mean(values_N: npt.NDArray[Any]) -> float:
    """The mean in float64, summed in sorted order: the rows' order does not change its bits."""
    return float(np.sort(values_N.astype(np.float64)).mean())
