"""A micro-batch's part in its update: its share of the loss, and the gradients that it adds.

An update's loss is the mean over its samples. Autograd never computes that mean: the weight of each
loss in it is given to the backward pass as the gradient of that loss, which is the number that the
mean's own backward pass would give. Weights are kept from step to step; their product with the
losses is the micro-batch's share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.data.types import Batch

# B samples of a micro-batch

_HALF = {torch.float16, torch.bfloat16}
_KEPT = 64  # batches of as many sizes; more are made anew each time


class LossWeights:
    """What losses count in their updates, on one device. scaler: of float16 losses, or None."""

    def __init__(self, device: torch.device, scaler: torch.amp.GradScaler | None = None) -> None:
        self._device = device
        self._scaler = scaler
        self._kept: dict[tuple[torch.Size, int, int, torch.dtype], Tensor] = {}

    def backward(self, loss_B: Tensor, batch: Batch) -> Tensor:
        """Adds the micro-batch's gradients; gives its share of the update's loss, shape ().

        loss_B: shape (B,), or () for the batch. Shares of an update add up to the mean over
        its samples, and so do the gradients. Raises TargetError if the loss does not depend on the
        model.
        """
        if not loss_B.requires_grad:
            raise TargetError(
                "step: its loss does not depend on the model's parameters; was it detached, or are "
                "all of them frozen?"
            )
        if loss_B.dtype in _HALF:
            loss_B = loss_B.float()
        part_B = self._part_of(loss_B, batch)
        torch.autograd.backward(
            loss_B, part_B if self._scaler is None else self._scaler.scale(part_B)
        )
        return _product(loss_B.detach(), part_B)

    def of(self, value: Tensor, batch: Batch) -> Tensor:
        """The share, shape (), of a detached value of shape (B,) or (); whole numbers count too."""
        if value.dtype in _HALF or not value.is_floating_point():
            value = value.float()
        return _product(value, self._part_of(value, batch))

    def _part_of(self, value: Tensor, batch: Batch) -> Tensor:
        """What each of the numbers counts in the update, of the same shape."""
        place = (value.shape, batch.num_samples, batch.window.num_samples, value.dtype)
        if batch.weights_B is None and place in self._kept:
            return self._kept[place]
        assert value.ndim or batch.weights_B is None, "weights need one loss per sample"
        counts = batch.num_samples if value.ndim == 0 else 1
        part = torch.full_like(value, counts / batch.window.num_samples)
        if batch.weights_B is not None:
            return part * batch.weights_B.to(self._device)
        if len(self._kept) < _KEPT:
            self._kept[place] = part
        return part


def _product(value: Tensor, part: Tensor) -> Tensor:
    return torch.dot(value, part) if value.ndim else value * part
