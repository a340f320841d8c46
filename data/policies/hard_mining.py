"""Hard mining: the hardest samples by their last score, as many as the budget allows.

Wrong labels are the hardest of all: without `label_noise: drop` it trains on them most.
"""

from __future__ import annotations

from epochal.data.hashing import hash_u64
from epochal.data.policies.shared.pool import Choice, Pool, highest


def hard_mining(pool: Pool) -> Choice:
    """Keeps the highest scores."""
    context = pool.context
    lot_R = hash_u64(pool.ids_R, "hard_mining", context.seed, context.epoch)
    return pool.rest(highest(pool.score_R, lot_R, count=pool.picks))
