"""The last micro-batch of an epoch, if it is a single sample: tried before epoch 0.

BatchNorm over vectors cannot normalise one sample in training, and says so at the end of an epoch
that took hours. Where a policy shrinks an epoch to such a size, nothing can be known before.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from epochal.data.errors import ConfigError, EpochalError
from epochal.data.loader import validation_batches
from epochal.data.types import seed_64
from epochal.engine.randomness import seeded
from epochal.engine.step import to_device
from epochal.tasks.components import Components
from epochal.tasks.config import RunConfig
from epochal.tasks.data_access import RunData

ONE_SAMPLE = "Expected more than 1 value per channel"
"""How torch's error of a layer that fails on a single sample begins."""
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
REMEDY = "set loader.drop_last: true, or another loader.batch_size"


def check_last_batch(config: RunConfig, components: Components, data: RunData) -> None:
    """Raises ConfigError if a whole epoch ends with one sample and the model cannot train on it.

    Tried on a copy of the model, which only models with BatchNorm and such a size pay for.
    """
    samples, size = data.known.num_samples, config.loader.batch_size
    left = samples % size
    if (left or size) != 1 or (config.loader.drop_last and samples > size):
        return
    model = components.state.model
    if not any(isinstance(one, _BATCH_NORMS) for one in model.modules()):
        return
    batches = validation_batches(
        data.dataset, batch_size=1, sample_ids_N=data.sample_ids_N[:1], workers=0
    )
    tried = copy.deepcopy(model).train()
    try:
        with torch.no_grad(), seeded(seed_64(config.seed, "probe")):
            components.step(tried, to_device(next(iter(batches)).data, components.device))
    except EpochalError:
        raise
    except ValueError as error:
        if not str(error).startswith(ONE_SAMPLE):
            raise
        raise ConfigError(
            f"loader.batch_size: found {size}, and {samples} samples of train_data leave a last "
            f"batch of a single one, on which the model cannot train ({error}); {REMEDY}"
        ) from error
