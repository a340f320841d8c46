"""InfoBatch (Qin et al. 2024, arXiv:2303.04947): keeps a random part of the well learned samples.

These get a higher weight, which makes up for the others that are left out. Defects of the published
code that are not here: sample ids that pass through floats, a patched DataLoader, global NumPy
seeds, and a mean weight above one, which raises the learning rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.hashing import hash_uniform
from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    from epochal.data.policies.shared.pool import Choice, Pool

# R of the pool


def _choose(pool: Pool, _settings: PolicyFields) -> Choice:
    """Of the samples below the mean loss the share `budget` is kept, at weight 1 / `budget`."""
    import numpy as np

    from epochal.data.policies.shared.pool import stable_mean

    loss_R, context = pool["loss"], pool.context
    if not len(loss_R):
        return pool.rest(np.zeros(0, dtype=bool))
    learned_R = loss_R.astype(np.float64) < stable_mean(loss_R)
    coin_R = hash_uniform(pool.ids_R, "infobatch", context.seed, context.epoch)
    probability_R = np.where(learned_R, np.float32(pool.budget), np.float32(1))
    return pool.rest(
        ~learned_R | (coin_R < pool.budget), probability_R=probability_R.astype(np.float32)
    )


POLICY = Policy(
    name="infobatch",
    summary="all at or above the mean loss, and a random part of the others, weighed up",
    takes=("budget", "max_weight", "scoring"),
    by_lot=True,
    choose=_choose,
)
