"""Importance: hard samples more often, within a budget.

The probability to keep a sample follows from its last score. Who is kept is not drawn: each epoch a
sample's credit grows by its probability, and at 1 it trains, so none waits longer than
1 / probability epochs. With `max_weight` above 1, losses are weighted so that the mean gradient is
nearer that of all samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from epochal.data.hashing import hash_uniform
from epochal.data.policies.shared.policy import Policy, PolicyFields, Share

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.policies.shared.pool import Choice, Columns, Pool

# N samples, R of the pool

OFFSET = 0.05
"""Added to every score, so that samples that are learned perfectly are seen again, too."""

_HALVINGS = 100
_LONGEST_ABSENCE = 1000  # epochs, the most that `revisit` takes


class ImportanceFields(PolicyFields):
    """How seldom a sample may come."""

    min_probability: Share = Field(
        default=0.2,
        description="of importance: least probability that a sample is kept, in (0, 1]; with 0.2 "
        "everybody comes at least every 5 epochs, by accumulated credit and not by lot",
    )


def _choose(pool: Pool, settings: ImportanceFields) -> Choice:
    """Keeps the samples whose credit, the table's column `credit`, has grown to one.

    With `score: el2n` the score bounds the norm of a sample's gradient for the cross-entropy
    (Katharopoulos & Fleuret 2018, arXiv:1803.00942: the gradient before the last layer).
    """
    import numpy as np

    worth_R = np.maximum(pool.score_R, 0.0) + OFFSET
    probability_R = keep_probability(
        worth_R, total=pool.budget * pool.total - pool.forced, least=settings.min_probability
    )
    kept_R = pool["credit"].astype(np.float64) + probability_R >= 1.0
    return pool.rest(kept_R, probability_R=probability_R)


def keep_probability(
    worth_R: npt.NDArray[np.float64], *, total: float, least: float
) -> npt.NDArray[np.float32]:
    """clip(c · worth, least, 1), float32 of shape (R,), with the c whose sum is `total`.

    Where no c gives that sum, all are `least`, or all are 1, whichever comes nearer.
    """
    import numpy as np

    count = len(worth_R)
    if not least * count < total < count:
        return np.full(count, 1.0 if total >= count else least, dtype=np.float32)
    sorted_R = np.sort(worth_R)
    below_R = np.concatenate([[0.0], np.cumsum(sorted_R)])
    low, high = least / sorted_R[-1], 1.0 / sorted_R[0]
    for _ in range(_HALVINGS):
        factor = (low + high) / 2
        raised = int(np.searchsorted(sorted_R, least / factor))
        capped = int(np.searchsorted(sorted_R, 1.0 / factor))
        linear = factor * (below_R[capped] - below_R[raised]) if capped > raised else 0.0
        if least * raised + linear + (count - capped) < total:
            low = factor
        else:
            high = factor
    probability_R: npt.NDArray[np.float64] = np.clip(high * worth_R, least, 1.0)
    return probability_R.astype(np.float32)


def _carry(
    columns: Columns,
    previous: Columns | None,
    *,
    epoch: int,  # noqa: ARG001 - all epochs add in the same way
    seed: int,
    settings: ImportanceFields,  # noqa: ARG001 - as a policy is called
    scored: bool | None,  # noqa: ARG001 - as a policy is called
) -> dict[str, npt.NDArray[Any]]:
    """Credit after the epoch that `previous` planned, and a probability of one until the next plan.

    Credit begins spread over [0, 1), so that samples do not all train in the same epochs. A sample
    that trained for another reason (a full epoch, the floor) has a probability of one in
    `previous`, so that its credit stays.
    """
    import numpy as np

    ids_N = columns["sample_id"]
    if previous is None or "credit" not in previous:
        credit_N = hash_uniform(ids_N, "credit", seed)
    else:
        grown_N = previous["credit"].astype(np.float64) + previous["probability"]
        credit_N = np.clip(grown_N - previous["keep"], 0.0, 1.0)
    return {
        "credit": credit_N.astype(np.float32),
        "probability": np.ones(len(ids_N), dtype=np.float32),
    }


def _revisit(settings: ImportanceFields) -> int:
    return min(_LONGEST_ABSENCE, max(1, round(1 / settings.min_probability)))


POLICY = Policy(
    name="importance",
    summary="hard samples more often, within a budget",
    takes=("score", "budget", "budget_end", "min_probability", "max_weight", "scoring"),
    max_weight=1.0,
    budget=(0.55, 0.55),
    revisit=_revisit,
    batch="sqrt",
    ends_full=False,  # it loses by a full phase at the end
    reads=("credit",),
    by_lot=True,
    state=("credit", "probability"),
    carry=_carry,
    choose=_choose,
)
