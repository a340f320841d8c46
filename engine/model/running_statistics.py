"""Running statistics of normalisation layers, applied at an update's end in order of micro-steps.

In training a layer normalises by its micro-batch alone; its running mean and variance are a
recurrence over micro-batches, which no two processes could compute at once. So each forward pass
leaves the statistics of its own micro-batch, which a momentum of 1 does, and the recurrence is made
of them once the update is whole: r ← (1 − m) r + m s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from epochal.data.errors import TargetError


@dataclass
class _Layer:
    """module: of the model. owned: its momentum, inside a forward pass.

    calls: of the update, in order: momentum, mean and variance of each.
    """

    module: _NormBase
    mean: Tensor
    variance: Tensor
    calls: list[tuple[float | None, Tensor, Tensor]] = field(default_factory=list)
    owned: float | None = None


class RunningStatistics:
    """Those of one model's layers, while an epoch trains."""

    def __init__(self, model: nn.Module) -> None:
        self._layers: list[_Layer] = []
        for name, module in model.named_modules():
            if isinstance(module, nn.SyncBatchNorm):
                raise TargetError(
                    f"gradients.shards: {name} is a SyncBatchNorm, which normalises over processes "
                    "and would make their number change the result; use BatchNorm or GroupNorm"
                )
            if isinstance(module, _NormBase) and module.running_mean is not None:
                assert module.running_var is not None
                self._layers.append(
                    _Layer(module, module.running_mean.clone(), module.running_var.clone())
                )

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Inside the block forward passes leave their own statistics."""
        handles = [
            handle
            for layer in self._layers
            for handle in (
                layer.module.register_forward_pre_hook(partial(_begin, layer)),
                layer.module.register_forward_hook(partial(_end, layer)),
            )
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def apply(self) -> None:
        """Makes the recurrence of the update's calls; the layers hold its end then."""
        for layer in self._layers:
            module, counted = layer.module, layer.module.num_batches_tracked
            assert module.running_mean is not None and module.running_var is not None  # noqa: PT018
            before = 0 if counted is None else int(counted) - len(layer.calls)
            for index, (momentum, mean, variance) in enumerate(layer.calls, start=1):
                factor = 1.0 / (before + index) if momentum is None else momentum
                layer.mean.mul_(1.0 - factor).add_(mean, alpha=factor)
                layer.variance.mul_(1.0 - factor).add_(variance, alpha=factor)
            layer.calls.clear()
            module.running_mean.copy_(layer.mean)
            module.running_var.copy_(layer.variance)


def _begin(layer: _Layer, module: Any, _: Any) -> None:
    layer.owned = module.momentum
    if module.training:
        module.momentum = 1.0


def _end(layer: _Layer, module: Any, _: Any, __: Any) -> None:
    module.momentum = layer.owned
    if module.training:
        layer.calls.append((layer.owned, module.running_mean.clone(), module.running_var.clone()))


@contextmanager
def in_order(model: nn.Module, *, dealt: bool) -> Iterator[Callable[[], None]]:
    """Gives a function that applies an update's statistics, for updates that are dealt to shards.

    Else it does nothing, and layers apply their own as they go.
    """
    if not dealt:
        yield lambda: None
        return
    statistics = RunningStatistics(model)
    with statistics.collected():
        yield statistics.apply
