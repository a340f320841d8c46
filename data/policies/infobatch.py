"""InfoBatch (Qin et al. 2024, arXiv:2303.04947): of the well learned a random part, weighed up.

Defects of the published code that are not here: sample ids that pass through floats, a patched
DataLoader, global NumPy seeds, and a mean weight above one, which raises the learning rate.
"""

from __future__ import annotations

import numpy as np

from epochal.data.hashing import hash_uniform
from epochal.data.policies.shared.pool import Choice, Pool, stable_mean

# R of the pool


def infobatch(pool: Pool) -> Choice:
    """Of the samples below the mean loss the share `budget` is kept, at weight 1 / `budget`."""
    loss_R = pool["loss"]
    if not len(loss_R):
        return Choice(pool.rows_R)
    learned_R = loss_R.astype(np.float64) < stable_mean(loss_R)
    context = pool.context
    coin_R = hash_uniform(pool.ids_R, "infobatch", context.seed, context.epoch)
    kept_R = ~learned_R | (coin_R < pool.budget)
    return Choice(
        pool.rows_R[~kept_R],
        np.where(learned_R, np.float32(pool.budget), np.float32(1)).astype(np.float32),
    )
