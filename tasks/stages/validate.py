"""Measures the live state over the validation data, its average of the weights too.

Called by the validate stage, and inside a train stage by `validation.every_updates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.engine.config.mid_epoch import ValidationConfig
from epochal.engine.config.numerics import EMA
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.stage_schema import number
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, put_moment

if TYPE_CHECKING:
    from epochal.engine.loop.evaluate import ValidationResult
    from epochal.engine.loop.progress import MidEpochValidation, Progress
    from epochal.tasks.checkpoints.mid_epoch_saver import MidEpochSaver


@dataclass(frozen=True)
class Measured:
    """values: metric → value, those of the average as `ema/<metric>`. matrices: as values."""

    num_samples: int
    values: Mapping[str, float]
    matrices: Mapping[str, list[list[int]]]


def measure(
    session: Session, *, seed: int, on_batch: Callable[[], None], with_ema: bool = True
) -> Measured:
    """The metrics of the live weights, and of their average if there is one and `with_ema`.

    seed: of what the model may draw. on_batch: called after each batch; what it raises goes
    through, with the weights as they were.
    """
    result = _validated(session, seed=seed, on_batch=on_batch)
    values, matrices = dict(result.values), dict(result.matrices)
    ema = session.ready_components().state.ema
    if ema is not None and with_ema:
        with ema.applied():
            averaged = _validated(session, seed=seed, on_batch=on_batch)
        values |= {f"{EMA}{name}": value for name, value in averaged.values.items()}
        matrices |= {f"{EMA}{name}": matrix for name, matrix in averaged.matrices.items()}
    return Measured(num_samples=result.num_samples, values=values, matrices=matrices)


def _validated(session: Session, *, seed: int, on_batch: Callable[[], None]) -> ValidationResult:
    from epochal.data.loading.loader import validation_batches
    from epochal.engine.loop.evaluate import validate_epoch

    config, data = session.config, session.data["validation_data"]
    components = session.ready_components()
    batches = validation_batches(
        data.dataset,
        batch_size=config.loader.validation_batch_size or config.loader.batch_size,
        sample_ids_N=data.sample_ids_N,
        workers=config.loader.workers,
    )
    with closing(batches):  # an error that is kept would keep its processes
        return validate_epoch(
            components.state.model,
            batches,
            step=components.step,
            metrics=components.metrics,
            seed=seed,
            precision=config.precision,
            forward=components.state.forward,
            on_batch=on_batch,
        )


def commit_measured(
    session: Session, stage: Stage, found: Measured, *, measured: StageRecord
) -> StageRecord:
    """Commits a stage of metrics. measured: the record of the weights that they are of."""
    put_moment(session, stage)
    return commit_stage(
        session,
        stage,
        {},
        {
            "samples": found.num_samples,
            "updates_done": measured.values["updates_done"],
            "metrics": {name: number(value) for name, value in found.values.items()},
            **({"matrices": dict(found.matrices)} if found.matrices else {}),
        },
    )


class _PutDownError(Exception):
    """A signal came: the validation is left, and done again when the epoch goes on."""


def mid_epoch_validation(
    config: ValidationConfig, session: Session, saver: MidEpochSaver, *, epoch: int
) -> MidEpochValidation | None:
    """What `train_epoch` validates with between updates, or None where it does not.

    A signal is obeyed between two batches, once the epoch so far is committed.
    """
    from epochal.engine.loop.progress import MidEpochValidation

    def on_batch() -> None:
        if session.interruption.came:
            raise _PutDownError

    def values_of(progress: Progress) -> Mapping[str, float]:
        seed = seed_64(session.config.seed, "validate_inside", epoch, progress.updates)
        try:
            return measure(session, seed=seed, on_batch=on_batch).values
        except _PutDownError:
            saver.now(progress)
            session.interruption.obey()
            raise

    if config.every_updates is None:
        return None
    return MidEpochValidation(every_updates=config.every_updates, measure=values_of)
