"""Checkpoint averaging: which epochs' weights are averaged at a run's end, and what its keys hold.

The stage `average` comes after the last epoch, `validate_average` after it; neither has an epoch.
Which epochs are the best is a pure function of the validations, so the key holds the keys of all
that may be chosen and the rule: it is known before anything runs. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochal.engine.config.numerics import EMA
from epochal.tasks.config.parts import EarlyStoppingConfig, rule
from epochal.tasks.planning.early_stopping import last_epoch

if TYPE_CHECKING:
    from epochal.data.stage_store.stages import StageRecord
    from epochal.tasks.config.run import RunConfig
    from epochal.tasks.planning.stage import Stage

AVERAGE, VALIDATE_AVERAGE = "average", "validate_average"
END_KINDS = (AVERAGE, VALIDATE_AVERAGE)
"""Stages after the last epoch: a longer run has others in their place."""


def average_inputs(config: RunConfig) -> dict[str, Any]:
    """The inputs of the stage `average`: the rule that chooses among its parents."""
    assert config.averaging is not None
    metrics = config.metrics
    of = "ema" if metrics.best_metric.startswith(EMA) else "model"  # what that metric measures
    inputs: dict[str, Any] = {"averaging": {**config.averaging.key_slice(), "of": of}}
    if config.averaging.last is None:
        inputs["metrics.best"] = [metrics.best_metric, metrics.best_direction]
    if config.early_stopping is not None:  # it says which epochs there are to choose from
        metric, mode = rule(config.early_stopping, metrics)
        resolved = config.early_stopping.model_copy(update={"metric": metric, "mode": mode})
        inputs["early_stopping"] = resolved.model_dump(mode="json")
    return inputs


def average_parents(config: RunConfig, stages: Sequence[Stage]) -> dict[str, Stage]:
    """The stages that the average depends on, by role: `train.3`, `validate.3`.

    The best are chosen among all; the last are known, unless early stopping decides.
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
    trained = [one.number for one in stage.parents.values() if one.kind == "train"]
    stopped = _stopped_after(stage, records)
    epochs = sorted(one for one in trained if stopped is None or one <= stopped)
    rule_of_stage = stage.inputs["averaging"]
    if "last" in rule_of_stage:
        return tuple(epochs[-rule_of_stage["last"] :])
    metric, direction = stage.inputs["metrics.best"]
    sign = 1 if direction == "min" else -1
    ranked = sorted(
        (sign * value, epoch)
        for epoch in epochs
        if (metrics := _metrics(stage, epoch, records)) is not None
        and (value := metrics.get(metric)) is not None
    )
    return tuple(sorted(epoch for _, epoch in ranked[: rule_of_stage["best"]]))


def is_decided(stage: Stage, records: Mapping[str, StageRecord]) -> bool:
    """Whether every validation is recorded that says which epochs are averaged."""
    asked = [one for one in stage.parents.values() if one.kind == "validate"]
    return _stopped_after(stage, records) is not None or all(one.key in records for one in asked)


def averaged_artifact(stage: Stage) -> str:
    """Of a train stage: `model`, or `ema`."""
    return str(stage.inputs["averaging"]["of"])


def averaged_epoch(stage: Stage, role: str, records: Mapping[str, StageRecord]) -> bool:
    """Whether the weights of the parent in that role are known to be averaged."""
    parent = stage.parents[role]
    return (
        parent.kind == "train"
        and is_decided(stage, records)
        and parent.epoch in chosen_epochs(stage, records)
    )


def last_of_run(stage: Stage, records: Mapping[str, StageRecord]) -> Stage:
    """The train stage that the run ended with."""
    stopped = _stopped_after(stage, records)
    trained = [one for one in stage.parents.values() if one.kind == "train"]
    own = [one for one in trained if stopped is None or one.number <= stopped]
    return max(own, key=lambda one: one.number)


def _metrics(
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
    for epoch in sorted(one.number for one in stage.parents.values() if one.kind == "validate"):
        metrics = _metrics(stage, epoch, records)
        if metrics is None:
            break
        values.append(metrics.get(config.metric))
    return last_epoch(config, values, mode=config.mode)
