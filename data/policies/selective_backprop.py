"""Selective-Backprop with stale losses (Jiang et al. 2019, arXiv:1910.00762), an epoch at a time.

The chance to be kept is a power of the loss's rank, as in the library Composer. It needs no pass of
its own: the losses are those of the last time that a sample trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.hashing import hash_u64, hash_uniform
from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.policies.shared.pool import Choice, Pool

# R of the pool


def _choose(pool: Pool, _settings: PolicyFields) -> Choice:
    """Keeps with probability rank^(1/share - 1), whose mean is the share."""
    import numpy as np

    count, context = len(pool.rows_R), pool.context
    if pool.picks in {0, count}:
        return pool.rest(np.full(count, pool.picks > 0))
    lot_R = hash_u64(pool.ids_R, "selective_backprop", context.seed, context.epoch)
    rank_R = np.empty(count)
    rank_R[ranked_by_loss(pool["loss"], lot_R)] = (np.arange(count) + 0.5) / count
    chance_R = rank_R ** (count / pool.picks - 1.0)
    coin_R = hash_uniform(pool.ids_R, "selective_backprop/coin", context.seed, context.epoch)
    return pool.rest(coin_R < chance_R)


def ranked_by_loss(
    loss_R: npt.NDArray[np.floating], lot_R: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Rows from the lowest loss to the highest, equal ones by lot: `lexsort((lot_R, loss_R))`.

    Faster than `lexsort`: loss and upper half of the lot are packed into one integer and sorted by
    it. Only the few rows whose integers are equal are then sorted by the whole lot.
    """
    import numpy as np

    bits_R = (loss_R.astype(np.float32) + np.float32(0)).view(np.uint32)  # no negative zero
    sign = np.uint32(1 << 31)
    rising_R = np.where(bits_R >= sign, ~bits_R, bits_R | sign).astype(np.uint64)
    key_R = (rising_R << np.uint64(32)) | (lot_R >> np.uint64(32))
    order_R = np.argsort(key_R)
    sorted_R = key_R[order_R]
    equal = np.flatnonzero(sorted_R[1:] == sorted_R[:-1])
    places = np.union1d(equal, equal + 1)
    rows = order_R[places]
    order_R[places] = rows[np.lexsort((lot_R[rows], key_R[rows]))]
    return order_R


POLICY = Policy(
    name="selective_backprop",
    summary="a random part, likelier with a higher rank of the last loss",
    takes=("budget", "budget_end", "scoring"),
    by_lot=True,
    choose=_choose,
)
