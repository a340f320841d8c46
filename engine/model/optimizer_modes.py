"""Optimizers that train other weights than those they give: Schedule-Free ones and their like.

Such an optimizer has `train()` and `eval()`, which put the model's weights into the form for the
next update, or for evaluation and checkpoints (Defazio et al. 2024, arXiv:2405.15682). An epoch
begins with the one and ends with the other, so a checkpoint holds the weights to be used. All other
optimizers have no modes, and nothing is done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from epochal.engine.model.state import TrainingState


def has_modes(optimizer: Optimizer) -> bool:
    """Whether the optimizer has `train()` and `eval()`."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def to_train(optimizer: Optimizer) -> None:
    """The weights become those that are trained; nothing if they are already."""
    if has_modes(optimizer):
        _modes(optimizer).train()


def to_evaluate(optimizer: Optimizer) -> None:
    """The weights become those to be used; nothing if they are already."""
    if has_modes(optimizer):
        _modes(optimizer).eval()


@contextmanager
def evaluation_weights(state: TrainingState) -> Iterator[None]:
    """Inside the block, between two updates, the model has the weights to be used.

    After it the trained ones are there again bit by bit, which the modes alone would round.
    """
    if not has_modes(state.optimizer):
        yield
        return
    parameters: list[Tensor] = list(state.named_parameters().values())
    trained = [parameter.detach().clone() for parameter in parameters]
    to_evaluate(state.optimizer)
    try:
        yield
    finally:
        to_train(state.optimizer)
        with torch.no_grad():
            torch._foreach_copy_(parameters, trained)


def _modes(optimizer: Optimizer) -> Any:
    return optimizer
