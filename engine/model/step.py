"""A training step's forward half: from a model and a batch to losses, outputs, observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from epochal.data.errors import TargetError
from epochal.engine.model.batches import split_batch
from epochal.engine.model.build import Loss

# B samples of a micro-batch, C classes; … further dimensions

_TOTALS = ("loss", "total_loss", "total")
_OF_NUMBERS: tuple[type[nn.Module], ...] = (
    *(nn.BCEWithLogitsLoss, nn.BCELoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
    *(nn.MultiLabelSoftMarginLoss, nn.SoftMarginLoss, nn.PoissonNLLLoss),
)
_FUNCTIONS_OF_NUMBERS: frozenset[Any] = frozenset({
    *(functional.binary_cross_entropy_with_logits, functional.binary_cross_entropy),
    *(functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss, functional.huber_loss),
    *(functional.multilabel_soft_margin_loss, functional.soft_margin_loss),
    functional.poisson_nll_loss,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step gives.

    loss_B: one loss per sample, shape (B,); or one for the batch, shape ().
    outputs: the model's output, for metrics; logits of shape (B, C) give observations too.
    observations: columns of shape (B,) that replace those made from the logits: `confidence`,
    `p_true`, `margin`, `el2n`, `correct`, `label`.
    parts: name → tensor of shape () or (B,), of a loss with several terms: logged, not trained on.
    target: what the outputs are measured against; None: the batch's second part, or its `target`,
    `label` or `labels`.
    """

    loss_B: Tensor
    outputs: Any = None
    observations: Mapping[str, Tensor] | None = None
    target: Any = None
    parts: Mapping[str, Tensor] | None = None


class Step(Protocol):
    """The user's or the default step."""

    def __call__(self, model: nn.Module, batch: Any) -> StepOutput:
        """Forward pass and loss of one micro-batch, on the model's device."""


class DefaultStep:
    """`loss(model(input), target)`, a mean per sample where the loss has further dimensions."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._of_numbers = is_between_numbers(loss)

    def __call__(self, model: nn.Module, batch: Any) -> StepOutput:
        """batch: `(input, target)`, or a dict with `input` or `image`, `target` or `label`."""
        model_input, target = split_batch(batch)
        outputs = model(model_input)
        loss, parts = self.losses(outputs, target)
        return StepOutput(loss, outputs, target=target, parts=parts)

    def losses(self, outputs: Any, target: Any) -> tuple[Tensor, dict[str, Tensor] | None]:
        """The loss, per sample where it can be, and its parts if it has some."""
        if self._of_numbers:
            target = _as_numbers(target, outputs)
        result = self._loss.function(outputs, target)
        parts = None
        if isinstance(result, Mapping):
            loss, parts = _of_parts(result)
        else:
            loss = result
        if self._loss.per_sample and loss.ndim > 1:
            _check_shapes(loss, outputs, target)
            loss = _sample_means(loss, target, ignore_index=self._loss.ignore_index)
        return loss, parts


def is_between_numbers(loss: Loss) -> bool:
    """Whether its targets are numbers, not classes. torch refuses whole numbers as such targets."""
    function = getattr(loss.function, "func", loss.function)
    return isinstance(loss.module, _OF_NUMBERS) or function in _FUNCTIONS_OF_NUMBERS


def _as_numbers(target: Any, outputs: Any) -> Any:
    """Whole numbers and truth values as numbers of the outputs' type; anything else as it is."""
    if (
        isinstance(target, Tensor)
        and isinstance(outputs, Tensor)
        and not target.is_floating_point()
        and not target.is_complex()
    ):
        return target.to(outputs.dtype)
    return target


def _of_parts(named: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss that a dict stands for, and its parts; more dimensions than one are averaged."""
    for name, part in named.items():
        if not isinstance(part, Tensor):
            raise TargetError(
                f"loss: its part {name!r} is a {type(part).__name__}, expected a tensor of shape "
                "() or (B,)"
            )
    tensors = {
        name: part.flatten(1).mean(1) if part.ndim > 1 else part for name, part in named.items()
    }
    total = next((tensors.pop(name) for name in _TOTALS if name in tensors), None)
    if total is None:
        if not tensors:
            raise TargetError("loss: it returned an empty dict, expected named parts")
        total = reduce(torch.add, tensors.values())
    return total, tensors


def _check_shapes(loss: Tensor, outputs: Any, target: Any) -> None:
    # (B, 1) against (B,) is broadcast to (B, B): torch only warns, and every loss is wrong.
    shapes = [tuple(tensor.shape) for tensor in (outputs, target) if isinstance(tensor, Tensor)]
    if shapes and tuple(loss.shape) not in shapes:
        raise TargetError(
            f"loss: outputs of shape {shapes[0]} against targets of shape {shapes[-1]} give losses "
            f"of shape {tuple(loss.shape)}, of neither's shape; give both the same shape, by "
            "outputs.squeeze(-1) in the model or target.unsqueeze(-1) in the data set"
        )


def _sample_means(loss: Tensor, target: Any, *, ignore_index: int | None) -> Tensor:
    """(B, …) to (B,): the mean over a sample's elements, ignored targets left out."""
    flat = loss.flatten(1)
    if ignore_index is None or not isinstance(target, Tensor) or target.shape != loss.shape:
        return flat.mean(1)
    counted = (target != ignore_index).flatten(1).sum(1)
    return flat.sum(1) / counted.clamp(min=1)


def check_output(output: Any, *, num_samples: int) -> StepOutput:
    """`output`, if it is what a step gives for that many samples. Raises TargetError."""
    if not isinstance(output, StepOutput):
        raise TargetError(
            f"step: it returned a {type(output).__name__}, expected an epochal.engine.StepOutput"
        )
    shape = output.loss_B.shape
    if shape not in ((num_samples,), ()):
        raise TargetError(
            f"step: its loss has shape {tuple(shape)}, expected ({num_samples},), one for each "
            "sample, or () for the whole batch"
        )
    for name, part in output.parts.items() if output.parts else ():
        if tuple(part.shape) not in {(), (num_samples,)}:
            raise TargetError(
                f"step: the part {name!r} of its loss has shape {tuple(part.shape)}, expected "
                f"({num_samples},) or ()"
            )
    return output
