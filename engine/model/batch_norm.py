"""BatchNorm's momentum inside an epoch: set at each micro-step, given back at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from epochal.data.errors import TargetError


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers with a momentum; `momentum: None` is a plain average, which has none."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and module.momentum is not None
    ]


def check_batch_norm(model: nn.Module) -> None:
    """Raises TargetError if there is no momentum to change."""
    if not batch_norms(model):
        raise TargetError(
            f"batch_norm: {type(model).__name__} has no BatchNorm layer with running statistics "
            "and a momentum; leave `batch_norm` out"
        )


@contextmanager
def annealed(
    model: nn.Module, momentum: Callable[[float, float], float] | None
) -> Iterator[Callable[[float], None]]:
    """Gives a function that sets every layer's momentum for a fractional epoch.

    momentum: (fractional epoch, the layer's own momentum) → its momentum then; None: its own. At
    exit each layer has its own again.
    """
    layers = [] if momentum is None else batch_norms(model)
    owns = [float(layer.momentum or 0.0) for layer in layers]

    def set_momentum(t: float) -> None:
        for layer, own in zip(layers, owns, strict=True):
            assert momentum is not None
            layer.momentum = momentum(t, own)

    try:
        yield set_momentum
    finally:
        for layer, own in zip(layers, owns, strict=True):
            layer.momentum = own
