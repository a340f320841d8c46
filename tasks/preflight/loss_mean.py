"""The mean of a user's loss, compared before the start with the one that training would follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epochal.data.errors import TargetError
from epochal.data.inspection.dataset import OpenDataset
from epochal.data.types import seed_64
from epochal.tasks.config.run import RunConfig
from epochal.tasks.user_code.components import Components

if TYPE_CHECKING:
    import torch

    from epochal.engine.model.build import Loss

_MEANS_DIFFER = 1e-4  # relative; the same numbers are added in another order
MEAN_SAMPLES = 64  # spread over the data, so that they are of several classes and lengths


def check_mean(
    config: RunConfig,
    components: Components,
    data: OpenDataset,
    *,
    notice: Callable[[str], None] = lambda _: None,
) -> None:
    """Raises TargetError for a loss whose mean is not the one that training would follow.

    A loss of the user's may divide by what only it knows, such as its own weights. notice: told if
    one number for the batch is not to be put together from those of its micro-batches.
    """
    loss = components.loss
    accumulates = max(config.gradients.accumulated(epoch) for epoch in range(config.epochs)) > 1
    is_opaque = not loss.per_sample and loss.class_weights is None and accumulates
    if config.step is not None or not (loss.own_mean is not None or is_opaque):
        return
    tried = _tried(config, components, data)
    if tried is None:
        return
    if loss.own_mean is None:
        text = _of_parts(config.loss.target, loss, *tried, seed=_seed(config))
        if text is not None:
            notice(text)
        return
    _check_own(config.loss.target, loss, loss.own_mean(), *tried, seed=_seed(config))


def _seed(config: RunConfig) -> int:
    return seed_64(config.seed, "probe")


def _tried(
    config: RunConfig, components: Components, data: OpenDataset
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Outputs and targets of samples from all over the data; None where they are no tensors."""
    import torch

    from epochal.engine.model.batches import split_batch
    from epochal.engine.randomness import seeded
    from epochal.tasks.run_data.probe_batches import spread_batch

    count = min(MEAN_SAMPLES, config.loader.batch_size, data.info.num_samples)
    model = components.state.model
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), seeded(_seed(config)):
            model_input, target = split_batch(spread_batch(config, data, components, count=count))
            outputs = model(model_input)
    finally:
        model.train(was_training)
    if not (isinstance(outputs, torch.Tensor) and isinstance(target, torch.Tensor)):
        return None
    if outputs.is_floating_point() and outputs.itemsize < torch.float32.itemsize:
        outputs = outputs.float()
    return outputs, target


def _number(function: Callable[[Any, Any], Any], outputs: Any, target: Any, seed: int) -> float:
    """What a loss gives, drawing the same random numbers each time; NaN where it is no number."""
    import torch

    from epochal.engine.randomness import seeded

    with torch.no_grad(), seeded(seed):
        value = function(outputs, target)
    is_number = isinstance(value, torch.Tensor) and value.numel() == 1
    return float(value) if is_number else math.nan


def _of_parts(
    name: str, loss: Loss, outputs: torch.Tensor, target: torch.Tensor, *, seed: int
) -> str | None:
    """What to say of a loss of one number that is not the mean of its halves' by samples."""
    count, half = len(target), len(target) // 2
    if not half:
        return None
    whole = _number(loss.function, outputs, target, seed)
    first = _number(loss.function, outputs[:half], target[:half], seed)
    second = _number(loss.function, outputs[half:], target[half:], seed)
    if not _differ(whole, (first * half + second * (count - half)) / count):
        return None
    return (
        f"loss: {name} gives one number for a batch, {whole:.6g} for {count} samples, but "
        f"{first:.6g} and {second:.6g} for their halves: with gradients.accumulate an update "
        "follows the mean by samples over its micro-batches, which is another one; a loss that "
        "takes `reduction`, or a `step` with denominator_B, keeps its own"
    )


def _check_own(
    name: str,
    loss: Loss,
    own_mean: Callable[[Any, Any], Any],
    outputs: torch.Tensor,
    target: torch.Tensor,
    *,
    seed: int,
) -> None:
    import torch

    from epochal.engine.model.step import DefaultStep, as_target
    from epochal.engine.randomness import seeded

    with torch.no_grad(), seeded(seed):
        losses = DefaultStep(loss).losses(outputs, target)
    denominator = losses.denominator_B
    total = float(losses.loss_B.numel() if denominator is None else denominator.sum())
    if losses.parts is not None or not total:
        return
    own = _number(own_mean, outputs, as_target(loss, target, outputs), seed)
    ours = float(losses.loss_B.double().sum()) / total
    if _differ(own, ours):
        raise TargetError(
            f"loss: over {len(target)} samples the mean of {name} is {own:.6g}, but that of what "
            f"it gives with `reduction: none` is {ours:.6g}: it divides by something that Epochal "
            "does not know. Set loss.args.reduction to `mean`, for one loss a batch, or give a "
            "`step` that returns loss_B and denominator_B"
        )


def _differ(one: float, other: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):  # the first update tells
        return False
    return not math.isclose(one, other, rel_tol=_MEANS_DIFFER, abs_tol=_MEANS_DIFFER)
