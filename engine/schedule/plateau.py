"""How far a plateau schedule lowers the rate, as a pure function of what validations measured.

It holds no state: the same values give the same factors, in whatever command and however often a
run was interrupted. The numbers are those of `torch.optim.lr_scheduler.ReduceLROnPlateau`, but for
its `eps`, below which it leaves the rate alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

from epochal.engine.schedule.kinds import PlateauSchedule


def factors(
    config: PlateauSchedule, values: Iterable[float | None], *, mode: Literal["max", "min"]
) -> Iterator[float]:
    """The factor of the base rate before the first value, and after each.

    values: of the metric, one for each validation that counts, in order; None or NaN where it was
    not finite, which is no improvement.
    """
    best = math.inf if mode == "min" else -math.inf
    factor, waited, cooling = 1.0, 0, 0
    yield factor
    for value in values:
        if value is not None and _is_better(value, best, config=config, mode=mode):
            best, waited = value, 0
        else:
            waited += 1
        if cooling > 0:
            cooling, waited = cooling - 1, 0
        if waited > config.patience:
            factor = max(factor * config.factor, config.floor)
            waited, cooling = 0, config.cooldown
        yield factor


def _is_better(
    value: float, best: float, *, config: PlateauSchedule, mode: Literal["max", "min"]
) -> bool:
    by = config.threshold if mode == "max" else -config.threshold
    mark = best * (1 + by) if config.threshold_mode == "rel" else best + by
    return value > mark if mode == "max" else value < mark
