"""The first samples of the training data as `batches` will shape them, to try the model on."""

from __future__ import annotations

import copy
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from epochal.data.config.augment import Part
from epochal.data.errors import ConfigError, DataError, EpochalError
from epochal.data.inspection.dataset import OpenDataset
from epochal.data.inspection.item_form import difference, form
from epochal.data.inspection.item_reader import ItemReader
from epochal.data.loading.batch_sampler import sampler_cut
from epochal.data.loading.items import item_at_size, kept_generators
from epochal.data.loading.loader import train_batches
from epochal.data.loading.order import MicroBatchPlan
from epochal.data.types import Batch, seed_64
from epochal.engine.loop.resize import resized
from epochal.engine.model.batches import to_device
from epochal.engine.randomness import seeded
from epochal.tasks.computing.augmented import augmentation_of
from epochal.tasks.config.run import RunConfig
from epochal.tasks.user_code.components import Components


def first_batch(
    config: RunConfig,
    data: OpenDataset,
    components: Components,
    *,
    count: int,
    size_HW: tuple[int, int] | None = None,
    part: Part = "train",
) -> tuple[Batch, Any]:
    """The first `count` samples, and their data on the device, images at `size_HW`.

    part: whose operations of `augment` are applied. Raises TrainingFailed if an item cannot be
    read, TargetError or DataError if it is no image.
    """
    return _batch(config, data, components, np.arange(count), size_HW=size_HW, part=part)


def spread_batch(
    config: RunConfig, data: OpenDataset, components: Components, *, count: int
) -> Any:
    """The data, on the device, of `count` samples from the first to the last, evenly spread.

    Raises as `first_batch`.
    """
    positions_K = np.linspace(0, data.info.num_samples - 1, count).astype(np.int64)
    sizes = all_sizes(config)
    size_HW = sizes[0] if sizes else None
    return _batch(config, data, components, positions_K, size_HW=size_HW, part="train")[1]


def _batch(
    config: RunConfig,
    data: OpenDataset,
    components: Components,
    positions_K: npt.NDArray[np.int64],
    *,
    size_HW: tuple[int, int] | None,
    part: Part,
) -> tuple[Batch, Any]:
    count = len(positions_K)
    plan = MicroBatchPlan(
        order_K=positions_K,
        offsets_M1=np.array([0, count], dtype=np.int64),
        accumulate=1,
        sizes_M2=None if size_HW is None else np.array([size_HW], dtype=np.int64),
    )
    batches = train_batches(
        data.looked,
        plan,
        sample_ids_N=data.ids_N,
        seed=config.seed,
        epoch=0,
        collate=components.collate,
    )
    with closing(batches):
        batch = next(batches)
    moved = to_device(batch.data, components.device)
    augmentation = augmentation_of(config, part, checks=True)
    if augmentation is not None:
        try:
            moved = augmentation(moved, batch.sample_ids_B)
        except DataError as error:
            raise DataError(f"{data.field}: {error}") from None
    return batch, moved if size_HW is None else resized(moved, size_HW)


def all_sizes(config: RunConfig) -> list[tuple[int, int]]:
    """Every resolution of the run, smallest first; none where images are as they are."""
    turns = [0, *(epoch for epoch in config.batches.grow_at if epoch < config.epochs)]
    return sorted({size for epoch in turns for size in config.batches.sizes_in(epoch)})


def check_forms(config: RunConfig, train: OpenDataset, validation: OpenDataset) -> None:
    """Raises DataError if items cannot be put into one batch, since their shapes differ."""
    loader = config.loader
    if loader.collate is not None:  # it may make one batch of any
        return
    sizes = {
        train.field: (train, loader.batch_size),
        validation.field: (validation, loader.validation_batch_size or loader.batch_size),
    }
    if all_sizes(config) and item_at_size(train.looked) is not None:
        del sizes[train.field]  # training takes its items from that method, at one size
    for data, batch_size in sizes.values():
        position = data.info.unequal_at
        if position is None or batch_size == 1:
            continue
        with kept_generators():
            found = [form(ItemReader(data.looked, position + 1, data.field).item(0))]
            found.append(form(ItemReader(data.looked, position + 1, data.field).item(position)))
        where = difference(*found) or "their shapes differ from reading to reading"
        raise DataError(
            f"{data.field}: items 0 and {position} cannot be put into one batch: {where}; give all "
            "items one shape: crop, resize or pad them in the data set (texts to the longest "
            "length, with a mask), or set loader.batch_size: 1, or loader.collate, as the built-in "
            '{target: "epochal.data.loading.collate:pad", args: {keys: […]}}, keys being the parts '
            "whose lengths differ"
        )


ONE_SAMPLE = "Expected more than 1 value per channel"
"""How torch's error of a layer that fails on a single sample begins."""
_EPOCHS = 1000  # how many are looked at; each takes 1 ms with a million samples
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
REMEDY = "set loader.drop_last: true, or another loader.batch_size"


def check_last_batch(config: RunConfig, components: Components, data: OpenDataset) -> None:
    """Raises ConfigError if a whole epoch ends with one sample and the model cannot train on it.

    Tried on a copy of the model, made only where it has BatchNorm and an epoch ends so.
    """
    rows = config.epoch_rows(data.info.num_samples)
    model = components.state.model
    if not any(isinstance(module, _BATCH_NORMS) for module in model.modules()):
        return
    if not _has_single(config, rows):
        return
    sizes = config.batches.sizes_in(0)
    tried = copy.deepcopy(model).train()
    try:
        with torch.no_grad(), seeded(seed_64(config.seed, "probe")):
            size_HW = sizes[0] if sizes else None
            _, moved = first_batch(config, data, components, count=1, size_HW=size_HW)
            components.step(tried, moved)
    except EpochalError:
        raise
    except ValueError as error:
        if not str(error).startswith(ONE_SAMPLE):
            raise
        which = "batch" if config.varies_batches else "last batch"
        raise ConfigError(
            f"loader.batch_size: found {config.loader.batch_size}, and {rows} samples of "
            f"train_data leave a {which} of a single one, on which the model cannot train "
            f"({error}); {REMEDY}"
        ) from error


def _has_single(config: RunConfig, rows: int) -> bool:
    """Whether an epoch of that many rows has such a micro-batch; of the first thousand epochs."""
    epochs = min(config.epochs, _EPOCHS) if config.batches.varies_updates else 1
    for epoch in range(epochs):
        offsets_M1, _ = sampler_cut(
            config.batches,
            rows,
            batch_size=config.loader.batch_size,
            drop_last=config.loader.drop_last,
            seed=config.seed,
            epoch=epoch,
        )
        if bool((np.diff(offsets_M1) == 1).any()):
            return True
    return False
