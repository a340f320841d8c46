"""The step metrics of an epoch in long form, as they are kept in a table. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.engine.config.mid_epoch import INSIDE


def in_long_form(
    updates: Mapping[str, npt.NDArray[np.float64]], *, first_update: int
) -> dict[str, npt.NDArray[Any]]:
    """`step` int64, `key`, `value` float64; key by key.

    updates: metric → float64 of shape (U,). first_update: its number over the run, from 1.
    Metrics of a validation inside the epoch have rows where they were measured.
    """
    names = list(updates)
    num_updates = len(updates[names[0]])
    step_U = np.arange(num_updates, dtype=np.int64) + first_update
    value = np.concatenate([updates[name] for name in names])
    sparse = np.repeat([name.startswith(INSIDE) for name in names], num_updates)
    held = ~(sparse & np.isnan(value))
    return {
        "step": np.tile(step_U, len(names))[held],
        "key": np.repeat(np.array(names, dtype=object), num_updates)[held],
        "value": value[held],
    }
