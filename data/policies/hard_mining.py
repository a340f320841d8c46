"""Hard mining: the hardest samples by their last score, as many as the budget allows.

Wrong labels are the hardest of all: without `label_noise: drop` it trains on them most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    from epochal.data.policies.shared.pool import Choice, Pool


def _choose(pool: Pool, _settings: PolicyFields) -> Choice:
    """Keeps the highest scores."""
    return pool.rest(pool.highest(pool.score_R, count=pool.picks, lot="hard_mining"))


POLICY = Policy(
    name="hard_mining",
    summary="the highest scores",
    takes=("score", "budget", "budget_end", "scoring"),
    choose=_choose,
)
