"""A micro-batch's part in its update: its share of the loss, and the gradients that it adds.

An update's loss is the mean that its loss defines over all of its samples: a sum of numerators
divided by a sum of denominators, each sample's denominator being one, or what the step says (the
number of its tokens, the weight of its class). Autograd never computes that mean: the weight of
each loss in it is given to the backward pass as the gradient of that loss, which is the number that
the mean's own backward pass would give.

The sum of denominators is known when the last micro-batch of an update has been seen. Until then
losses are divided by an estimate, the first micro-batch's denominators scaled to the whole update;
at the end everything is multiplied by estimate / sum. Where each sample counts one, and where an
update is one micro-batch, the two are equal and nothing is multiplied.

Of an update in which nothing counts the mean is 0 / 0; its loss and its gradients are 0 here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.data.types import Batch, Window
from epochal.engine.model.step import StepOutput

# B samples of a micro-batch

_HALF = {torch.float16, torch.bfloat16}
_KEPT = 64  # batches of as many sizes; more are made anew each time

Sum = float | Tensor
"""Of denominators: a number, or a tensor of shape () on a device that is not to be waited for."""


class LossWeights:
    """What losses count in their updates, on one device. scaler: of float16 losses, or None.

    dealt: whether an update is dealt to shards. None of them knows the first micro-batch then: the
    estimate is the number of samples.
    """

    def __init__(
        self,
        device: torch.device,
        scaler: torch.amp.GradScaler | None = None,
        *,
        dealt: bool = False,
    ) -> None:
        self._dealt = dealt
        self._device = device
        self._on_host = reads_at_once(device)
        self._scaler = scaler
        self._kept: dict[tuple[torch.Size, int, int, torch.dtype], Tensor] = {}
        self._estimate: Sum | None = None
        self._sum: Sum = 0.0
        self._added: list[Sum] = []
        self._exact = True
        """Whether the estimate is the sum without a look at them."""

    def backward(self, output: StepOutput, batch: Batch) -> Tensor:
        """Adds the micro-batch's gradients; gives its share of the update's loss, shape ().

        Shares of an update add up to its loss, and so do the gradients, once both were multiplied
        by what `end` gives. Raises TargetError if the loss does not depend on the model.
        """
        loss_B = output.loss_B
        if not loss_B.requires_grad:
            raise TargetError(
                "step: its loss does not depend on the model's parameters; was it detached, or are "
                "all of them frozen?"
            )
        if loss_B.dtype in _HALF:
            loss_B = loss_B.float()
        self._take(output.denominator_B, batch)
        part_B = self._part_of(loss_B, output, batch)
        torch.autograd.backward(
            loss_B, part_B if self._scaler is None else self._scaler.scale(part_B)
        )
        return _product(loss_B.detach(), part_B)

    def of(self, value: Tensor, output: StepOutput, batch: Batch) -> Tensor:
        """The share, shape (), of a detached value of shape (B,) or (); whole numbers count too.

        Of the micro-batch that was given to `backward` last.
        """
        if value.dtype in _HALF or not value.is_floating_point():
            value = value.float()
        if output.denominator_B is not None and value.ndim != output.loss_B.ndim:
            # One number for the batch beside sums: it counts as its batch does.
            share = output.denominator_B.detach().sum() / self._known_estimate
            return value.mean() * share.to(value.dtype)
        return _product(value, self._part_of(value, output, batch))

    def end(self) -> Sum | None:
        """Ends the update; the factor by which its shares and gradients are wrong, or None."""
        estimate, total, exact = self._known_estimate, self._sum, self._exact
        self._estimate, self._sum, self._exact, self._added = None, 0.0, True, []
        if isinstance(estimate, Tensor) or isinstance(total, Tensor):
            if exact:
                return None
            total = self._as_tensor(total)
            return torch.where(total == 0, torch.ones_like(total), estimate / total)
        return None if total in {estimate, 0.0} else estimate / total

    @property
    def added(self) -> tuple[list[Tensor], bool]:
        """What each micro-batch of the update has added to the sum, float64 of shape ().

        And whether they all counted their samples alone.
        """
        return [self._as_tensor(one) for one in self._added], self._exact

    def take_all(self, added: Sequence[Tensor], *, exact: bool, window: Window) -> None:
        """What all processes have added, in order of micro-steps, in place of this one's."""
        self._estimate, self._sum, self._exact = float(window.num_samples), 0.0, exact
        for one in added:
            self._sum = self._sum + (one.item() if self._on_host else one)

    def state(self) -> tuple[float, float] | None:
        """Estimate and sum so far of the update under way, or None; waits for the device."""
        if self._estimate is None:
            return None
        return float(self._estimate), float(self._sum)

    def restore(self, state: tuple[float, float] | None) -> None:
        """Goes on from what `state` gave."""
        if state is None:
            return
        self._estimate, self._sum = state
        self._exact = False
        if not self._on_host:
            self._estimate = self._as_tensor(self._estimate)

    @property
    def _known_estimate(self) -> Sum:
        assert self._estimate is not None, "no micro-batch was given yet"
        return self._estimate

    def _take(self, denominator_B: Tensor | None, batch: Batch) -> None:
        """Adds the micro-batch's denominators to the sum."""
        added: Sum = float(batch.num_samples)
        if denominator_B is not None:
            summed = denominator_B.detach().sum(dtype=self._wide)
            added = summed.item() if self._on_host else summed
        if self._estimate is None:
            scale = batch.window.num_samples / batch.num_samples
            whole = float(batch.window.num_samples)
            if denominator_B is None or self._dealt:
                self._estimate = whole
            elif isinstance(added, Tensor):
                self._estimate = torch.where(added == 0, whole, added * scale)
            else:
                self._estimate = added * scale if added else whole
            self._exact = denominator_B is None or (batch.window.last and not self._dealt)
        else:
            self._exact = self._exact and denominator_B is None
        self._sum = self._sum + added
        if self._dealt:
            self._added.append(added)

    def _part_of(self, value: Tensor, output: StepOutput, batch: Batch) -> Tensor:
        """What each of the numbers counts in the update, of the same shape."""
        estimate = self._known_estimate
        assert value.ndim or batch.weights_B is None, "weights need one loss per sample"
        counts = 1
        if value.ndim == 0 and output.denominator_B is None:
            counts = batch.num_samples
        if isinstance(estimate, Tensor):
            part = (counts / estimate).to(value.dtype).expand(value.shape).contiguous()
        else:
            part = self._filled(value, counts, estimate, batch)
        return part if batch.weights_B is None else part * batch.weights_B.to(self._device)

    def _filled(self, value: Tensor, counts: int, estimate: float, batch: Batch) -> Tensor:
        if estimate != batch.window.num_samples:
            return torch.full_like(value, counts / estimate)
        place = (value.shape, counts, batch.window.num_samples, value.dtype)
        part = self._kept.get(place)
        if part is None:
            part = torch.full_like(value, counts / estimate)
            if len(self._kept) < _KEPT:
                self._kept[place] = part
        return part

    @property
    def _wide(self) -> torch.dtype:
        return torch.float32 if self._device.type == "mps" else torch.float64

    def _as_tensor(self, number: Sum) -> Tensor:
        if isinstance(number, Tensor):
            return number
        return torch.tensor(number, dtype=self._wide, device=self._device)


def reads_at_once(device: torch.device) -> bool:
    """Whether a number is read from there without waiting."""
    return device.type == "cpu"


def _product(value: Tensor, part: Tensor) -> Tensor:
    return torch.dot(value, part) if value.ndim else value * part
