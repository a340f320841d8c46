"""Weights: what the samples that train count for those that do not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epochal.data.policies.shared.pool import stable_mean

# N samples


def inverse_weights(
    probability_N: npt.NDArray[np.float32], keep_N: npt.NDArray[np.bool_], *, highest: float
) -> npt.NDArray[np.float32]:
    """min(1 / probability, highest), divided by its mean over the kept: float32 of shape (N,).

    Their mean is one, so that the learning rate means what it means for a full epoch. No weight is
    above `highest`. Samples that are not kept have weight 1, which nobody reads.
    """
    if highest <= 1:  # no weight is below one: all are one
        return np.ones(len(keep_N), dtype=np.float32)
    weight_N = np.ones(len(keep_N))
    raw_K = np.minimum(1.0 / probability_N[keep_N].astype(np.float64), highest)
    if len(raw_K):
        weight_N[keep_N] = raw_K / stable_mean(raw_K)
    return weight_N.astype(np.float32)
