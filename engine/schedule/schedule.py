"""The learning rate as a pure function of fractional epoch, and what of it is in a key.

The factor at t is computed from pieces, and the part of them that acts within one epoch is what
that epoch's key holds: two schedules that agree on [e, e + 1] have equal segments there, however
they differ elsewhere. A user's own function has no pieces: 257 samples of it stand for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from epochal.data.errors import TargetError
from epochal.data.hashing import canonical_float
from epochal.engine.schedule.kinds import (
    ConstantSchedule,
    CosineSchedule,
    CustomSchedule,
    CyclicSchedule,
    MultiStepSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    PolynomialSchedule,
    StepSchedule,
    WarmupStableDecaySchedule,
)
from epochal.engine.schedule.names_of_torch import refuse_names_of_torch
from epochal.engine.schedule.pieces import function_of, segments_within

NUM_SAMPLES = 257  # of a user's function over an epoch, both ends with it

ScheduleConfig = Annotated[
    ConstantSchedule
    | MultiStepSchedule
    | StepSchedule
    | CosineSchedule
    | PolynomialSchedule
    | WarmupStableDecaySchedule
    | CyclicSchedule
    | OneCycleSchedule
    | PlateauSchedule
    | CustomSchedule,
    Field(discriminator="kind"),
    BeforeValidator(refuse_names_of_torch),
]


def factor(config: ScheduleConfig, t: float, *, epochs: int) -> float:
    """What the base rate is multiplied by at fractional epoch t of [0, epochs].

    The rate of update u of n in epoch e is that at t = e + (u + 0.5) / n, the middle of the
    update's span: so no update runs at rate 0 at either end of a schedule. Of a plateau schedule it
    is the factor before anything was measured.
    """
    return factor_function(config, epochs=epochs)(t)


def factor_function(
    config: ScheduleConfig, *, epochs: int, custom: Callable[[float], Any] | None = None
) -> Callable[[float], float]:
    """`factor` as a function of t alone, for many calls. custom: what a user's target gives at t.

    Durations are in epochs. A user's function raises TargetError where it gives no factor.
    """
    assert config.unit == "epochs", config
    if custom is None:
        return function_of(config.window(epochs), epochs=epochs)
    return partial(_custom_factor, custom, config.warmup)


def _custom_factor(custom: Callable[[float], Any], warmup: float, t: float) -> float:
    moment = max(t, warmup)
    factor = custom(moment)
    number = (
        float(factor) if isinstance(factor, Real) and not isinstance(factor, bool) else math.nan
    )
    if not 0 <= number < math.inf:
        raise TargetError(
            f"schedule: its target gave {factor!r} at epoch {moment:g}, expected the factor of the "
            "base rate, a finite number from 0"
        )
    return number * (t / warmup) if t < warmup else number


def segments(config: ScheduleConfig, epoch: int, *, epochs: int) -> list[list[Any]]:
    """The schedule within [epoch, epoch + 1], as plain JSON: what the epoch's key holds."""
    assert config.unit == "epochs", config
    return segments_within(config.window(epochs), epoch)


def samples(function: Callable[[float], float], epoch: int) -> list[float]:
    """The function at 257 places over [epoch, epoch + 1], as a key holds them."""
    return [
        canonical_float(function(epoch + place / (NUM_SAMPLES - 1))) for place in range(NUM_SAMPLES)
    ]
