"""Self-paced curriculum (Wu et al. 2021, arXiv:2012.03107): the easiest first, then more and more.

It gains where epochs are few or labels are noisy, and hardly elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    from epochal.data.policies.shared.pool import Choice, Pool


def _choose(pool: Pool, _settings: PolicyFields) -> Choice:
    """Keeps the lowest losses, as many as the budget of the epoch allows."""
    loss_R = pool["loss"].astype("float64")
    return pool.rest(pool.highest(-loss_R, count=pool.picks, lot="curriculum"))


POLICY = Policy(
    name="curriculum",
    summary="the lowest losses, more in each epoch",
    takes=("budget", "budget_end", "scoring"),
    budget=(0.3, 1.0),
    pace=lambda done: min(1.0, 2 * done),  # the last budget from half of the budgeted epochs on
    choose=_choose,
)
