"""The stages after the last epoch: the mean of some checkpoints' weights, and its metrics.

Neither belongs to an epoch: a longer run has two others in their place. Which epochs are best
follows from the validations alone, so the key holds the rule and the keys of all stages that may be
chosen, and is known before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from epochal.data.errors import CorruptObject, TrainingFailed
from epochal.data.stage_store.records import StageRecord
from epochal.data.types import seed_64
from epochal.engine.config.numerics import EMA
from epochal.tasks.checkpoints.end_of_epoch import COMPANIONS, load_model, read_companions
from epochal.tasks.computing.link import obey
from epochal.tasks.computing.work import Computed, Order, ParentArtifacts, Work
from epochal.tasks.config.parts import EarlyStoppingConfig, rule
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.early_stopping import last_epoch
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, computed, put_images, put_moment
from epochal.tasks.stages.kind import (
    TENSORS,
    Count,
    Listing,
    Planned,
    RecordValues,
    StageKind,
)
from epochal.tasks.stages.validate import (
    MeasuredValues,
    commit_measured,
    measure,
    measured_values,
    metrics_line,
    validate_inputs,
)

if TYPE_CHECKING:
    from torch import Tensor


def _inputs(config: RunConfig) -> dict[str, Any]:
    """The rule that chooses which parents are averaged."""
    assert config.averaging is not None
    metrics = config.metrics
    of = "ema" if metrics.best_metric.startswith(EMA) else "model"  # what the metric measures
    inputs: dict[str, Any] = {"averaging": {**config.averaging.key_slice(), "of": of}}
    if config.averaging.last is None:
        inputs["metrics.best"] = [metrics.best_metric, metrics.best_direction]
    if config.early_stopping is not None:  # the choice depends on where it stops
        metric, mode = rule(config.early_stopping, metrics)
        resolved = config.early_stopping.model_copy(update={"metric": metric, "mode": mode})
        inputs["early_stopping"] = resolved.model_dump(mode="json")
    return inputs


def _parents(config: RunConfig, stages: Sequence[Stage]) -> dict[str, Stage]:
    """The stages that the average depends on, by role: `train.3`, `validate.3`.

    The best may be any epoch, so all are parents; the last are known beforehand, unless early
    stopping decides.
    """
    assert config.averaging is not None
    last = config.averaging.last
    if last is not None and config.early_stopping is None:
        kinds, first = {"train"}, max(0, config.epochs - last)
    else:
        kinds, first = {"train", "validate"}, 0
    return {
        f"{stage.kind}.{stage.epoch}": stage
        for stage in stages
        if stage.kind in kinds and stage.number >= first
    }


def chosen_epochs(stage: Stage, records: Mapping[str, StageRecord]) -> tuple[int, ...]:
    """The epochs that the stage `average` takes by what is recorded now, ascending.

    Fewer than asked for where the run has no more, or no more with a finite metric. They follow
    from what is in the stage's key; `is_decided` says whether they may still change.
    """
    trained = [parent.number for parent in stage.parents.values() if parent.kind == "train"]
    stopped = _stopped_after(stage, records)
    epochs = sorted(epoch for epoch in trained if stopped is None or epoch <= stopped)
    rule_of_stage = stage.inputs["averaging"]
    if "last" in rule_of_stage:
        return tuple(epochs[-rule_of_stage["last"] :])
    metric, direction = stage.inputs["metrics.best"]
    sign = 1 if direction == "min" else -1
    ranked = sorted(
        (sign * value, epoch)
        for epoch in epochs
        if (metrics := _measured(stage, epoch, records)) is not None
        and (value := metrics.get(metric)) is not None
    )
    return tuple(sorted(epoch for _, epoch in ranked[: rule_of_stage["best"]]))


def is_decided(stage: Stage, records: Mapping[str, StageRecord]) -> bool:
    """Whether all validations that decide which epochs are averaged are recorded."""
    asked = [parent for parent in stage.parents.values() if parent.kind == "validate"]
    return _stopped_after(stage, records) is not None or all(
        parent.key in records for parent in asked
    )


def _loads(stage: Stage, role: str, records: Mapping[str, StageRecord]) -> tuple[str, ...]:
    """The averaged weights of a parent that is known to be among the chosen epochs."""
    parent = stage.parents[role]
    chosen = (
        parent.kind == "train"
        and is_decided(stage, records)
        and parent.epoch in chosen_epochs(stage, records)
    )
    if not chosen:
        return ()
    is_last = parent.epoch == chosen_epochs(stage, records)[-1]
    return (_artifact(stage), *(COMPANIONS if is_last else ()))


def _artifact(stage: Stage) -> str:
    """The artifact of a train stage that is averaged: `model` or `ema`."""
    return str(stage.inputs["averaging"]["of"])


def _last_of_run(stage: Stage, records: Mapping[str, StageRecord]) -> Stage:
    """The train stage that the run ended with."""
    stopped = _stopped_after(stage, records)
    trained = [parent for parent in stage.parents.values() if parent.kind == "train"]
    own = [parent for parent in trained if stopped is None or parent.number <= stopped]
    return max(own, key=lambda parent: parent.number)


def _measured(
    stage: Stage, epoch: int, records: Mapping[str, StageRecord]
) -> Mapping[str, float | None] | None:
    record = records.get(stage.parents[f"validate.{epoch}"].key or "")
    return None if record is None else record.values["metrics"]


def _stopped_after(stage: Stage, records: Mapping[str, StageRecord]) -> int | None:
    """The epoch that early stopping ends the run with, by the stage's own inputs, or None."""
    if "early_stopping" not in stage.inputs:
        return None
    config = EarlyStoppingConfig.model_validate(stage.inputs["early_stopping"])
    assert config.metric is not None
    assert config.mode is not None
    values: list[float | None] = []
    for epoch in sorted(
        parent.number for parent in stage.parents.values() if parent.kind == "validate"
    ):
        metrics = _measured(stage, epoch, records)
        if metrics is None:
            break
        values.append(metrics.get(config.metric))
    return last_epoch(config, values, mode=config.mode)


