"""How hard a sample is, by its score, and how much its loss weighs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epochal.data.policies.shared.pool import Columns, stable_mean

# N samples

SCORE_COLUMNS: dict[str, tuple[str, ...]] = {
    "loss": ("loss",),
    "el2n": ("el2n",),
    "trusted_el2n": ("el2n", "confidence", "p_true_sum", "n_seen"),
}
"""Score → the columns of a sample table that it is made of."""


def score_of(columns: Columns, score: str) -> npt.NDArray[np.floating]:
    """Score of each sample, of shape (N,): a float column, or float64; NaN where it was not seen.

    `trusted_el2n` is q · EL2N + (1 − q) · √2 (1 − confidence), where q is the mean probability of
    the label over all epochs. The second part is the most that EL2N would be if the class that is
    predicted were the right one. Thus a sample is not hard only because its label was hardly ever
    predicted, since such a label is often wrong; it is hard if the prediction is unsure. Where one
    epoch has made `p_true_sum` NaN, q counts as 1: the score is EL2N.
    """
    if score != "trusted_el2n":
        return columns[score]
    seen_N = np.maximum(columns["n_seen"], 1)
    trust_N = np.clip(columns["p_true_sum"].astype(np.float64) / seen_N, 0.0, 1.0)
    trust_N[np.isnan(trust_N)] = 1.0
    unsure_N = np.sqrt(2.0) * (1.0 - columns["confidence"].astype(np.float64))
    score_N: npt.NDArray[np.float64] = trust_N * columns["el2n"] + (1.0 - trust_N) * unsure_N
    return score_N


def inverse_weights(
    probability_N: npt.NDArray[np.float32], keep_N: npt.NDArray[np.bool_], *, highest: float
) -> npt.NDArray[np.float32]:
    """min(1 / probability, highest), divided by its mean over the kept: float32 of shape (N,).

    The weights of the kept samples have mean one, so that a learning rate does what it does in a
    full epoch. No weight is above `highest`. Samples that are not kept have weight 1; nothing
    reads it.
    """
    if highest <= 1:  # 1 / probability is never below one, so all weights are equal
        return np.ones(len(keep_N), dtype=np.float32)
    weight_N = np.ones(len(keep_N))
    raw_K = np.minimum(1.0 / probability_N[keep_N].astype(np.float64), highest)
    if len(raw_K):
        weight_N[keep_N] = raw_K / stable_mean(raw_K)
    return weight_N.astype(np.float32)
