"""Early stopping: which epoch is the last, as a pure function of the validations so far.

It is part of no stage key and holds no state: the same records give the same answer in any command.
It only shortens the list of stages, so a run with more patience goes on with everything cached.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from epochal.tasks.config.parts import EarlyStoppingConfig


def last_epoch(
    config: EarlyStoppingConfig,
    values: Sequence[float | None],
    *,
    mode: Literal["max", "min"],
) -> int | None:
    """The epoch that the list ends with, or None while it goes on.

    values: of the metric, by epoch from 0, as far as they are known; None where it was not finite,
    which is no improvement.
    """
    sign = 1.0 if mode == "max" else -1.0
    best, waited = -math.inf, 0
    for epoch, value in enumerate(values):
        if epoch < config.start:
            continue
        # The first finite value improves on nothing; from then on by more than min_delta.
        if value is not None and (best == -math.inf or sign * value > best + config.min_delta):
            best, waited = sign * value, 0
            continue
        waited += 1
        if waited >= config.patience:
            return epoch
    return None
