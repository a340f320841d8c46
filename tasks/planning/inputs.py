"""Sections of a key's inputs that several kinds of stage share: what of the config changes a stage.

A stage's key is a digest of its *inputs*: named sections that hold what changes its numbers and
nothing else, and its parents' keys. The sections' names are those of the config's fields, so a
difference between two keys can be told in the config's own words (`tasks.runs.explain`).
"""

from __future__ import annotations

from typing import Any

from epochal.data.types import Target, in_key
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import RunInputs


def target_inputs(target: Target) -> dict[str, Any]:
    """`target` and `args` alone, without the other fields of its config class."""
    return {"target": target.target, "args": in_key(target.args)}


def with_source(run_inputs: RunInputs, name: str, value: Any) -> dict[str, Any]:
    """The section `name`, and beside it the digests of the user's files that it runs and reads."""
    return {name: value, **_code_inputs(run_inputs, name)}


def _code_inputs(run_inputs: RunInputs, name: str) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if source := run_inputs.sources.get(name):
        inputs[f"{name}.source"] = dict(source)
    if files := run_inputs.files.get(name):
        inputs[f"{name}.files"] = dict(files)
    return inputs


def loss_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    """Loss and step."""
    inputs = with_source(run_inputs, "loss", target_inputs(config.loss))
    if config.step is not None:
        inputs |= with_source(run_inputs, "step", target_inputs(config.step))
    return inputs


def precision_inputs(config: RunConfig) -> dict[str, Any]:
    """The number format that the model computes in; empty for the default."""
    acting = config.precision.key_slice()
    return {"precision": acting} if acting else {}


def forward_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    """What changes the results of every pass without gradients."""
    return {
        "seed": config.seed,
        **loss_inputs(config, run_inputs),
        **precision_inputs(config),
        "loader": {"validation_batch_size": validation_batch_size(config)},
    }


def measuring_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    """Metrics and the data that they are measured on."""
    inputs = {
        "metrics": config.metrics.key_slice(),
        **with_source(run_inputs, "validation_data", run_inputs.validation_data.fingerprint),
    }
    for name in run_inputs.sources:
        if name.startswith("metrics."):
            inputs |= _code_inputs(run_inputs, name)
    return inputs


def validation_batch_size(config: RunConfig) -> int:
    """Number of samples of a batch in every pass without gradients."""
    return config.loader.validation_batch_size or config.loader.batch_size