class _Values(RecordValues):
    epochs: Annotated[list[Count], Field(min_length=1)]
    updates_done: Count


def _plan(listing: Listing, epoch: int | None) -> Planned | None:  # noqa: ARG001 - as a kind is asked
    config = listing.config
    if config.averaging is None:
        return None
    return Planned(_inputs(config), _parents(config, listing.stages))


def _compute(work: Work, order: Order) -> Computed:
    from epochal.engine.checkpoint.averaging import averaged

    epochs, artifacts = order.given["epochs"], ParentArtifacts(work.link, order)
    mean = averaged(_checkpoints(work, order, epochs, of=order.given["of"]))
    # There is no mean of what loss and step hold: it is that of the newest of the epochs.
    beside, document = read_companions(artifacts, order.parents[f"train.{epochs[-1]}"])
    of_tensors, of_document = COMPANIONS
    return Computed(
        values={},
        tensors={"model": mean, **({of_tensors: beside} if document else {})},
        documents={of_document: document} if document else {},
    )


def _checkpoints(
    work: Work, order: Order, epochs: Sequence[int], *, of: str
) -> Iterator[dict[str, Tensor]]:
    from epochal.engine.checkpoint.serialize import load_tensors

    artifacts = ParentArtifacts(work.link, order)
    for epoch in epochs:
        obey(work.link)
        try:
            with artifacts.fetch_artifact(order.parents[f"train.{epoch}"], of) as path:
                tensors = load_tensors(path, device="cpu")
        except CorruptObject as error:
            raise CorruptObject(
                f"averaging: the weights of epoch {epoch} are needed, and they were removed or "
                f"damaged ({error}); the same command computes that epoch again, from the last "
                "checkpoint before it"
            ) from error
        yield tensors


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    """The mean of the chosen epochs' weights, as a model that plain torch loads."""
    assert session.config.averaging is not None
    records, asked = session.run.records, session.config.averaging
    assert is_decided(stage, records)
    epochs = chosen_epochs(stage, records)
    if not epochs:
        raise TrainingFailed(
            f"averaging: {asked.what}, but {session.config.metrics.best_metric} was not finite in "
            "any epoch; name another metric as `metrics.best`, or give `averaging: {last: …}`"
        )
    if len(epochs) < asked.count:
        session.reporter.notice(
            f"averaging: {asked.what}, and the run has {len(epochs)} such epochs: these are taken"
        )
    ended_with = session.run.record_of(_last_of_run(stage, records))
    roles = [f"train.{epoch}" for epoch in epochs]
    given = {"epochs": list(epochs), "of": _artifact(stage)}
    with computed(session, stage, *roles, given=given) as received:
        with session.store.scratch() as scratch:
            artifacts = put_images(session, stage, received, scratch)
        put_moment(session, stage)
        return commit_stage(
            session,
            stage,
            artifacts,
            {"epochs": list(epochs), "updates_done": ended_with.values["updates_done"]},
            consumed=consumed,
        )


def _plan_validation(listing: Listing, epoch: int | None) -> Planned | None:  # noqa: ARG001 - as a kind is asked
    average = listing.newest("average")
    return None if average is None else Planned(validate_inputs(listing), {"parent": average})


def _compute_metrics(work: Work, order: Order) -> Computed:
    components = work.ready_components()
    work.touched = True
    load_model(ParentArtifacts(work.link, order), order.parents["parent"], components)
    return measured_values(
        measure(
            work,
            seed=seed_64(work.config.seed, "validate_average"),
            on_batch=work.obey,
            with_ema=False,
        )
    )


def _validate(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    """The metrics of the average over the validation data."""
    parent = session.run.record_of(stage.parents["parent"])
    with computed(session, stage, "parent") as received:
        return commit_measured(session, stage, received, measured=parent, consumed=consumed)


def _metrics(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {f"average/{name}": value for name, value in values["metrics"].items()}


def _line(stage: Stage, record: StageRecord) -> list[str]:  # noqa: ARG001 - as a kind is asked
    return [f"mean of epochs {', '.join(map(str, record.values['epochs']))}"]


def average_text(run: RunView) -> str | None:
    """The average of the checkpoints in one line, or None while there is none that is measured."""
    made = run.record("average", None)
    for stage, measured in run.of_kind("validate_average"):
        if made is not None:
            epochs = ", ".join(map(str, made.values["epochs"]))
            return f"of epochs {epochs}: {', '.join(metrics_line(stage, measured))}"
    return None


AVERAGE = StageKind(
    name="average",
    version=1,
    when="end",
    field="averaging",
    plan=_plan,
    values=_Values,
    artifacts={"model": TENSORS},
    loads=_loads,
    run=_run,
    compute=_compute,
    line=_line,
)

VALIDATE_AVERAGE = StageKind(
    name="validate_average",
    shared=True,
    cause="validation",
    title="validate · average",
    version=2,
    when="end",
    field="averaging",
    plan=_plan_validation,
    values=MeasuredValues,
    artifacts={},
    loads=lambda stage, role, records: ("model", *COMPANIONS),  # noqa: ARG005 - as a kind is asked
    run=_validate,
    compute=_compute_metrics,
    metrics=_metrics,
    points=_metrics,
    line=metrics_line,
)
