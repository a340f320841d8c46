"""The batches of an epoch: the data of the plan's micro-batches, in the plan's order.

Order and numbers are the same for any number of workers, and from any micro-step on: nothing is
replayed and nothing skipped. Tensors stay on the device of the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from epochal.data.loading.items import ItemSource, TensorSource, in_tensors, kept_generators
from epochal.data.loading.order import MicroBatchPlan, micro_batches
from epochal.data.loading.workers import read_ahead
from epochal.data.types import Batch, Window

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
    own: Callable[[int], range] | None = None,
) -> Generator[Batch, None, None]:
    """The epoch's micro-batches from micro-step `start` on.

    own: of a process that trains with others: from the number of an update's micro-batches to those
    that it has. Of an update of which it has none it gets a batch without samples.

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
        steps=_all_steps(plan, start) if own is None else _of_process(plan, start, own),
    )


def validation_batches(
    dataset: Any,
    *,
    batch_size: int,
    sample_ids_N: npt.NDArray[np.int64],
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> Generator[Batch, None, None]:
    """The first N samples of the data set in their own order, each once: the last batch is smaller.

    sample_ids_N: by position, shape (N,). Items that draw random numbers get the same ones in
    every epoch. Each batch is a window of its own. rank, processes: of one that takes every so
    many-th batch; each gets equally many, the last of some without samples. Raises and closes as
    `train_batches`.
    """
    plan = micro_batches(np.arange(len(sample_ids_N), dtype=np.int64), batch_size=batch_size)
    steps = _all_steps(plan, 0)
    if processes > 1:
        steps = _every_so_many(plan, rank, processes)
    return _batches(
        dataset,
        plan,
        sample_ids_N=sample_ids_N,
        weights_N=None,
        workers=workers,
        stream=("validation",),
        steps=steps,
    )


_Steps = tuple[Sequence[int], Iterator[tuple[int, Window, bool]]]
"""The micro-steps that are read; then each with its window, and whether it is without samples,
which are not read."""


def _all_steps(plan: MicroBatchPlan, start: int) -> _Steps:
    assert 0 <= start <= plan.num_micro_steps, (start, plan.num_micro_steps)
    read = range(start, plan.num_micro_steps)
    return read, ((index, plan.window(index), False) for index in read)


def _of_process(plan: MicroBatchPlan, start: int, own: Callable[[int], range]) -> _Steps:
    read = [index for index, _, empty in plan.of_process(start, own) if not empty]
    return read, plan.of_process(start, own)


def _every_so_many(plan: MicroBatchPlan, rank: int, processes: int) -> _Steps:
    count, none = plan.num_micro_steps, Window(0, last=True)
    rounds = range(rank, -(-count // processes) * processes, processes)
    steps = (
        (index, plan.window(index), False) if index < count else (index, none, True)
        for index in rounds
    )
    return range(rank, count, processes), steps


def _batches(
    dataset: Any,
    plan: MicroBatchPlan,
    *,
    sample_ids_N: npt.NDArray[np.int64],
    weights_N: npt.NDArray[np.float32] | None,
    workers: int,
    stream: tuple[int | str, ...],
    steps: _Steps,
) -> Generator[Batch, None, None]:
    micro_steps, all_steps = steps
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
        for index, window, empty in all_steps:
            if empty:
                yield Batch(None, sample_ids_N[:0], window, index)
                continue
            data = next(parts)
            positions_B = plan.slice(index)
            yield Batch(
                data=data,
                sample_ids_B=sample_ids_N[positions_B],
                window=window,
                index=index,
                weights_B=None if weights_N is None else torch.from_numpy(weights_N[positions_B]),
                repeats_B=plan.repeats(index),
                size_HW=plan.size_HW(index),
            )


def _read_here(source: ItemSource, micro_steps: Sequence[int]) -> Generator[Any, None, None]:
    for micro_step in micro_steps:
        with kept_generators():
            data = source(micro_step)
        yield data
