"""Skips easy samples as ml-cvnets does: a count goes up at easy verdicts and down at others.

Without the defects of ml-cvnets: samples return when they are not easy any more and after `revisit`
epochs at most, the count is in the table and so survives a resume, and the floor holds. Verdicts
come from the training pass or, as published, from a pass over all samples (`scoring`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    import numpy.typing as npt

    from epochal.data.policies.shared.pool import Choice, Columns, Pool

# N samples


class CvnetsFields(PolicyFields):
    """When verdicts count, and how many a sample needs."""

    every: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="of cvnets: epochs between two counts of easy verdicts; published are 5, with "
        "which a run of 20 epochs skips nothing",
    )
    count: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="of cvnets: the count from which a sample is skipped; an easy verdict adds "
        "one, any other takes one off",
    )


def _choose(pool: Pool, settings: CvnetsFields) -> Choice:
    """Skips samples whose count, the table's column `easy_count`, has reached `count`."""
    return pool.rest(pool["easy_count"] < settings.count)


def _carry(
    columns: Columns,
    previous: Columns | None,
    *,
    epoch: int,
    seed: int,  # noqa: ARG001 - nothing is random here
    settings: CvnetsFields,
    scored: bool | None,
) -> dict[str, npt.NDArray[Any]]:
    """The counts after `epoch`: int16 of shape (N,).

    Every `every` epochs, each sample seen since the last time counts with its last verdict. With
    `scoring` that is each sample, as published, where a pass followed this epoch.
    """
    import numpy as np

    count_N = np.zeros(len(columns["sample_id"]), dtype=np.int16)
    if previous is not None and "easy_count" in previous:
        count_N = previous["easy_count"]
    if (epoch + 1) % settings.every or scored is False:
        return {"easy_count": count_N}
    easy_N = columns["correct"] & (columns["confidence"].astype(np.float64) >= settings.easy_from)
    moved_N = np.clip(count_N + np.where(easy_N, 1, -1), 0, settings.count)
    if scored is None:
        fresh_N = columns["epoch_seen"] > epoch - settings.every
        moved_N = np.where(fresh_N, moved_N, count_N)
    return {"easy_count": moved_N.astype(np.int16)}


POLICY = Policy(
    name="cvnets",
    summary="all but the samples whose count of easy verdicts has reached `count`",
    takes=("confidence", "every", "count", "scoring"),
    revisit=2,
    observes=("confidence", "correct"),
    reads=("easy_count",),
    state=("easy_count",),
    carry=_carry,
    choose=_choose,
)
