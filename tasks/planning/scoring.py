"""The scoring pass as a stage of a run: its name, its data and what its key holds. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from epochal.engine.config.numerics import EMA

if TYPE_CHECKING:
    from epochal.data.config.loader import DataConfig
    from epochal.tasks.config.run import RunConfig
    from epochal.tasks.planning.stage import RunInputs, Stage

SCORE = "score"
"""The kind of stage."""
SCORES = "scores"
"""Its artifact, and its role as a parent of `mine`."""
SCORING_DATA: Literal["sampling.scoring.data"] = "sampling.scoring.data"
"""The config's field of a data set for it alone."""


def own_data(config: RunConfig) -> DataConfig | None:
    """`sampling.scoring.data`, or None where the pass reads `train_data` or there is no pass."""
    sampling = config.sampling
    if sampling.policy == "none" or sampling.scoring is None:
        return None
    return sampling.scoring.data


def scoring_inputs(
    config: RunConfig, run_inputs: RunInputs, forward: Mapping[str, Any]
) -> dict[str, Any]:
    """What acts in a scoring pass. forward: what acts in every pass without gradients."""
    assert config.sampling.scoring is not None
    name, data = "train_data", run_inputs.train_data
    if own_data(config) is not None and run_inputs.scoring_data is not None:
        name, data = SCORING_DATA, run_inputs.scoring_data
    inputs = {**forward, "sampling.scoring": config.sampling.scoring.key_slice()}
    inputs[name] = data.fingerprint
    if files := run_inputs.sources.get(name):
        inputs[f"{name}.source"] = dict(files)
    return inputs


def scored_artifacts(stage: Stage) -> tuple[str, ...]:
    """The artifacts of the train stage that a pass loads."""
    of_average = stage.inputs["sampling.scoring"]["weights"] == EMA.rstrip("/")
    return ("model", "ema") if of_average else ("model",)
