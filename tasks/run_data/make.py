"""The data set that a config's target gives, and what of it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epochal.data.types import seed_64
from epochal.tasks.config.run import RunConfig
from epochal.tasks.runs.run_sources import DataField, data_fields
from epochal.tasks.user_code.targets import call_target


def make_dataset(config: RunConfig, field: DataField) -> Any:
    """The data set that the target gives, under the names of `batch`. Raises TargetError.

    What it draws is the same in every process, for all fields and whatever the run's seed: two
    fields may name the two parts of one random split.
    """
    from epochal.data.datasets.hugging_face import adapted
    from epochal.engine.randomness import seeded

    with seeded(seed_64("data")):
        dataset = call_target(data_fields(config)[field], field=field, folder=Path(config.folder))
    dataset = adapted(dataset, name=field)
    if config.batch is None:
        return dataset
    from epochal.data.loading.named_items import named

    return named(dataset, config.batch, field=field)


def without(dataset: Any, bad: Sequence[int]) -> Any:
    """The data set without the samples at these positions."""
    if not bad:
        return dataset
    import numpy as np
    from torch.utils.data import Subset

    good_K = np.delete(np.arange(len(dataset), dtype=np.int64), list(bad))
    return Subset(dataset, good_K.tolist())
