"""Random: the control that every other policy has to beat, at exactly as many samples.

Each epoch draws anew, and exactly as many as the share says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    from epochal.data.policies.shared.pool import Choice, Pool


def _choose(pool: Pool, _settings: PolicyFields) -> Choice:
    """Keeps a random part of the pool."""
    import numpy as np

    alike_R = np.zeros(len(pool.rows_R))
    return pool.rest(pool.highest(alike_R, count=pool.picks, lot="random"))


POLICY = Policy(
    name="random",
    summary="a random part: the control that others have to beat",
    takes=("budget", "budget_end", "shares"),
    revisit=10,
    by_lot=True,
    choose=_choose,
)
