"""The validation loop: one pass in evaluation mode, exact over the data set.

No files, no network, no clock. Buffers of model, loss and step are as before at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from epochal.data.types import Batch, seed_64
from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.loop.restored import restored
from epochal.engine.measure.metrics import ValidationMetrics
from epochal.engine.measure.observe import Columns, Observer
from epochal.engine.model.batches import target_of
from epochal.engine.model.precision import Precision
from epochal.engine.model.step import Step, StepOutput, check_output
from epochal.engine.randomness import borrowed_generators, seeded
from epochal.engine.shards.group import Group
from epochal.engine.shards.rounds import in_rounds, undrawn

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
    group: Group | None = None,
) -> ValidationResult:
    """Measures `model` over all batches; every sample counts once, whatever the batch size.

    seed: of random numbers that the model may draw in evaluation mode. precision: none is float32.
    forward: called instead of the model, such as a compiled one that shares its weights. on_batch:
    called after each batch. The parts of a loss that has some are values too: `loss/<part>`. group:
    of processes that have every so many-th batch; the first of them measures, in the order of the
    batches, and the others give it what a step gives.

    Raises TargetError for what a step or metric may not give.
    """
    measures = group is None or group.first
    seed = seed_64(seed, "validate")
    with seeded(seed):  # a metric may draw where it is made
        measured = metrics.fresh(ignore_index=getattr(step, "ignore_index", None))
    device = next(model.parameters()).device
    for metric in measured.values():
        if isinstance(metric, nn.Module):
            metric.to(device)
    mean_loss = _Mean()
    parts: dict[str, _Mean] = {}
    num_samples = 0
    with evaluating(
        model, step, seed=seed, precision=precision, forward=forward, group=group
    ) as output_of:
        for outputs in in_rounds(batches, output_of, group):
            for output, count in outputs:
                mean_loss.take(output.loss_B, output.denominator_B, count=count)
                for name, part in (output.parts or {}).items():
                    sums = output.denominator_B if part.ndim == output.loss_B.ndim else None
                    parts.setdefault(name, _Mean()).take(part, sums, count=count)
                num_samples += count
                for metric in measured.values():
                    metric.update(output.outputs, output.target)
            if on_batch is not None:
                on_batch()
        if not measures:
            return ValidationResult(num_samples=0, values={})
        values = metrics.values(measured, loss=mean_loss.value())
        values |= {f"loss/{name}": mean.value() for name, mean in parts.items()}
    return ValidationResult(
        num_samples=num_samples, values=values, matrices=metrics.matrices(measured)
    )


@contextmanager
def evaluating(
    model: nn.Module,
    step: Step,
    *,
    seed: int,
    precision: PrecisionConfig | None,
    forward: Callable[..., Any] | None,
    group: Group | None = None,
) -> Iterator[Callable[[Batch], StepOutput]]:
    """Gives a function from a batch to its output, with the target filled in.

    Inside the block the model is in evaluation mode and nothing is recorded for gradients; after it
    model, loss, step and generators are as before, whatever they count or keep in buffers.
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
        with (
            restored(model, step),
            borrowed_generators(device) as reseed,
            _without_gradients(group),
        ):
            reseed(seed)
            yield output_of
    finally:
        model.train(was_training)


def _without_gradients(group: Group | None) -> AbstractContextManager[Any]:
    """A model in slices keeps memory for what is gathered, which training writes to as well."""
    in_slices = group is not None and group.model is not None
    return torch.no_grad() if in_slices else torch.inference_mode()


class _Mean:
    """A mean loss over batches, as the loss defines it, in float64; reads the device at the end."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._denominators: list[Tensor | None] = []
        self._counts: list[int] = []

    def take(self, loss_B: Tensor, denominator_B: Tensor | None, *, count: int) -> None:
        """count: samples of the batch, by which a loss of shape () counts that is a mean itself."""
        self._losses.append(loss_B)
        self._denominators.append(denominator_B)
        self._counts.append(count)

    def value(self) -> float:
        """NaN where nothing counted."""
        if not sum(self._counts):
            return math.nan
        plain = all(denominator is None for denominator in self._denominators)
        if plain and all(loss.ndim for loss in self._losses):
            return float(torch.cat(self._losses).double().mean())
        sums, totals = [], []
        batches = zip(self._losses, self._denominators, self._counts, strict=True)
        for loss, denominator, count in batches:
            if denominator is None:
                sums.append(float(loss.double().mean()) * count)
                totals.append(float(count))
            else:
                sums.append(float(loss.double().sum()))
                totals.append(float(denominator.double().sum()))
        total = math.fsum(totals)
        return math.fsum(sums) / total if total else math.nan


def score_samples(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    step: Step,
    seed: int = 0,
    precision: PrecisionConfig | None = None,
    forward: Callable[..., Any] | None = None,
    on_batch: Callable[[], None] | None = None,
    group: Group | None = None,
) -> Columns:
    """The columns of `data.tables.schemas.OBSERVATIONS` of all samples, in the batches' order.

    Arguments as those of `validate_epoch`; of a group the first process gets them. Raises
    TargetError for what a step may not give.
    """
    observer = Observer(getattr(step, "ignore_index", None))
    with evaluating(
        model, step, seed=seed, precision=precision, forward=forward, group=group
    ) as output_of:
        for batch in batches:
            if batch.num_samples:
                output = output_of(batch) if group is None else undrawn(output_of, batch)
                observer.take(batch.sample_ids_B, output, output.target, index=batch.index)
                if group is not None:
                    group.end_turn()
            elif group is not None:
                group.sit_out()
            if on_batch is not None:
                on_batch()
        if group is not None:
            observer.gather(group)
        return observer.columns()
