"""Sections of a key's inputs that several kinds of stage share: what of the config changes a stage.

A stage's key is a digest of its *inputs*: named sections that hold what changes its numbers and
nothing else, and its parents' keys. The sections' names are those of the config's fields, so a
difference between two keys can be told in the config's own words (`tasks.runs.explain`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from epochal.data.config.augment import Part
from epochal.data.config.loader import COLLATE
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


_OURS = "epochal.data."
_TRANSFORM = "transform"


def transform_inputs(name: str, data: Target) -> dict[str, Any]:
    """What the transforms of our own data sets are called with: none of them names these itself.

    Such a data set is known by what it is made of, without its items being read. Of another the
    content is read, transforms and all, or it answers for its own `fingerprint()`.
    """
    if not data.target.startswith(_OURS):
        return {}
    found = list(_transforms(in_key(data.args)))
    return {f"{name}.{_TRANSFORM}": found} if found else {}


def _transforms(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _transforms(item)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name == _TRANSFORM and item is not None:
                yield item
            else:
                yield from _transforms(item)


def loss_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    """Loss and step."""
    inputs = with_source(run_inputs, "loss", target_inputs(config.loss))
    if config.step is not None:
        inputs |= with_source(run_inputs, "step", target_inputs(config.step))
    return inputs


def collate_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    """What makes batches of items; empty for the default."""
    collate = config.loader.collate
    return {} if collate is None else with_source(run_inputs, COLLATE, target_inputs(collate))


def precision_inputs(config: RunConfig) -> dict[str, Any]:
    """The number format that the model computes in; empty for the default."""
    acting = config.precision.key_slice()
    return {"precision": acting} if acting else {}


def augment_inputs(config: RunConfig, part: Part) -> dict[str, Any]:
    """What is done to the batches of training, or to those of every other pass."""
    acting = {} if config.augment is None else config.augment.key_slice(part)
    return {f"augment.{part}": acting} if acting else {}


def forward_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    """What changes the results of every pass without gradients."""
    return {
        "seed": config.seed,
        **loss_inputs(config, run_inputs),
        **precision_inputs(config),
        **collate_inputs(config, run_inputs),
        **augment_inputs(config, "validation"),
        "loader": {"validation_batch_size": validation_batch_size(config)},
    }


def measuring_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    """Metrics and the data that they are measured on."""
    inputs = {
        "metrics": config.metrics.key_slice(),
        **with_source(run_inputs, "validation_data", run_inputs.validation_data.fingerprint),
        **transform_inputs("validation_data", config.validation_data),
    }
    for name in run_inputs.sources:
        if name.startswith("metrics."):
            inputs |= _code_inputs(run_inputs, name)
    return inputs


def validation_batch_size(config: RunConfig) -> int:
    """Number of samples of a batch in every pass without gradients."""
    return config.loader.validation_batch_size or config.loader.batch_size
