"""Data of a LightningDataModule, or of a LightningModule's own loaders: data set and collate."""

from __future__ import annotations

import logging
from typing import Any, Literal

from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from epochal.data.errors import TargetError

logger = logging.getLogger(__name__)

_PLAIN = (RandomSampler, SequentialSampler)
_METHODS = {"train": "train_dataloader", "validation": "val_dataloader", "test": "test_dataloader"}
Part = Literal["train", "validation", "test"]


def lightning_data(module: Any, part: Part = "train") -> Any:
    """The data set behind a DataLoader, for `train_data:` and `validation_data:`.

    module: `{target: …, args: …}` of a LightningDataModule, or of a LightningModule that has the
    loaders itself. part: train, validation or test. `prepare_data` and `setup("fit")` are called.
    Order, batch size and workers are those of `loader:` and `batches:`.

    Raises TargetError for several loaders, a sampler of one's own, or no DataLoader.
    """
    return loader_of(module, part).dataset


def lightning_collate(module: Any, part: Part = "train") -> Any:
    """The `collate_fn` of that DataLoader, for `loader.collate`."""
    return _Collate(loader_of(module, part).collate_fn)


class _Collate:
    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, items: list[Any]) -> Any:
        return self._function(items)


def loader_of(module: Any, part: Part) -> DataLoader[Any]:
    """The DataLoader of that part. Raises TargetError where its order is not ours to make."""
    name = type(module).__name__
    if part not in _METHODS:
        raise TargetError(f"args.part: found {part!r}; expected one of {', '.join(_METHODS)}")
    method = _METHODS[part]
    if not hasattr(module, method):
        raise TargetError(
            f"args.module: found a {name}, expected a LightningDataModule, or a LightningModule "
            f"with {method}"
        )
    module.prepare_data()
    module.setup("test" if part == "test" else "fit")
    loader = getattr(module, method)()
    if not isinstance(loader, DataLoader):
        raise TargetError(
            f"{method} of {name} gives a {type(loader).__name__}, expected one DataLoader; of "
            "several give a data set each by a target of your own, or their `mixture`"
        )
    sampler = loader.sampler
    own = type(loader.batch_sampler) is not BatchSampler and loader.batch_sampler is not None
    if own or not isinstance(sampler, _PLAIN):
        kind = type(loader.batch_sampler if own else sampler).__name__
        raise TargetError(
            f"{method} of {name} has a sampler of its own, {kind}: the order is a function of the "
            "seed and the epoch here. For weights by class: batches.class_balanced; by length: "
            "batches.by_length; else `sampling:`. Give the DataLoader no sampler"
        )
    return loader
