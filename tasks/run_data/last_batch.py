"""A micro-batch of a single sample, mostly an epoch's last: tried before epoch 0.

BatchNorm over vectors cannot normalise one sample in training, and says so at the end of an epoch
that took hours. Where a policy shrinks an epoch to such a size, nothing can be known before.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from epochal.data.errors import ConfigError, EpochalError
from epochal.data.loading.batch_sampler import sampler_cut
from epochal.data.types import seed_64
from epochal.engine.randomness import seeded
from epochal.tasks.config.run import RunConfig
from epochal.tasks.run_data.probe_batches import first_batch
from epochal.tasks.run_data.run_data import RunData
from epochal.tasks.user_code.components import Components

ONE_SAMPLE = "Expected more than 1 value per channel"
"""How torch's error of a layer that fails on a single sample begins."""
_EPOCHS = 1000  # that are looked at: each of a million samples takes a millisecond
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
REMEDY = "set loader.drop_last: true, or another loader.batch_size"


def check_last_batch(config: RunConfig, components: Components, data: RunData) -> None:
    """Raises ConfigError if a whole epoch ends with one sample and the model cannot train on it.

    Tried on a copy of the model, which only models with BatchNorm and such a size pay for.
    """
    rows = config.sampler.epoch_length(data.known.num_samples)
    model = components.state.model
    if not any(isinstance(one, _BATCH_NORMS) for one in model.modules()):
        return
    if not _has_single(config, rows):
        return
    sizes = config.sampler.sizes_in(0)
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
        which = "batch" if config.sampler.varies_updates else "last batch"
        raise ConfigError(
            f"loader.batch_size: found {config.loader.batch_size}, and {rows} samples of "
            f"train_data leave a {which} of a single one, on which the model cannot train "
            f"({error}); {REMEDY}"
        ) from error


def _has_single(config: RunConfig, rows: int) -> bool:
    """Whether an epoch of that many rows has such a micro-batch; of the first thousand epochs."""
    epochs = min(config.epochs, _EPOCHS) if config.sampler.varies_updates else 1
    for epoch in range(epochs):
        offsets_M1, _ = sampler_cut(
            config.sampler,
            rows,
            batch_size=config.loader.batch_size,
            drop_last=config.loader.drop_last,
            seed=config.seed,
            epoch=epoch,
        )
        if bool((np.diff(offsets_M1) == 1).any()):
            return True
    return False
