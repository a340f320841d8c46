"""The validate stage: metrics over the validation data, of the weights and their average.

A train stage measures the same way between updates, by `validation.every_updates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.engine.config.mid_epoch import ValidationConfig
from epochal.engine.config.numerics import EMA, MATRIX
from epochal.tasks.checkpoints.end_of_epoch import COMPANIONS, load_ema, load_model
from epochal.tasks.computing.link import PutDown
from epochal.tasks.computing.work import Computed, Order, ParentArtifacts, Work
from epochal.tasks.planning.inputs import forward_inputs, measuring_inputs, validation_batch_size
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, computed, number, put_moment
from epochal.tasks.stages.kind import (
    Count,
    Listing,
    Number,
    Planned,
    RecordValues,
    StageKind,
    shown,
)
from epochal.tasks.trainer.trainer import Received

if TYPE_CHECKING:
    from epochal.engine.loop.evaluate import ValidationResult
    from epochal.engine.loop.progress import MidEpochValidation, Progress


@dataclass(frozen=True)
class Measured:
    """values: metric → value, those of the average as `ema/<metric>`. matrices: as values."""

    num_samples: int
    values: Mapping[str, float]
    matrices: Mapping[str, list[list[int]]]


def measure(
    work: Work, *, seed: int, on_batch: Callable[[], None], with_ema: bool = True
) -> Measured:
    """The metrics of the live weights, and of their average if there is one and `with_ema`.

    seed: for what the model may draw. on_batch: called after each batch; if it raises, the weights
    are put back as they were and the error goes on.
    """
    result = _validated(work, "validation", seed=seed, on_batch=on_batch)
    values, matrices = dict(result.values), dict(result.matrices)
    ema = work.ready_components().state.ema
    if ema is not None and with_ema:
        with ema.applied():
            averaged = _validated(work, "validation of the average", seed=seed, on_batch=on_batch)
        values |= {f"{EMA}{name}": value for name, value in averaged.values.items()}
        matrices |= {f"{EMA}{name}": matrix for name, matrix in averaged.matrices.items()}
    return Measured(num_samples=result.num_samples, values=values, matrices=matrices)


def _validated(
    work: Work, what: str, *, seed: int, on_batch: Callable[[], None]
) -> ValidationResult:
    from epochal.data.loading.loader import validation_batches
    from epochal.engine.loop.evaluate import validate_epoch
    from epochal.tasks.computing.augmented import augmented
    from epochal.tasks.computing.watch import PassWatch

    config, data = work.config, work.data["validation_data"]
    components = work.ready_components()
    size = validation_batch_size(config)
    batches = validation_batches(
        data.dataset,
        batch_size=size,
        sample_ids_N=data.ids_N,
        readers=work.readers("validation_data", batch_size=size),
        collate=components.collate,
        **work.share,
    )
    batches = augmented(batches, config, "validation", device=components.device)
    with closing(batches):  # else a stored error would keep its workers alive
        return validate_epoch(
            components.state.model,
            batches,
            step=components.step,
            metrics=components.metrics,
            seed=seed,
            precision=config.precision,
            forward=components.state.forward,
            on_batch=PassWatch(
                work.link,
                f"batches of {what}",
                work.num_batches("validation_data", batch_size=size),
                after=on_batch,
            ),
            group=work.group,
        )


def measured_values(result: Measured) -> Computed:
    """What a stage of metrics is of them."""
    return Computed(
        values={
            "samples": result.num_samples,
            "metrics": {name: number(value) for name, value in result.values.items()},
            **({"matrices": dict(result.matrices)} if result.matrices else {}),
        }
    )


def commit_measured(
    session: Session,
    stage: Stage,
    received: Received,
    *,
    measured: StageRecord,
    consumed: Mapping[str, str],
) -> StageRecord:
    """Commits a stage of metrics. measured: the record of the weights that they are of."""
    put_moment(session, stage)
    values = {**received.values, "updates_done": measured.values["updates_done"]}
    return commit_stage(session, stage, {}, values, consumed=consumed)


class _PutDownError(Exception):
    """The validation is broken off; it is repeated when the epoch goes on."""


def mid_epoch_validation(
    config: ValidationConfig, work: Work, commit: Callable[[Progress], None], *, epoch: int
) -> MidEpochValidation | None:
    """The validation that `train_epoch` does between updates, or None where there is none.

    It is put down between two batches, once `commit` has the epoch so far on its way to the store.
    """
    from epochal.engine.loop.progress import MidEpochValidation
    from epochal.engine.model.optimizer_modes import evaluation_weights

    def on_batch() -> None:
        if work.told(work.link.interrupted):
            raise _PutDownError
        work.obey()

    def values_of(progress: Progress) -> Mapping[str, float]:
        seed = seed_64(work.config.seed, "validate_inside", epoch, progress.updates)
        watch = work.goodput.watch
        try:
            with watch.phase("validation"), evaluation_weights(progress.state):
                return measure(work, seed=seed, on_batch=on_batch).values
        except _PutDownError:
            with watch.phase("commit"):
                commit(progress)
            raise PutDown from None

    if config.every_updates is None:
        return None
    return MidEpochValidation(every_updates=config.every_updates, measure=values_of)


class MeasuredValues(RecordValues):
    """Values of a record of metrics."""

    samples: Count
    updates_done: Count
    metrics: dict[str, Number | None]


def validate_inputs(listing: Listing) -> dict[str, Any]:
    """All sections of the config that change the metrics of a checkpoint."""
    config, run_inputs = listing.config, listing.run_inputs
    return {**forward_inputs(config, run_inputs), **measuring_inputs(config, run_inputs)}


def _plan(listing: Listing, epoch: int | None) -> Planned:  # noqa: ARG001 - as a kind is asked
    return Planned(validate_inputs(listing), {"parent": listing.checkpoint})


def _compute(work: Work, order: Order) -> Computed:
    components = work.ready_components()
    if not order.live:
        work.touched = True
        record, artifacts = order.parents["parent"], ParentArtifacts(work.link, order)
        load_model(artifacts, record, components)
        if components.state.ema is not None:
            load_ema(artifacts, record, components.state.ema, components.state.slices)
    return measured_values(
        measure(
            work,
            seed=seed_64(work.config.seed, "validate", order.number),
            on_batch=work.obey,
        )
    )


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    with computed(session, stage, "parent") as received:
        record = session.run.record_of(stage.parents["parent"])
        return commit_measured(session, stage, received, measured=record, consumed=consumed)


def metric_values(stage: Stage, record: StageRecord) -> dict[str, float | None]:
    """The metrics of a validation in the order of the config; a record sorts them by name.

    The recalls of a confusion matrix are left out: there are many, and `show --json` and MLflow
    have them.
    """
    values: dict[str, float | None] = dict(record.values["metrics"])
    names = [
        metric if isinstance(metric, str) else metric["name"] for metric in stage.inputs["metrics"]
    ]

    def place(name: str) -> tuple[bool, int]:
        # A metric that gives several numbers names them `metric_part`.
        plain = name.removeprefix(EMA)
        known = [
            index
            for index, metric in enumerate(names)
            if plain == metric or plain.startswith(f"{metric}_")
        ]
        return name.startswith(EMA), known[0] if known else len(names)

    shown = [name for name in values if not name.removeprefix(EMA).startswith(f"{MATRIX}_")]
    return {name: values[name] for name in sorted(shown, key=place)}


def metrics_line(stage: Stage, record: StageRecord) -> list[str]:
    """The metrics of a validation as they are shown when it ends."""
    return [f"{name} {shown(value)}" for name, value in metric_values(stage, record).items()]


def _metrics(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {f"validation/{name}": value for name, value in values["metrics"].items()}


VALIDATE = StageKind(
    name="validate",
    shared=True,
    cause="validation",
    version=3,
    when="epoch",
    plan=_plan,
    values=MeasuredValues,
    artifacts={},
    loads=lambda stage, role, records: ("model", "ema", *COMPANIONS),  # noqa: ARG005 - as a kind is asked
    run=_run,
    compute=_compute,
    metrics=_metrics,
    points=_metrics,
    line=metrics_line,
)
