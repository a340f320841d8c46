"""The list of a run's stages and their keys, from the config alone: nothing runs for it.

A stage's key is a digest of its *inputs*: named sections that hold what acts in that stage and
nothing else, and its parents' keys. The sections' names are those of the config's fields, so a
difference between two keys can be told in the config's own words (`tasks.explain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epochal.data.hashing import digest
from epochal.data.types import Target
from epochal.engine.schedule import schedule
from epochal.engine.schedule.kinds import CustomSchedule
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.averaging import (
    AVERAGE,
    VALIDATE_AVERAGE,
    average_inputs,
    average_parents,
)
from epochal.tasks.planning.run_length import in_epochs, updates_left
from epochal.tasks.planning.scoring import SCORE, SCORES, scoring_inputs
from epochal.tasks.planning.stage import RunInputs, Stage

STAGE_VERSIONS: dict[str, int] = {
    "initialise": 1,
    "train": 2,
    "validate": 2,
    "score": 1,
    "mine": 2,
    AVERAGE: 1,
    VALIDATE_AVERAGE: 1,
}
"""Raised by hand when a stage's code changes its numbers; part of the key."""


def list_stages(config: RunConfig, run_inputs: RunInputs) -> list[Stage]:
    """All stages in the order in which they run."""
    initialise = _stage("initialise", None, _initialise_inputs(config, run_inputs), {})
    stages = [initialise]
    checkpoint, table = initialise, None
    for epoch in range(config.epochs):
        train = _train_stage(config, run_inputs, epoch, checkpoint, table)
        stages += [train, _validate_stage(config, run_inputs, epoch, train)]
        if config.sampling.policy != "none":
            scores = None
            if config.sampling.scores_after(epoch, epochs=config.epochs) is not None:
                inputs = scoring_inputs(config, run_inputs, _forward_inputs(config, run_inputs))
                scores = _stage(SCORE, epoch, inputs, {"parent": train})
                stages.append(scores)
            table = _mine_stage(config, run_inputs, epoch, train, table, scores)
            stages.append(table)
        checkpoint = train
    if config.averaging is not None:
        average = _stage(AVERAGE, None, average_inputs(config), average_parents(config, stages))
        inputs = _validate_inputs(config, run_inputs)
        stages += [average, _stage(VALIDATE_AVERAGE, None, inputs, {"parent": average})]
    return stages


def _stage(
    kind: str, epoch: int | None, inputs: dict[str, Any], parents: dict[str, Stage]
) -> Stage:
    if any(parent.key is None for parent in parents.values()) or _is_unread(inputs):
        return Stage(kind=kind, epoch=epoch, key=None, inputs=inputs, parents=parents)
    keys = {role: parent.key for role, parent in parents.items()}
    key = digest(f"stage/{kind}", [STAGE_VERSIONS[kind], epoch, inputs, keys])
    return Stage(kind=kind, epoch=epoch, key=key, inputs=inputs, parents=parents)


def _is_unread(inputs: Mapping[str, Any]) -> bool:
    return any(value is None for value in inputs.values())


def _target(target: Target) -> dict[str, Any]:
    return {"target": target.target, "args": target.args}


def _with_source(run_inputs: RunInputs, name: str, value: Any) -> dict[str, Any]:
    inputs = {name: value}
    if files := run_inputs.sources.get(name):
        inputs[f"{name}.source"] = dict(files)
    return inputs


def _initialise_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    inputs = {"seed": config.seed, **_with_source(run_inputs, "model", _target(config.model))}
    if config.start is not None:
        inputs["start"] = {"sha256": run_inputs.start, **config.start.key_slice()}
    return inputs


def _loss_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    inputs = _with_source(run_inputs, "loss", _target(config.loss))
    if config.step is not None:
        inputs |= _with_source(run_inputs, "step", _target(config.step))
    return inputs


def _precision_inputs(config: RunConfig) -> dict[str, Any]:
    acting = config.precision.key_slice()
    return {"precision": acting} if acting else {}


def _batches_inputs(config: RunConfig, epoch: int) -> dict[str, Any]:
    acting = config.batches.key_slice(epoch)
    return {"sampler": acting} if acting else {}  # as the field was called: keys stay


def _optimizer_inputs(config: RunConfig, run_inputs: RunInputs, epoch: int) -> dict[str, Any]:
    optimizer = config.optimizer
    acting = {**_target(optimizer), **optimizer.key_slice()}
    frozen = optimizer.frozen_in(epoch)
    return {
        **_with_source(run_inputs, "optimizer", acting),
        **({"optimizer.frozen": list(frozen)} if frozen else {}),
    }


