"""From a sample table to who trains in the next epoch: the one entry to all policies.

Pure: the same table, context and config give the same plan, in whatever order the rows stand.
Every random choice is a hash of (seed, epoch, sample id). Knows no files, no torch and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from epochal.data.config import SamplingConfig
from epochal.data.policies.easy_skip import easy_rows
from epochal.data.policies.floor import raise_to_floor
from epochal.data.policies.revisit import may_rest

# N samples


class Scores(Protocol):
    """What policies read of a sample table: columns of shape (N,) by name."""

    @property
    def columns(self) -> Mapping[str, npt.NDArray[Any]]:
        """Those of `epochal.data.tables.SAMPLES`; `keep` and `weight` are not read."""


@dataclass(frozen=True)
class PlanContext:
    """When and for whom is planned.

    epoch: the epoch that is planned, the one after the last observations.
    full: whether it trains on everything. seed: of the run.
    """

    epoch: int
    full: bool
    seed: int


@dataclass(frozen=True, eq=False)
class Planned:
    """Who trains: keep_N, bool of shape (N,); weight_N, of the losses, float32 of shape (N,)."""

    keep_N: npt.NDArray[np.bool_]
    weight_N: npt.NDArray[np.float32]


def plan_epoch(table: Scores, context: PlanContext, config: SamplingConfig) -> Planned:
    """Who trains in `context.epoch`.

    Full epochs and the policy `none` keep everything with weight 1. `easy_skip` is
    select ∘ revisit ∘ floor: an easy sample rests unless its return is due, and never so many rest
    that less than the floor is left. Its weights are 1, too: it claims no unbiased gradient.
    """
    columns = table.columns
    count = len(columns["sample_id"])
    keep_N = np.ones(count, dtype=bool)
    if config.policy != "none" and not context.full:
        rows_E = easy_rows(columns, confidence=config.confidence)
        rests_E = may_rest(
            columns["sample_id"][rows_E],
            columns["epoch_seen"][rows_E],
            epoch=context.epoch,
            revisit=config.revisit,
            seed=context.seed,
        )
        keep_N[rows_E[rests_E]] = False
        keep_N = raise_to_floor(
            columns, keep_N, floor=config.floor, epoch=context.epoch, seed=context.seed
        )
    return Planned(keep_N=keep_N, weight_N=np.ones(count, dtype=np.float32))
