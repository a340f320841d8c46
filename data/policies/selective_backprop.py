"""Selective-Backprop with stale losses (Jiang et al. 2019, arXiv:1910.00762), an epoch at a time.

The chance to be kept is a power of the loss's rank, as in Composer. No pass to choose by: the
losses are those of the last time that a sample trained.
"""

from __future__ import annotations

import numpy as np

from epochal.data.hashing import hash_u64, hash_uniform
from epochal.data.policies.pool import Choice, Pool

# R of the pool


def selective_backprop(pool: Pool) -> Choice:
    """Keeps with probability rank^(1/share - 1), whose mean is the share."""
    count, context = len(pool.rows_R), pool.context
    if pool.picks in {0, count}:
        return pool.rest(np.full(count, pool.picks > 0))
    lot_R = hash_u64(pool.ids_R, "selective_backprop", context.seed, context.epoch)
    rank_R = np.empty(count)
    rank_R[np.lexsort((lot_R, pool["loss"]))] = (np.arange(count) + 0.5) / count
    chance_R = rank_R ** (count / pool.picks - 1.0)
    coin_R = hash_uniform(pool.ids_R, "selective_backprop/coin", context.seed, context.epoch)
    return pool.rest(coin_R < chance_R)
