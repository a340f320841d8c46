"""What the mean of a loss divides by, as torch defines it, sample by sample.

torch's `reduction: mean` is a sum over elements divided by their number, but for three losses:
`cross_entropy`, `nll_loss` and `linear_cross_entropy` of class indices divide by the sum of their
targets' class weights, and elements at `ignore_index` count nothing (torch.nn.CrossEntropyLoss, the
formula for `reduction='mean'`). A batch that is cut into pieces keeps that mean only if numerators
and denominators are summed over all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# B samples of a micro-batch, C classes; … further dimensions

_BY_CLASS: tuple[Any, ...] = (functional.cross_entropy, functional.nll_loss)


def class_weights(loss: Any, given: Mapping[str, Any]) -> Callable[[], Tensor | None] | None:
    """Where the class weights of that loss are found, for the losses that divide by them.

    loss: a module or a function; given: the function's arguments. None for every other loss; a
    module is asked each time, since its weights may be moved to another device.
    """
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss | nn.LinearCrossEntropyLoss):
        return lambda: loss.weight
    if any(loss is function for function in _BY_CLASS):
        return lambda: given.get("weight")
    return None


def of_elements(
    target: Any,
    like: Tensor,
    *,
    ignore_index: int | None,
    weights: Callable[[], Tensor | None] | None,
) -> Tensor | None:
    """What each sample's elements add to the denominator, shape (B,); None where each adds one.

    like: the losses of the elements, shape (B, …). weights: as `class_weights` gives them. Targets
    that are no class indices of that shape, such as probabilities, count one for each element.
    """
    indices = (
        isinstance(target, Tensor)
        and target.shape == like.shape
        and not (target.is_floating_point() or target.is_complex())
    )
    weight_C = weights() if indices and weights is not None else None
    if not indices or (ignore_index is None and weight_C is None):
        return None if like.ndim == 1 else _numbers_of_elements(like)
    counted: Tensor | None = None if ignore_index is None else target != ignore_index
    if like.ndim == 1 and weight_C is None and target.is_cpu:
        # A look costs less there than going on with numbers that are all one.
        assert counted is not None
        if bool(counted.all()):
            return None
    if weight_C is None:
        assert counted is not None
        return counted.flatten(1).sum(1).float() if like.ndim > 1 else counted.float()
    index = target if counted is None else torch.where(counted, target, 0)
    weight: Tensor = weight_C.detach()[index]
    if counted is not None:
        weight = weight * counted
    return weight.flatten(1).sum(1) if like.ndim > 1 else weight


def of_batch(
    target: Any,
    *,
    ignore_index: int | None,
    weights: Callable[[], Tensor | None] | None,
) -> Tensor | None:
    """The same of a whole batch, shape (), whose loss is one mean; None where samples count one.

    That mean is torch's own, so only the losses that `class_weights` knows are asked.
    """
    if weights is None or not isinstance(target, Tensor):
        return None
    if target.is_floating_point():
        return None
    of_samples = of_elements(target, target, ignore_index=ignore_index, weights=weights)
    return None if of_samples is None else of_samples.sum()


def _numbers_of_elements(like: Tensor) -> Tensor:
    count = like[0].numel() if len(like) else 0
    return torch.full((len(like),), float(count), device=like.device)
