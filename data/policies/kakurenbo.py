"""KAKURENBO (Thao Nguyen et al. 2023, arXiv:2310.10102): hides the samples of lowest loss.

Those that are predicted wrongly or without confidence move back. Confidence is a softmax over
classes (the published scripts took it over the batch). The learning rate is left as it is, and the
hidden samples cost no forward pass: their return is due after `revisit` epochs at most.
"""

from __future__ import annotations

import numpy as np

from epochal.data.hashing import hash_u64
from epochal.data.policies.shared.pool import Choice, Pool, highest

# R of the pool


def kakurenbo(pool: Pool) -> Choice:
    """Hides at most the share 1 - `budget` of all samples: low loss, right and confident."""
    context = pool.context
    lot_R = hash_u64(pool.ids_R, "kakurenbo", context.seed, context.epoch)
    hidden = round((1.0 - pool.budget) * pool.total)
    lowest_R = highest(-pool["loss"].astype(np.float64), lot_R, count=hidden)
    sure_R = pool["correct"] & (pool["confidence"].astype(np.float64) >= pool.config.easy_from)
    return pool.rest(~(lowest_R & sure_R))
