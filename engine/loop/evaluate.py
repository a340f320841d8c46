"""The validation loop: one pass in evaluation mode, exact over the data set.

No files, no network, no clock. The model's weights and buffers are as before at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from epochal.data.types import Batch, seed_64
from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.measure.metrics import ValidationMetrics
from epochal.engine.measure.observe import Columns, Observer
from epochal.engine.model.batches import target_of
from epochal.engine.model.precision import Precision
from epochal.engine.model.step import Step, StepOutput, check_output
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
    measured = metrics.fresh()
    device = next(model.parameters()).device
    for metric in measured.values():
        if isinstance(metric, nn.Module):
            metric.to(device)
    losses: list[Tensor] = []
    parts: dict[str, list[Tensor]] = {}
    sizes: list[int] = []
    seed = seed_64(seed, "validate")
    with evaluating(model, step, seed=seed, precision=precision, forward=forward) as output_of:
        for batch in batches:
            output = output_of(batch)
            losses.append(output.loss_B)
            for name, part in (output.parts or {}).items():
                parts.setdefault(name, []).append(part)
            sizes.append(batch.num_samples)
            for metric in measured.values():
                metric.update(output.outputs, output.target)
            if on_batch is not None:
                on_batch()
        values = metrics.values(measured, loss=_mean_loss(losses, sizes))
        values |= {f"loss/{name}": _mean_loss(part, sizes) for name, part in parts.items()}
    return ValidationResult(
        num_samples=sum(sizes), values=values, matrices=metrics.matrices(measured)
    )


@contextmanager
def evaluating(
    model: nn.Module,
    step: Step,
    *,
    seed: int,
    precision: PrecisionConfig | None,
    forward: Callable[..., Any] | None,
) -> Iterator[Callable[[Batch], StepOutput]]:
    """Gives a function from a batch to its output, with the target filled in.

    Inside the block the model is in evaluation mode and nothing is recorded for gradients; after it
    model and generators are as before.
    """
    device = next(model.parameters()).device
    placement = Precision(precision or PrecisionConfig(), device)
    called: Any = model if forward is None else forward

    def output_of(batch: Batch) -> StepOutput:
        data = placement.place(batch.data)
        with placement.autocast():
            output = check_output(step(called, data), num_samples=batch.num_samples)
        return output if output.target is not None else replace(output, target=target_of(data))

    was_training = model.training
    model.eval()
    try:
        with borrowed_generators(device) as reseed, torch.inference_mode():
            reseed(seed)
            yield output_of
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

    Arguments as those of `validate_epoch`. Raises TargetError for what a step may not give.
    """
    observer = Observer()
    with evaluating(model, step, seed=seed, precision=precision, forward=forward) as output_of:
        for batch in batches:
            output = output_of(batch)
            observer.take(batch.sample_ids_B, output, output.target)
            if on_batch is not None:
                on_batch()
        return observer.columns()
