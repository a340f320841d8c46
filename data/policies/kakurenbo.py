"""KAKURENBO (Thao Nguyen et al. 2023, arXiv:2310.10102): hides the samples of lowest loss.

Of these, samples that are predicted wrongly or without confidence train all the same. Confidence is
a softmax over classes (the published scripts took it over the batch). Otherwise than published, the
learning rate is left as it is, and hidden samples cost no forward pass: they return after `revisit`
epochs at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    from epochal.data.policies.shared.pool import Choice, Pool

# R of the pool

STEPS = 4
"""The budget grows in so many equal steps over the run, so that less and less is hidden."""


def _choose(pool: Pool, settings: PolicyFields) -> Choice:
    """Hides at most the share 1 - `budget` of all samples: low loss, right and confident."""
    hidden = round((1.0 - pool.budget) * pool.total)
    lowest_R = pool.highest(-pool["loss"].astype("float64"), count=hidden, lot="kakurenbo")
    sure_R = pool["correct"] & (pool["confidence"].astype("float64") >= settings.easy_from)
    return pool.rest(~(lowest_R & sure_R))


POLICY = Policy(
    name="kakurenbo",
    summary="all but the lowest losses, up to the share 1 − `budget`; of these return the wrong "
    "and the unsure",
    takes=("confidence", "budget", "budget_end", "scoring"),
    confidence=0.7,
    budget=(0.7, 0.88),
    revisit=2,
    pace=lambda done: min(int(done * STEPS), STEPS - 1) / (STEPS - 1),
    observes=("confidence", "correct"),
    reads=("confidence", "correct"),
    choose=_choose,
)