def _batch_norm_inputs(config: RunConfig, epoch: int) -> dict[str, Any]:
    if config.batch_norm is None:
        return {}
    acting = config.batch_norm.key_slice(epoch, epochs=config.epochs)
    return {"batch_norm": acting} if acting else {}


def _schedule_inputs(config: RunConfig, run_inputs: RunInputs, epoch: int) -> dict[str, Any]:
    found = in_epochs(config, run_inputs.train_data.num_samples)
    if found is None or (isinstance(found, CustomSchedule) and not run_inputs.schedule):
        return {"schedule": None}  # how many updates an epoch has is not yet known
    if isinstance(found, CustomSchedule):
        acting = {**_target(found), "samples": run_inputs.schedule[epoch]}
        return _with_source(run_inputs, "schedule", acting)
    return {"schedule": schedule.segments(found, epoch, epochs=config.epochs)}


def _train_stage(
    config: RunConfig, run_inputs: RunInputs, epoch: int, checkpoint: Stage, table: Stage | None
) -> Stage:
    inputs = {
        "seed": config.seed,
        **_loss_inputs(config, run_inputs),
        **_optimizer_inputs(config, run_inputs, epoch),
        **_schedule_inputs(config, run_inputs, epoch),
        "loader": {
            "batch_size": config.loader.batch_size,
            "drop_last": config.loader.drop_last,
        },
        **_batches_inputs(config, epoch),
        "gradients": config.gradients.key_slice(epoch),
        **_precision_inputs(config),
        **({} if config.mixing is None else {"mixing": config.mixing.key_slice()}),
        **({} if config.ema is None else {"ema": config.ema.key_slice(epoch)}),
        **_batch_norm_inputs(config, epoch),
        **_inside_inputs(config, run_inputs),
        **_with_source(run_inputs, "train_data", run_inputs.train_data.fingerprint),
    }
    left = updates_left(config, epoch, num_samples=run_inputs.train_data.num_samples)
    if left is not None:
        inputs["max_updates"] = left
    elif config.max_updates is not None and run_inputs.train_data.num_samples is None:
        inputs["max_updates"] = None  # which epoch it cuts is not yet known
    parents = {"parent": checkpoint}
    if table is not None:
        parents["samples"] = table
        rule, phase = config.sampling.batch_rule, config.sampling.phase(epoch, epochs=config.epochs)
        if rule != "fixed" and not (phase.full and phase.noise is None):
            inputs["sampling.batch"] = rule
    return _stage("train", epoch, inputs, parents)


def _measuring_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    inputs = {
        "metrics": config.metrics.key_slice(),
        **_with_source(run_inputs, "validation_data", run_inputs.validation_data.fingerprint),
    }
    for name, files in run_inputs.sources.items():
        if name.startswith("metrics.") and files:
            inputs[f"{name}.source"] = dict(files)
    return inputs


def _inside_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    acting = config.validation.key_slice()
    if not acting:
        return {}
    acting["batch_size"] = config.loader.validation_batch_size or config.loader.batch_size
    return {"validation": acting, **_measuring_inputs(config, run_inputs)}


def _forward_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    return {
        "seed": config.seed,
        **_loss_inputs(config, run_inputs),
        **_precision_inputs(config),
        "loader": {
            "validation_batch_size": config.loader.validation_batch_size or config.loader.batch_size
        },
    }


def _validate_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    return {**_forward_inputs(config, run_inputs), **_measuring_inputs(config, run_inputs)}


def _validate_stage(config: RunConfig, run_inputs: RunInputs, epoch: int, train: Stage) -> Stage:
    return _stage("validate", epoch, _validate_inputs(config, run_inputs), {"parent": train})


def _mine_stage(
    config: RunConfig,
    run_inputs: RunInputs,
    epoch: int,
    train: Stage,
    previous: Stage | None,
    scores: Stage | None,
) -> Stage:
    phase = config.sampling.phase(epoch + 1, epochs=config.epochs)
    acting = phase.key_slice()
    inputs = {
        "seed": config.seed,
        **_with_source(run_inputs, "sampling", config.sampling.key_slice()),
        "sampling.full": phase.full,
        **({"sampling.phase": acting} if acting else {}),
        "train_data": run_inputs.train_data.fingerprint,
    }
    parents = {"observations": train}
    if config.sampling.scoring is not None:  # without a pass after this epoch the old scores stand
        inputs["sampling.scoring"] = {"passed": scores is not None}
    if scores is not None:
        parents[SCORES] = scores
    if previous is not None:
        parents["samples"] = previous
    return _stage("mine", epoch, inputs, parents)
