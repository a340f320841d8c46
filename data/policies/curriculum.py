"""Self-paced curriculum (Wu et al. 2021, arXiv:2012.03107): the easiest first, then more and more.

It gains where epochs are few or labels are noisy, and hardly elsewhere.
"""

from __future__ import annotations

import numpy as np

from epochal.data.hashing import hash_u64
from epochal.data.policies.shared.pool import Choice, Pool, highest


def curriculum(pool: Pool) -> Choice:
    """Keeps the lowest losses, as many as the budget of the epoch allows."""
    context = pool.context
    lot_R = hash_u64(pool.ids_R, "curriculum", context.seed, context.epoch)
    return pool.rest(highest(-pool["loss"].astype(np.float64), lot_R, count=pool.picks))
