"""Random: the control that every other policy has to beat, at exactly as many samples.

Each epoch draws anew, and exactly as many as the share says.
"""

from __future__ import annotations

import numpy as np

from epochal.data.hashing import hash_u64
from epochal.data.policies.shared.pool import Choice, Pool, highest


def random(pool: Pool) -> Choice:
    """Keeps a random part of the pool."""
    context = pool.context
    lot_R = hash_u64(pool.ids_R, "random", context.seed, context.epoch)
    return pool.rest(highest(np.zeros(len(lot_R)), lot_R, count=pool.picks))
