"""A micro-batch's part in its update: its share of the loss, and the gradients that it adds.

The mean over the update's samples is no node of the graph: the losses' gradients are given to the
backward pass, the same numbers as that node would give, and kept from step to step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.data.types import Batch

# B samples of a micro-batch

_HALF = {torch.float16, torch.bfloat16}
_KEPT = 64  # batches of as many sizes; more are made anew each time


class Shares:
    """The micro-batches of one epoch on one device. scaler: of float16 losses, or None."""

    def __init__(self, device: torch.device, scaler: torch.amp.GradScaler | None = None) -> None:
        self._device = device
        self._scaler = scaler
        self._kept: dict[tuple[torch.Size, int, torch.dtype], Tensor] = {}

    def backward(self, loss_B: Tensor, batch: Batch) -> Tensor:
        """Adds the micro-batch's gradients; gives its share of the update's loss, shape ().

        loss_B: shape (B,), or () for the batch. Shares of an update add up to the mean over its
        samples, and so do the gradients. Raises TargetError if the loss does not depend on the
        model.
        """
        if not loss_B.requires_grad:
            raise TargetError(
                "step: its loss does not depend on the model's parameters; was it detached, or are "
                "all of them frozen?"
            )
        if loss_B.dtype in _HALF:
            loss_B = loss_B.float()
        torch.autograd.backward(loss_B, self._gradient_of(loss_B, batch))
        return self.of(loss_B.detach(), batch)

    def of(self, value: Tensor, batch: Batch) -> Tensor:
        """The share, shape (), of a detached value of shape (B,) or ()."""
        num_samples = batch.window.num_samples
        if value.dtype in _HALF:
            value = value.float()
        if value.ndim == 0:
            assert batch.weights_B is None, "weights need one loss per sample"
            return value if num_samples == batch.num_samples else value * _part(batch)
        if batch.weights_B is not None:
            return (value * batch.weights_B.to(self._device)).sum() / num_samples
        return value.mean() if num_samples == batch.num_samples else value.sum() / num_samples

    def _gradient_of(self, loss_B: Tensor, batch: Batch) -> Tensor:
        """What the share's gradient by the losses is, of the same shape; times the scale."""
        place = (loss_B.shape, batch.window.num_samples, loss_B.dtype)
        fixed = self._scaler is None and batch.weights_B is None
        if fixed and place in self._kept:
            return self._kept[place]
        one = torch.ones((), dtype=loss_B.dtype, device=loss_B.device)
        if self._scaler is not None:
            one = self._scaler.scale(one)
        if loss_B.ndim == 0:
            return one if batch.window.num_samples == batch.num_samples else one * _part(batch)
        gradient_B = one.expand(loss_B.shape) / batch.window.num_samples
        if batch.weights_B is not None:
            gradient_B = gradient_B * batch.weights_B.to(self._device)
        if fixed and len(self._kept) < _KEPT:
            self._kept[place] = gradient_B
        return gradient_B


def _part(batch: Batch) -> float:
    return batch.num_samples / batch.window.num_samples
