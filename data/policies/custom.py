"""A user's own policy: what it gives is checked, and the promises of all policies are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.errors import TargetError
from epochal.data.policies.shared.pool import Pool

# N samples, R of the pool

UserPolicy = Callable[..., Any]
"""plan(table, context) → (keep_N, weight_N), its arguments bound already."""


def custom(
    table: Any, pool: Pool, plan: UserPolicy, *, max_weight: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """What `plan` keeps of the pool, bool of shape (R,), and its weights, float32 of shape (N,).

    Weights above `max_weight` become that. Raises TargetError for what is no plan.
    """
    given = plan(table, pool.context)
    if not isinstance(given, tuple) or len(given) != 2:  # noqa: PLR2004 - keep and weight
        raise TargetError(
            f"sampling.target: it gave a {type(given).__name__}; expected (keep_N, weight_N), "
            f"bool and float of shape ({pool.total},)"
        )
    keep_N, weight_N = (np.asarray(one) for one in given)
    if keep_N.shape != (pool.total,) or keep_N.dtype != np.bool_:
        raise TargetError(
            f"sampling.target: its keep_N is {keep_N.dtype} of shape {keep_N.shape}; expected bool "
            f"of shape ({pool.total},)"
        )
    if weight_N.shape != (pool.total,) or weight_N.dtype.kind not in "fiu":
        raise TargetError(
            f"sampling.target: its weight_N is {weight_N.dtype} of shape {weight_N.shape}; "
            f"expected floats of shape ({pool.total},)"
        )
    if not bool((np.isfinite(weight_N) & (weight_N >= 0)).all()):
        row = int(np.flatnonzero(~(np.isfinite(weight_N) & (weight_N >= 0)))[0])
        raise TargetError(
            f"sampling.target: the weight of sample {int(table['sample_id'][row])} is "
            f"{weight_N[row]}; expected a number from 0 on"
        )
    return keep_N[pool.rows_R], np.minimum(weight_N, max_weight).astype(np.float32)
