"""Running statistics of normalisation layers, applied at an update's end in order of micro-steps.

In training a layer normalises by its micro-batch alone; its running mean and variance are a
recurrence over micro-batches, which no two processes could compute at once. So each forward pass
leaves the statistics of its own micro-batch, which a momentum of 1 does, and the recurrence is made
of them once the update is whole: r ← (1 − m) r + m s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    calls: of the update, in order: momentum, mean and variance of each. counted: calls of all
    updates so far.
    """

    module: _NormBase
    mean: Tensor
    variance: Tensor
    counted: int = 0
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
                tracked = module.num_batches_tracked
                self._layers.append(
                    _Layer(
                        module,
                        module.running_mean.clone(),
                        module.running_var.clone(),
                        counted=0 if tracked is None else int(tracked),
                    )
                )

    @property
    def buffers(self) -> set[int]:
        """Which buffers are theirs, by `id`."""
        found = set()
        for layer in self._layers:
            module = layer.module
            for one in (module.running_mean, module.running_var, module.num_batches_tracked):
                found.add(id(one))
        return found

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

    def take(self) -> tuple[list[int], list[Tensor]]:
        """Of the last micro-batch: how many calls each layer had, and their numbers.

        They are not applied unless `take_all` gets them.
        """
        tensors: list[Tensor] = []
        for layer in self._layers:
            for _, mean, variance in layer.calls:
                tensors += [mean, variance]
        counts = [len(layer.calls) for layer in self._layers]
        for layer in self._layers:
            layer.calls.clear()
        return counts, tensors

    def take_all(self, given: Sequence[tuple[Sequence[int], Sequence[Tensor]]]) -> None:
        """The calls of each micro-batch of all processes, in order; one momentum for all."""
        for counts, tensors in given:
            rest = iter(tensors)
            for layer, count in zip(self._layers, counts, strict=True):
                momentum = layer.module.momentum
                layer.calls += [(momentum, next(rest), next(rest)) for _ in range(count)]

    @torch.no_grad()
    def apply(self) -> None:
        """Makes the recurrence of the update's calls; the layers hold its end then."""
        for turn in range(max((len(layer.calls) for layer in self._layers), default=0)):
            self._take_turn(turn)
        for layer in self._layers:
            module = layer.module
            assert module.running_mean is not None and module.running_var is not None  # noqa: PT018
            layer.calls.clear()
            module.running_mean.copy_(layer.mean)
            module.running_var.copy_(layer.variance)
            if module.num_batches_tracked is not None:
                module.num_batches_tracked.fill_(layer.counted)

    def _take_turn(self, turn: int) -> None:
        """The call of that place of each layer that has one, for all layers at once."""
        held: dict[float, list[Tensor]] = {}
        found: dict[float, list[Tensor]] = {}
        for layer in self._layers:
            if turn < len(layer.calls):
                momentum, mean, variance = layer.calls[turn]
                layer.counted += 1
                factor = 1.0 / layer.counted if momentum is None else momentum
                held.setdefault(factor, []).extend((layer.mean, layer.variance))
                found.setdefault(factor, []).extend((mean, variance))
        for factor, running in held.items():
            torch._foreach_mul_(running, 1.0 - factor)
            torch._foreach_add_(running, found[factor], alpha=factor)


def _begin(layer: _Layer, module: Any, _: Any) -> None:
    layer.owned = module.momentum
    if module.training:
        module.momentum = 1.0


def _end(layer: _Layer, module: Any, _: Any, __: Any) -> None:
    module.momentum = layer.owned
    if module.training:
        layer.calls.append((layer.owned, module.running_mean.clone(), module.running_var.clone()))


@contextmanager
def in_order(model: nn.Module, *, dealt: bool) -> Iterator[RunningStatistics | None]:
    """Those that are to be applied at an update's end, where updates are dealt to shards.

    Else None: layers apply their own as they go.
    """
    if not dealt:
        yield None
        return
    statistics = RunningStatistics(model)
    with statistics.collected():
        yield statistics
