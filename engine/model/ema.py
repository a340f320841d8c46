"""An exponential moving average of the weights, taken in after each optimizer step.

    average ← average + (1 − d) (weights − average),    d = min(decay, (1 + n) / (10 + n))

n counts the updates of the run, so d has no state of its own; the second term of `min` is the
warm-up of TensorFlow's `tf.train.ExponentialMovingAverage`, without which the average would be
mostly initial weights for some 1 / (1 − decay) updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from epochal.data.errors import TargetError
from epochal.engine.config.numerics import EmaConfig


class WeightAverage:
    """The average of a model's `state_dict`; what is no floating-point number in it is copied.

    tensors: name → the average, on the model's device. Tied weights share one.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self._model = model
        self._config = config
        self.tensors: dict[str, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Starts anew from the model's weights as they are. Raises TargetError for no tensors."""
        copies: dict[int, Tensor] = {}
        self.tensors = {}
        for name, tensor in self._model.state_dict().items():
            if not isinstance(tensor, Tensor):
                raise TargetError(
                    f"ema: {name} of the model's state_dict is a {type(tensor).__name__}, of which "
                    "there is no average; let get_extra_state() return a tensor, or leave `ema` out"
                )
            place = tensor.data_ptr()
            if place not in copies or copies[place].shape != tensor.shape:
                copies[place] = tensor.detach().clone()
            self.tensors[name] = copies[place]

    def decay(self, updates_done: int) -> float:
        """The share of the average that stays at that update of the run, counted from 1."""
        if not self._config.warm_up:
            return self._config.decay
        return min(self._config.decay, (1 + updates_done) / (10 + updates_done))

    @torch.no_grad()
    def update(self, updates_done: int) -> None:
        """Takes the model's weights in, after the optimizer's step number `updates_done`."""
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        seen: set[int] = set()
        for name, tensor in self._model.state_dict().items():
            average = self.tensors[name]
            if id(average) in seen:
                continue  # tied
            seen.add(id(average))
            if average.is_floating_point() or average.is_complex():
                averages.append(average)
                weights.append(tensor)
            else:
                average.copy_(tensor)
        torch._foreach_lerp_(averages, weights, 1.0 - self.decay(updates_done))

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Gives the model the average as its weights."""
        for name, tensor in self._model.state_dict().items():
            tensor.copy_(self.tensors[name])

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """Inside the block the model has the average as its weights, after it its own again."""
        own = {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()}
        self.copy_to_model()
        try:
            yield self._model
        finally:
            with torch.no_grad():
                for name, tensor in self._model.state_dict().items():
                    tensor.copy_(own[name])
