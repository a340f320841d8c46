"""The batches of an epoch: the data of the plan's micro-batches, in the plan's order.

Order and numbers are the same for any number of workers, and from any micro-step on: nothing is
replayed and nothing skipped. Tensors stay on the device of the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from epochal.data.loading.collate import Collate
from epochal.data.loading.items import (
    ItemSource,
    TensorSource,
    as_it_is,
    in_tensors,
    kept_generators,
)
from epochal.data.loading.lazy_order import LAZY_ROWS
from epochal.data.loading.order import Ids, MicroBatchPlan, Order, Positions, micro_batches
from epochal.data.loading.readers import HERE, Readers, check_threads
from epochal.data.loading.threads import read_in_threads
from epochal.data.loading.workers import read_ahead
from epochal.data.types import Batch, Window

# N samples of the data set, B of a micro-batch

_PART_ROWS = 1 << 20


def train_batches(
    dataset: Any,
    plan: MicroBatchPlan,
    *,
    sample_ids_N: Ids,
    weights_N: npt.NDArray[np.float32] | None = None,
    readers: Readers = HERE,
    seed: int,
    epoch: int,
    start: int = 0,
    own: Callable[[int], range] | None = None,
    collate: Collate | None = None,
) -> Generator[Batch, None, None]:
    """The epoch's micro-batches from micro-step `start` on.

    own: of a process that trains with others: from the number of an update's micro-batches to those
    that it has. Of an update of which it has none it gets a batch without samples.

    sample_ids_N, weights_N: by position, shape (N,); batches carry weights only where some sample
    of the plan has another than 1. readers: who reads ahead; threads do for a data set that is
    `thread_safe`. A `TensorDataset`, and a `Subset` of one, is read in this thread, where it is a
    hundred times as fast.
    collate: makes a batch of items, also of a `TensorDataset`'s; None: as torch does by default.

    Items that draw from the global generators of torch, NumPy or `random` get numbers that depend
    on (seed, epoch, sample id, how often it came before in the epoch) alone; this process's
    generators are left as they were. Where the plan has resolutions, a data set with a method
    `item_at_size(position, height, width)` gives its items by that.

    Raises TrainingFailed, naming the sample, if an item cannot be read. Close the iterator, or
    drop it, to end its workers and threads.
    """
    weighted_N = weights_N
    if weights_N is not None and not _has_weights(plan, weights_N):
        weighted_N = None
    return _batches(
        dataset,
        plan,
        sample_ids_N=sample_ids_N,
        weights_N=weighted_N,
        readers=readers,
        stream=("train", seed, epoch),
        collate=collate,
        steps=_all_steps(plan, start) if own is None else _of_process(plan, start, own),
    )


def _in_order(count: int) -> Order:
    return np.arange(count, dtype=np.int64) if count <= LAZY_ROWS else Positions(count)


def _has_weights(plan: MicroBatchPlan, weights_N: npt.NDArray[np.float32]) -> bool:
    """Whether some sample of the plan has another weight than 1."""
    if bool(np.all(weights_N == 1)):
        return False
    starts = range(0, plan.num_samples, _PART_ROWS)
    parts = (plan.order_K[start : start + _PART_ROWS] for start in starts)
    return any(bool(np.any(weights_N[rows_B] != 1)) for rows_B in parts)


def validation_batches(
    dataset: Any,
    *,
    batch_size: int,
    sample_ids_N: Ids,
    readers: Readers = HERE,
    rank: int = 0,
    processes: int = 1,
    collate: Collate | None = None,
) -> Generator[Batch, None, None]:
    """The first N samples of the data set in their own order, each once: the last batch is smaller.

    sample_ids_N: by position, shape (N,). Items that draw random numbers get the same ones in
    every epoch. Each batch is a window of its own. rank, processes: of one that takes every so
    many-th batch; each gets equally many, the last of some without samples. The rest, and what is
    raised, as in `train_batches`.
    """
    plan = micro_batches(_in_order(len(sample_ids_N)), batch_size=batch_size)
    steps = _all_steps(plan, 0)
    if processes > 1:
        steps = _every_so_many(plan, rank, processes)
    return _batches(
        dataset,
        plan,
        sample_ids_N=sample_ids_N,
        weights_N=None,
        readers=readers,
        stream=("validation",),
        collate=collate,
        steps=steps,
    )


_Steps = tuple[Collection[int], Iterator[tuple[int, Window, bool]]]
"""The micro-steps that are read; then each with its window, and whether it is without samples,
which are not read."""


def _all_steps(plan: MicroBatchPlan, start: int) -> _Steps:
    assert 0 <= start <= plan.num_micro_steps, (start, plan.num_micro_steps)
    read = range(start, plan.num_micro_steps)
    return read, ((index, plan.window(index), False) for index in read)


def _of_process(plan: MicroBatchPlan, start: int, own: Callable[[int], range]) -> _Steps:
    return _OwnSteps(plan, start, own), plan.of_process(start, own)


class _OwnSteps(Collection[int]):
    """The micro-steps of one process, from `start` on; their number is known without a list."""

    def __init__(self, plan: MicroBatchPlan, start: int, own: Callable[[int], range]) -> None:
        self._plan, self._start, self._own = plan, start, own

    def __iter__(self) -> Iterator[int]:
        steps = self._plan.of_process(self._start, self._own)
        return (index for index, _, empty in steps if not empty)

    def __len__(self) -> int:
        whole, rest = divmod(self._plan.num_micro_steps - self._start, self._plan.accumulate)
        return whole * len(self._own(self._plan.accumulate)) + (len(self._own(rest)) if rest else 0)

    def __contains__(self, index: object) -> bool:
        return any(index == one for one in self)


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
    sample_ids_N: Ids,
    weights_N: npt.NDArray[np.float32] | None,
    readers: Readers,
    stream: tuple[int | str, ...],
    collate: Collate | None,
    steps: _Steps,
) -> Generator[Batch, None, None]:
    micro_steps, all_steps = steps
    parts: Generator[Any, None, None]
    tensors_and_order = None if collate is not None else in_tensors(dataset, plan.order_K)
    if tensors_and_order is not None:
        tensors = TensorSource(*tensors_and_order, plan.offsets_M1)
        parts = (tensors(micro_step) for micro_step in micro_steps)
    else:
        if readers.threads:
            check_threads(dataset, named="the data set")
        items = ItemSource(dataset, plan, sample_ids_N=sample_ids_N, stream=stream, collate=collate)
        parts = _read(items, micro_steps, readers)
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


def _read(
    items: ItemSource, micro_steps: Collection[int], readers: Readers
) -> Generator[Any, None, None]:
    ready = _pinned if readers.pin else as_it_is
    if readers.threads:
        threads = max(1, min(readers.threads, len(micro_steps) - 1))
        return read_in_threads(
            items, micro_steps, threads=threads, prefetch=readers.prefetch, ready=ready
        )
    if workers := min(readers.workers, len(micro_steps)):
        return read_ahead(
            items,
            micro_steps,
            workers=workers,
            prefetch=readers.prefetch,
            pin=readers.pin,
            telling=items.telling,
        )
    return _read_here(items, micro_steps, ready)


def _read_here(
    source: ItemSource, micro_steps: Collection[int], ready: Callable[[Any], Any]
) -> Generator[Any, None, None]:
    tell = source.telling(micro_steps)
    for micro_step in micro_steps:
        tell(micro_step)
        with kept_generators():
            data = source(micro_step)
        yield ready(data)


def _pinned(data: Any) -> Any:
    return pin_memory(data, "cuda")  # type: ignore[no-untyped-call]  # torch gives it no types
