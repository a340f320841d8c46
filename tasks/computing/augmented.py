"""Batches as `augment` of the config changes them, on the device, before anything else sees them.

Between the loader and the engine's loops, which know nothing of it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import torch

from epochal.data.augment.pipeline import Augmentation
from epochal.data.config.augment import Part
from epochal.data.types import Batch
from epochal.engine.model.batches import to_device
from epochal.tasks.config.run import RunConfig


def augmentation_of(
    config: RunConfig, part: Part, *, epoch: int = 0, checks: bool = False
) -> Augmentation | None:
    """What is done to the batches of that part of the run, or None where nothing is.

    checks: as of `Augmentation`.
    """
    if config.augment is None or not config.augment.operations(part):
        return None
    return Augmentation(config.augment, part, seed=config.seed, epoch=epoch, checks=checks)


def augmented(
    batches: Generator[Batch, None, None],
    config: RunConfig,
    part: Part,
    *,
    device: torch.device,
    epoch: int = 0,
) -> Generator[Batch, None, None]:
    """The batches, changed where the config says so. To close it closes `batches`.

    Raises DataError for batches that hold no images, or others than an operation takes.
    """
    augmentation = augmentation_of(config, part, epoch=epoch)
    return batches if augmentation is None else _changed(batches, augmentation, device)


def _changed(
    batches: Generator[Batch, None, None], augmentation: Augmentation, device: torch.device
) -> Generator[Batch, None, None]:
    with closing(batches):
        for batch in batches:
            if not batch.num_samples:
                yield batch
                continue
            moved = to_device(batch.data, device)
            yield replace(batch, data=augmentation(moved, batch.sample_ids_B, batch.repeats_B))
