"""The validation loop: one pass in evaluation mode, exact over the data set.

No files, no network, no clock. The model's weights and buffers are as before at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from epochal.data.types import Batch, seed_64
from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.measure.metrics import ValidationMetrics
from epochal.engine.measure.observe import Columns, Observer
from epochal.engine.model.precision import Precision
from epochal.engine.model.step import Step, StepOutput, check_output, target_of
from epochal.engine.randomness import borrowed_generators

# B samples of a batch


@dataclass(frozen=True)
class ValidationResult:
    """num_samples: that were measured. values: metric → value, the mean loss with them.

    matrices: name → confusion matrix, rows are true classes, where one was asked for.
    """

    num_samples: int
    values: Mapping[str, float]
    matrices: Mapping[str, list[list[int]]] = field(default_factory=dict)


def validate_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    step: Step,
    metrics: ValidationMetrics,
    seed: int = 0,
    precision: PrecisionConfig | None = None,
    forward: Callable[..., Any] | None = None,
    on_batch: Callable[[], None] | None = None,
) -> ValidationResult:
    """Measures `model` over all batches; every sample counts once, whatever the batch size.

    seed: of random numbers that the model may draw in evaluation mode. precision: none is float32.
    forward: called instead of the model, such as a compiled one that shares its weights. on_batch:
    called after each batch. The parts of a loss that has some are values too: `loss/<part>`.

    Raises TargetError for what a step or metric may not give.
    """
    device = next(model.parameters()).device
    measured = metrics.fresh()
    for metric in measured.values():
        if isinstance(metric, nn.Module):
            metric.to(device)
    losses: list[Tensor] = []
    parts: dict[str, list[Tensor]] = {}
    sizes: list[int] = []
    values: dict[str, float] = {}

    def take(batch: Batch, output: StepOutput, target: Any) -> None:
        losses.append(output.loss_B)
        for name, part in (output.parts or {}).items():
            parts.setdefault(name, []).append(part)
        sizes.append(batch.num_samples)
        for metric in measured.values():
            metric.update(output.outputs, target)

    def end() -> None:
        values.update(metrics.values(measured, loss=_mean_loss(losses, sizes)))
        values.update({f"loss/{name}": _mean_loss(part, sizes) for name, part in parts.items()})

    evaluate(
        model,
        batches,
        take,
        step=step,
        seed=seed_64(seed, "validate"),
        precision=precision,
        forward=forward,
        on_batch=on_batch,
        end=end,
    )
    return ValidationResult(
        num_samples=sum(sizes), values=values, matrices=metrics.matrices(measured)
    )


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    take: Callable[[Batch, StepOutput, Any], None],
    *,
    step: Step,
    seed: int,
    precision: PrecisionConfig | None = None,
    forward: Callable[..., Any] | None = None,
    on_batch: Callable[[], None] | None = None,
    end: Callable[[], None] = lambda: None,
) -> None:
    """One pass in evaluation mode without gradients: `take` gets each batch, output and target.

    end: called after the last batch, while nothing is recorded for gradients. Others as in
    `validate_epoch`. Leaves model and generators as they were.
    """
    device = next(model.parameters()).device
    how = Precision(precision or PrecisionConfig(), device)
    called: Any = model if forward is None else forward
    was_training = model.training
    model.eval()
    try:
        with borrowed_generators(device) as reseed, torch.inference_mode():
            reseed(seed)
            for batch in batches:
                data = how.place(batch.data)
                with how.autocast():
                    output = check_output(step(called, data), num_samples=batch.num_samples)
                take(batch, output, target_of(data) if output.target is None else output.target)
                if on_batch is not None:
                    on_batch()
            end()
    finally:
        model.train(was_training)


def _mean_loss(losses: list[Tensor], sizes: list[int]) -> float:
    """Over the samples, in float64; a loss per batch counts by the batch's size."""
    total = sum(sizes)
    if not total:
        return math.nan
    if all(loss.ndim for loss in losses):
        return float(torch.cat(losses).double().mean())
    return (
        math.fsum(
            float(loss.double().mean()) * size for loss, size in zip(losses, sizes, strict=True)
        )
        / total
    )


def score_samples(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    step: Step,
    seed: int = 0,
    precision: PrecisionConfig | None = None,
    forward: Callable[..., Any] | None = None,
    on_batch: Callable[[], None] | None = None,
) -> Columns:
    """The columns of `data.tables.schemas.OBSERVATIONS` of all samples, in the batches' order.

    Arguments as those of `engine.loop.evaluate.validate_epoch`. Raises TargetError for what a
    step may not give.
    """
    observer = Observer()
    found: Columns = {}

    def take(batch: Batch, output: StepOutput, target: Any) -> None:
        observer.take(batch.sample_ids_B, output, target)

    def end() -> None:
        found.update(observer.columns())

    evaluate(
        model,
        batches,
        take,
        step=step,
        seed=seed,
        precision=precision,
        forward=forward,
        on_batch=on_batch,
        end=end,
    )
    return found
