"""The first samples of the training data as the sampler will give them, to try the model on."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np

from epochal.data.loading.loader import train_batches
from epochal.data.loading.order import MicroBatchPlan
from epochal.data.types import Batch
from epochal.engine.loop.resize import resized
from epochal.engine.model.step import to_device
from epochal.tasks.config.run import RunConfig
from epochal.tasks.run_data.run_data import RunData
from epochal.tasks.user_code.components import Components


def first_batch(
    config: RunConfig,
    data: RunData,
    components: Components,
    *,
    count: int,
    size_HW: tuple[int, int] | None = None,
) -> tuple[Batch, Any]:
    """The first `count` samples, and their data on the device, images at `size_HW`.

    Raises TrainingFailed if an item cannot be read, TargetError if it is no image.
    """
    plan = MicroBatchPlan(
        order_K=np.arange(count, dtype=np.int64),
        offsets_M1=np.array([0, count], dtype=np.int64),
        accumulate=1,
        sizes_M2=None if size_HW is None else np.array([size_HW], dtype=np.int64),
    )
    batches = train_batches(
        data.dataset, plan, sample_ids_N=data.sample_ids_N, seed=config.seed, epoch=0
    )
    with closing(batches):
        batch = next(batches)
    moved = to_device(batch.data, components.device)
    return batch, moved if size_HW is None else resized(moved, size_HW)


def all_sizes(config: RunConfig) -> list[tuple[int, int]]:
    """Every resolution of the run, smallest first; none where images are as they are."""
    turns = [0, *(epoch for epoch in config.sampler.grow_at if epoch < config.epochs)]
    return sorted({size for epoch in turns for size in config.sampler.sizes_in(epoch)})
