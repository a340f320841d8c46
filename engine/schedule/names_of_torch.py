"""torch's schedulers by name: how each is written as a schedule, for whoever asks for the object.

An `LRScheduler` holds the optimizer and counts its own steps. Here the rate is a function of the
fractional epoch, so that an epoch's key can hold what acts in it and a resumed run has no state to
bring back.
"""

from __future__ import annotations

from typing import Any

MODULE = "torch.optim.lr_scheduler"
_BASES = {"LRScheduler", "_LRScheduler"}

WRITTEN = {
    "LambdaLR": "{kind: custom, target: 'yours:factor'}",
    "MultiplicativeLR": "{kind: custom, target: 'yours:factor'}",
    "StepLR": "{kind: step, size: STEP_SIZE, factor: GAMMA}",
    "MultiStepLR": "{kind: multi_step, milestones: MILESTONES, factor: GAMMA}",
    "ConstantLR": "{kind: multi_step, milestones: [TOTAL_ITERS], values: [1 / FACTOR]}",
    "LinearLR": "{kind: constant, warmup: TOTAL_ITERS}",
    "ExponentialLR": "{kind: step, size: 1, factor: GAMMA}",
    "SequentialLR": "{kind: …, warmup: MILESTONE}",
    "ChainedScheduler": "{kind: custom, target: 'yours:factor'}",
    "CosineAnnealingLR": "{kind: cosine, final: ETA_MIN / LR}",
    "CosineAnnealingWarmRestarts": "{kind: custom, target: 'yours:factor'}",
    "PolynomialLR": "{kind: polynomial, power: POWER}",
    "CyclicLR": "{kind: cyclic, low: BASE_LR / MAX_LR, period: UP + DOWN, rise: UP / (UP + DOWN)}",
    "OneCycleLR": "{kind: one_cycle, rise: PCT_START, initial: 1 / DIV_FACTOR}",
    "ReduceLROnPlateau": "{kind: plateau, factor: FACTOR, patience: PATIENCE}",
    "SWALR": "{kind: custom, target: 'yours:factor'}",
}
"""Class → the schedule in its place; capitals stand for its arguments, in epochs."""


def instead_of(name: str) -> str:
    """What to write in place of torch's class of that name, as the end of an error."""
    form = WRITTEN.get(name, WRITTEN["LambdaLR"])
    return (
        "it holds the optimizer and counts its own steps; here the rate is a function of the "
        f"epoch. Write {form}; docs/config.md has a table of all"
    )


def refuse_names_of_torch(given: Any) -> Any:
    """A schedule as it is given. Raises ValueError if it names a class of torch's instead."""
    named = given
    if isinstance(given, dict):
        named = given.get("target") or given.get("kind")
    if isinstance(named, str) and (name := _name_of(named)) is not None:
        raise ValueError(f"{name} is a scheduler of torch: {instead_of(name)}")
    return given


def _name_of(text: str) -> str | None:
    """The class that the text means: `StepLR`, `step_lr`, `torch.optim.lr_scheduler:StepLR`."""
    module, colon, attribute = text.rpartition(":") if ":" in text else text.rpartition(".")
    if colon and not module.startswith("torch.optim"):
        return None  # a target of the user's may have any name
    plain = {name.lower(): name for name in WRITTEN}
    return plain.get(attribute.replace("_", "").lower())


def scheduler_class(target: Any) -> str | None:
    """The class of torch's that `target` is or comes from, or None if it is no scheduler."""
    if not isinstance(target, type):
        return None
    line = [base for base in target.__mro__ if base.__module__.startswith("torch.optim")]
    if not any(base.__name__ in _BASES for base in line):
        return None
    return line[0].__name__
