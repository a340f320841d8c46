"""Importance: hard samples more often, within a budget.

The probability to keep a sample follows its last score. Who is kept follows from credit that
grows by that probability each epoch, not from a coin: nobody waits longer than 1 / probability.
With `max_weight` above one the losses are weighed towards the mean gradient of all samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_uniform
from epochal.data.policies.shared.pool import Choice, Columns, Pool

# N samples, R of the pool

OFFSET = 0.05
"""Added to every score: also what is learned perfectly is seen again."""

_HALVINGS = 100


def importance(pool: Pool) -> Choice:
    """Keeps whose credit has grown to one; `credit` is the table's column, from `start_credit` on.

    By `score: el2n`, that is the bound of a sample's gradient norm for the cross-entropy
    (Katharopoulos & Fleuret 2018, arXiv:1803.00942: that of the gradient before the last layer).
    """
    worth_R = np.maximum(pool.score_R, 0.0) + OFFSET
    probability_R = keep_probability(
        worth_R, total=pool.budget * pool.total - pool.forced, least=pool.config.min_probability
    )
    kept_R = pool["credit"].astype(np.float64) + probability_R >= 1.0
    return Choice(pool.rows_R[~kept_R], probability_R)


def keep_probability(
    worth_R: npt.NDArray[np.float64], *, total: float, least: float
) -> npt.NDArray[np.float32]:
    """clip(c · worth, least, 1), float32 of shape (R,), with the c whose sum is `total`.

    Where no c gives that sum, the nearest one: all `least`, or all 1.
    """
    count = len(worth_R)
    if not least * count < total < count:
        return np.full(count, 1.0 if total >= count else least, dtype=np.float32)
    sorted_R = np.sort(worth_R)
    below_R = np.concatenate([[0.0], np.cumsum(sorted_R)])
    low, high = least / sorted_R[-1], 1.0 / sorted_R[0]
    for _ in range(_HALVINGS):
        factor = (low + high) / 2
        raised = int(np.searchsorted(sorted_R, least / factor))
        capped = int(np.searchsorted(sorted_R, 1.0 / factor))
        linear = factor * (below_R[capped] - below_R[raised]) if capped > raised else 0.0
        if least * raised + linear + (count - capped) < total:
            low = factor
        else:
            high = factor
    probability_R: npt.NDArray[np.float64] = np.clip(high * worth_R, least, 1.0)
    return probability_R.astype(np.float32)


def start_credit(ids_N: npt.NDArray[np.int64], *, seed: int) -> npt.NDArray[np.float32]:
    """The credit that samples begin with: spread over [0, 1), so that they do not come in waves."""
    return hash_uniform(ids_N, "credit", seed).astype(np.float32)


def next_credit(columns: Columns) -> npt.NDArray[np.float32]:
    """The credit after the epoch that `columns`, a planned table, planned: float32 of shape (N,).

    Whoever trained for another reason (a full epoch, the floor) has a probability of one there, and
    their credit stays.
    """
    grown_N = columns["credit"].astype(np.float64) + columns["probability"] - columns["keep"]
    return np.clip(grown_N, 0.0, 1.0).astype(np.float32)
