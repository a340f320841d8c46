"""Early stopping: which epoch is the last, as a pure function of the validations so far.

It is in no stage key and holds no state: the same records give the same answer in any command. It
only ends the list, so more patience goes on from there with everything cached.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from epochal.tasks.config.parts import EarlyStoppingConfig, rule

if TYPE_CHECKING:
    from epochal.data.stage_store.stages import StageRecord
    from epochal.tasks.config.run import RunConfig
    from epochal.tasks.planning.stage import Stage


def last_epoch(
    config: EarlyStoppingConfig,
    values: Sequence[float | None],
    *,
    mode: Literal["max", "min"],
) -> int | None:
    """The epoch that the list ends with, or None while it goes on.

    values: of the metric, by epoch from 0, as far as they are known; None where it was not finite,
    which is no improvement.
    """
    sign = 1.0 if mode == "max" else -1.0
    best, waited = -math.inf, 0
    for epoch, value in enumerate(values):
        if epoch < config.start:
            continue
        # The first finite value improves on nothing; from then on by more than min_delta.
        if value is not None and (best == -math.inf or sign * value > best + config.min_delta):
            best, waited = sign * value, 0
            continue
        waited += 1
        if waited >= config.patience:
            return epoch
    return None


def stopped_after(
    config: RunConfig, stages: Sequence[Stage], records: Mapping[str, StageRecord]
) -> int | None:
    """The epoch that early stopping ends this run with, by the records, or None.

    An epoch whose validation is not done yet decides nothing, nor does any after it. A run that
    ends by itself was not stopped.
    """
    if config.early_stopping is None:
        return None
    metric, mode = rule(config.early_stopping, config.metrics)
    values: list[float | None] = []
    for stage in stages:
        if stage.kind == "validate":
            record = records.get(stage.key or "")
            if record is None:
                break
            values.append(record.values["metrics"].get(metric))
    last = last_epoch(config.early_stopping, values, mode=mode)
    return None if last is None or last >= config.epochs - 1 else last


def needed_stages(
    config: RunConfig, stages: Sequence[Stage], records: Mapping[str, StageRecord]
) -> tuple[Stage, ...]:
    """The stages that belong to the run: none after the epoch that it was stopped with."""
    last = stopped_after(config, stages, records)
    if last is None:
        return tuple(stages)
    return tuple(stage for stage in stages if stage.epoch is None or stage.epoch <= last)
