"""A training step's forward half: from a model and a batch to losses, outputs, observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from epochal.data.errors import TargetError
from epochal.engine.model.batches import split_batch
from epochal.engine.model.build import Loss
from epochal.engine.model.denominators import of_batch, of_elements

# B samples of a micro-batch, C classes; … further dimensions

_TOTALS = ("loss", "total_loss", "total")
_OF_NUMBERS: tuple[type[nn.Module], ...] = (
    *(nn.BCEWithLogitsLoss, nn.BCELoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
    *(nn.MultiLabelSoftMarginLoss, nn.SoftMarginLoss, nn.PoissonNLLLoss),
)
_FUNCTIONS_OF_NUMBERS: tuple[Any, ...] = (
    *(functional.binary_cross_entropy_with_logits, functional.binary_cross_entropy),
    *(functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss, functional.huber_loss),
    *(functional.multilabel_soft_margin_loss, functional.soft_margin_loss),
    functional.poisson_nll_loss,
)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step gives.

    loss_B: one loss per sample, shape (B,); or one for the batch, shape (), the mean over it.
    outputs: the model's output, for metrics; logits of shape (B, C) give observations too.
    observations: columns of shape (B,) that replace those made from the logits: `confidence`,
    `p_true`, `margin`, `el2n`, `correct`, `label`.
    parts: name → tensor of shape () or (B,), of a loss with several terms: logged, not trained on.
    target: what the outputs are measured against; None: the batch's second part, or its `target`,
    `label` or `labels`.
    denominator_B: of the shape of loss_B, for a mean over other things than samples, such as
    tokens. loss_B then has sums, of which this says over how much; the update's loss is the sum of
    loss_B divided by the sum of denominator_B over all of its samples, and a sample's own loss is
    loss_B / denominator_B. So have parts of shape (B,) sums. None: each sample counts one.
    """

    loss_B: Tensor
    outputs: Any = None
    observations: Mapping[str, Tensor] | None = None
    target: Any = None
    parts: Mapping[str, Tensor] | None = None
    denominator_B: Tensor | None = None


class Step(Protocol):
    """The user's or the default step."""

    def __call__(self, model: nn.Module, batch: Any) -> StepOutput:
        """Forward pass and loss of one micro-batch, on the model's device."""


class Losses(NamedTuple):
    """What a loss gave, in the form of `StepOutput`."""

    loss_B: Tensor
    denominator_B: Tensor | None
    parts: dict[str, Tensor] | None


class DefaultStep:
    """`loss(model(input), target)`, whose mean over an update is the one that torch defines."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._of_numbers = is_between_numbers(loss)

    @property
    def ignore_index(self) -> int | None:
        """Targets that count nothing, neither in the loss nor in what is measured."""
        return self._loss.ignore_index

    @property
    def made_loss(self) -> Any:
        """The loss itself, an object or a function, which may hold state."""
        return self._loss.made if self._loss.module is None else self._loss.module

    def __call__(self, model: nn.Module, batch: Any) -> StepOutput:
        """batch: `(input, target)`, or a dict with `input` or `image`, `target` or `label`."""
        model_input, target = split_batch(batch)
        outputs = model(model_input)
        losses = self.losses(outputs, target)
        return StepOutput(
            losses.loss_B,
            outputs,
            target=target,
            parts=losses.parts,
            denominator_B=losses.denominator_B,
        )

    def losses(self, outputs: Any, target: Any) -> Losses:
        """The loss, per sample where it can be, what its mean divides by, and its parts."""
        if self._of_numbers:
            target = _as_numbers(target, outputs)
        result = self._loss.function(outputs, target)
        parts = None
        if isinstance(result, Mapping):
            loss, parts = _of_parts(result)
        else:
            loss = result
        if not self._loss.per_sample:
            return self._whole_mean(loss, target, parts)
        if loss.ndim > 1:
            _check_shapes(loss, outputs, target)
        denominator_B = None if parts is not None else self.denominators(target, loss)
        if loss.ndim > 1:
            loss = _wide(loss).flatten(1).sum(1)
        if self._loss.per_sample_sum:
            denominator_B = None
        return Losses(loss, denominator_B, parts)

    def denominators(self, target: Any, loss: Tensor) -> Tensor | None:
        """What samples add to the denominator of that loss, shape (B,) or (B, …), or None."""
        if loss.ndim == 0:
            return None
        return of_elements(
            target, loss, ignore_index=self._loss.ignore_index, weights=self._loss.class_weights
        )

    def _whole_mean(self, loss: Any, target: Any, parts: dict[str, Tensor] | None) -> Losses:
        if parts is not None or not isinstance(loss, Tensor) or loss.ndim:
            return Losses(loss, None, parts)
        denominator = of_batch(
            target, ignore_index=self._loss.ignore_index, weights=self._loss.class_weights
        )
        if denominator is None:
            return Losses(loss, None, parts)
        # Of nothing that counts the mean is 0 / 0: here, as per sample, its loss is 0.
        loss = torch.where(denominator == 0, torch.zeros_like(loss), loss)
        return Losses(loss * denominator, denominator, parts)


def is_between_numbers(loss: Loss) -> bool:
    """Whether its targets are numbers, not classes. torch refuses whole numbers as such targets."""
    function = getattr(loss.function, "func", loss.function)
    return isinstance(loss.module, _OF_NUMBERS) or any(
        function is one for one in _FUNCTIONS_OF_NUMBERS
    )


def as_target(loss: Loss, target: Any, outputs: Any) -> Any:
    """The target as that loss is given it."""
    return _as_numbers(target, outputs) if is_between_numbers(loss) else target


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
    without_classes = [shape[:1] + shape[2:] for shape in shapes[:1]]
    if shapes and tuple(loss.shape) not in shapes + without_classes:
        raise TargetError(
            f"loss: outputs of shape {shapes[0]} against targets of shape {shapes[-1]} give losses "
            f"of shape {tuple(loss.shape)}, of neither's shape; give both the same shape, by "
            "outputs.squeeze(-1) in the model or target.unsqueeze(-1) in the data set"
        )


def _wide(loss: Tensor) -> Tensor:
    """For sums: half precision holds no sum of a thousand elements."""
    return loss.float() if loss.dtype in {torch.float16, torch.bfloat16} else loss


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
    denominator_B = output.denominator_B
    if denominator_B is not None and denominator_B.shape != shape:
        raise TargetError(
            f"step: denominator_B has shape {tuple(denominator_B.shape)}, expected that of loss_B, "
            f"{tuple(shape)}"
        )
    for name, part in output.parts.items() if output.parts else ():
        if tuple(part.shape) not in {(), (num_samples,)}:
            raise TargetError(
                f"step: the part {name!r} of its loss has shape {tuple(part.shape)}, expected "
                f"({num_samples},) or ()"
            )
    return output
