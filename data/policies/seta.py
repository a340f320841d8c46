"""SeTa (CVPR 2025, arXiv:2503.13385): a window over groups of like losses, from easy to hard.

A random share of the samples is drawn, their losses fall into groups by k-means, and a window of
the groups trains; it moves on by one group an epoch and wraps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from epochal.data.hashing import hash_uniform
from epochal.data.policies.shared.policy import Policy, PolicyFields, Share

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.policies.shared.pool import Choice, Pool

# R of the pool, G groups

_MAX_ROUNDS = 50


class SetaFields(PolicyFields):
    """The groups, and the window over them."""

    groups: int = Field(
        default=10, ge=2, le=1000, description="of seta: groups of like losses, found by k-means"
    )
    window: Share = Field(
        default=0.5,
        description="of seta: share of the groups that train; the window moves on by one group an "
        "epoch, from easy to hard, and wraps",
    )


def _choose(pool: Pool, settings: SetaFields) -> Choice:
    """Keeps who is drawn and in the window."""
    context, groups = pool.context, settings.groups
    drawn_R = hash_uniform(pool.ids_R, "seta", context.seed, context.epoch) < pool.budget
    group_R = loss_groups(pool["loss"].astype("float64"), groups=groups)
    first = (context.epoch - 1) % groups
    width = max(1, round(settings.window * groups))
    return pool.rest(drawn_R & ((group_R - first) % groups < width))


def loss_groups(loss_R: npt.NDArray[np.float64], *, groups: int) -> npt.NDArray[np.int64]:
    """The group of each sample by k-means of one dimension, 0 the lowest: int64 of shape (R,).

    Begins at quantiles; the sums are of sorted values, so the order of rows plays no part.
    """
    import numpy as np

    if not len(loss_R):
        return np.zeros(0, dtype=np.int64)
    sorted_R = np.sort(loss_R)
    sums_R = np.concatenate([[0.0], np.cumsum(sorted_R)])
    centre_G = sorted_R[((np.arange(groups) + 0.5) / groups * len(sorted_R)).astype(np.int64)]
    for _ in range(_MAX_ROUNDS):
        border_G = (centre_G[1:] + centre_G[:-1]) / 2
        edge_G = np.concatenate([[0], np.searchsorted(sorted_R, border_G), [len(sorted_R)]])
        size_G = np.diff(edge_G)
        mean_G = np.diff(sums_R[edge_G]) / np.maximum(size_G, 1)
        moved_G = np.sort(np.where(size_G > 0, mean_G, centre_G))
        if np.array_equal(moved_G, centre_G):
            break
        centre_G = moved_G
    border_G = (centre_G[1:] + centre_G[:-1]) / 2
    return np.searchsorted(border_G, loss_R, side="right").astype(np.int64)


POLICY = Policy(
    name="seta",
    summary="a random share, of which a window over groups of like losses",
    takes=("budget", "groups", "window", "scoring"),
    budget=(0.9, 0.9),
    revisit=10,
    by_lot=True,
    choose=_choose,
)
