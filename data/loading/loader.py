"""The batches of an epoch: the data of the plan's micro-batches, in the plan's order.

Order and numbers are the same for any number of workers, and from any micro-step on: nothing is
replayed and nothing skipped. Tensors stay on the device of the data set.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from epochal.data.loading.items import ItemSource, TensorSource, in_tensors, kept_generators
from epochal.data.loading.order import MicroBatchPlan, micro_batches
from epochal.data.loading.workers import read_ahead
from epochal.data.types import Batch

# N samples of the data set, B of a micro-batch


def train_batches(
    dataset: Any,
    plan: MicroBatchPlan,
    *,
    sample_ids_N: npt.NDArray[np.int64],
    weights_N: npt.NDArray[np.float32] | None = None,
    workers: int = 0,
    seed: int,
    epoch: int,
    start: int = 0,
) -> Generator[Batch, None, None]:
    """The epoch's micro-batches from micro-step `start` on.

    sample_ids_N, weights_N: by position, shape (N,); batches carry weights only where some sample
    of the plan has another than 1. workers: processes that read ahead; a `TensorDataset`, and a
    `Subset` of one, is read in this process, where it is a hundred times as fast.

    Items that draw from the global generators of torch, NumPy or `random` get numbers that depend
    on (seed, epoch, sample id, how often it came before in the epoch) alone; this process's
    generators are left as they were. Where the plan has resolutions, a data set with a method
    `item_at_size(position, height, width)` gives its items by that.

    Raises TrainingFailed, naming the sample, if an item cannot be read. Close the iterator, or
    drop it, to end its workers.
    """
    weighted_N = weights_N
    if weights_N is not None and bool(np.all(weights_N[plan.order_K] == 1)):
        weighted_N = None
    return _batches(
        dataset,
        plan,
        sample_ids_N=sample_ids_N,
        weights_N=weighted_N,
        workers=workers,
        stream=("train", seed, epoch),
        start=start,
    )


def validation_batches(
    dataset: Any, *, batch_size: int, sample_ids_N: npt.NDArray[np.int64], workers: int = 0
) -> Generator[Batch, None, None]:
    """The first N samples of the data set in their own order, each once: the last batch is smaller.

    sample_ids_N: by position, shape (N,). Items that draw random numbers get the same ones in
    every epoch. Each batch is a window of its own. Raises and closes as `train_batches`.
    """
    return _batches(
        dataset,
        micro_batches(np.arange(len(sample_ids_N), dtype=np.int64), batch_size=batch_size),
        sample_ids_N=sample_ids_N,
        weights_N=None,
        workers=workers,
        stream=("validation",),
        start=0,
    )


def _batches(
    dataset: Any,
    plan: MicroBatchPlan,
    *,
    sample_ids_N: npt.NDArray[np.int64],
    weights_N: npt.NDArray[np.float32] | None,
    workers: int,
    stream: tuple[int | str, ...],
    start: int,
) -> Generator[Batch, None, None]:
    assert 0 <= start <= plan.num_micro_steps, (start, plan.num_micro_steps)
    micro_steps = range(start, plan.num_micro_steps)
    parts: Generator[Any, None, None]
    if (tensors_and_order := in_tensors(dataset, plan.order_K)) is not None:
        tensors = TensorSource(*tensors_and_order, plan.offsets_M1)
        parts = (tensors(micro_step) for micro_step in micro_steps)
    else:
        items = ItemSource(dataset, plan, sample_ids_N=sample_ids_N, stream=stream)
        workers = min(workers, len(micro_steps))
        parts = (
            read_ahead(items, micro_steps, workers=workers)
            if workers
            else _read_here(items, micro_steps)
        )
    with closing(parts):
        for index, data in zip(micro_steps, parts, strict=True):
            positions_B = plan.slice(index)
            yield Batch(
                data=data,
                sample_ids_B=sample_ids_N[positions_B],
                window=plan.window(index),
                index=index,
                weights_B=None if weights_N is None else torch.from_numpy(weights_N[positions_B]),
                repeats_B=plan.repeats(index),
                size_HW=plan.size_HW(index),
            )


def _read_here(source: ItemSource, micro_steps: range) -> Generator[Any, None, None]:
    for micro_step in micro_steps:
        with kept_generators():
            data = source(micro_step)
        yield data
