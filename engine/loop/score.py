"""The scoring pass: what training observes of each sample, in evaluation mode and of all.

No files, no network, no clock. The model is as before at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from epochal.data.types import Batch
from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.loop.evaluate import evaluate
from epochal.engine.measure.observe import Columns, Observer
from epochal.engine.model.step import Step, StepOutput


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
