"""Reads the items of a micro-batch and collates them, with the same numbers in any process.

A data set in tensors is indexed directly. Of any other, each item is read while the global
generators of torch, NumPy and `random` are seeded from the sample's own id: an item that draws
from them gets the same numbers with any number of workers, in any batch and after any resume.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import getitem
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Subset, TensorDataset, default_collate

from epochal.data.errors import TrainingFailed, passes_through
from epochal.data.forks import end_if_forked
from epochal.data.hashing import hash_repeated, seed_64
from epochal.data.loading.order import MicroBatchPlan
from epochal.data.traces import in_one_line

_SEED_32 = (1 << 32) - 1  # NumPy's global generator takes 32 bits
_NAMED = 8  # samples that an error names


def seed_generators(value: int) -> None:
    """Seeds the global generators of torch (CPU), NumPy and `random`; `value` in [0, 2**64)."""
    torch.default_generator.manual_seed(value >> 1)
    np.random.seed(value & _SEED_32)  # noqa: NPY002 - the global one is meant
    random.seed(value)


@contextmanager
def kept_generators() -> Iterator[None]:
    """After the block the global generators are as they were before it."""
    torch_state = torch.default_generator.get_state()
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.default_generator.set_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def in_tensors(
    dataset: Any, order_K: npt.NDArray[np.int64]
) -> tuple[TensorDataset, npt.NDArray[np.int64]] | None:
    """The tensors behind `dataset` and the order as positions in them; None if it is no such thing.

    Only `TensorDataset` itself and its `Subset`s: a subclass may give other items.
    """
    while type(dataset) is Subset:
        order_K = np.asarray(dataset.indices, dtype=np.int64)[order_K]
        dataset = dataset.dataset
    return (dataset, order_K) if type(dataset) is TensorDataset else None


class TensorSource:
    """Micro-batches out of whole tensors: one gather for each."""

    def __init__(
        self,
        dataset: TensorDataset,
        order_K: npt.NDArray[np.int64],
        offsets_M1: npt.NDArray[np.int64],
    ) -> None:
        self._tensors = dataset.tensors
        self._order_K = torch.from_numpy(np.array(order_K, dtype=np.int64))
        self._offsets: list[int] = offsets_M1.tolist()
        # Rows in order, as in validation, are a slice: copying it takes a fifth of a gather's time.
        self._first = int(order_K[0]) if len(order_K) else 0
        self._in_order = bool((np.diff(order_K) == 1).all())

    def __call__(self, micro_step: int) -> tuple[torch.Tensor, ...]:
        """`(input, target)`, each of shape (B, …)."""
        start, end = self._offsets[micro_step], self._offsets[micro_step + 1]
        if self._in_order:
            low, size = self._first + start, end - start
            return tuple([tensor.narrow_copy(0, low, size) for tensor in self._tensors])
        index_B = self._order_K[start:end]
        # On the CPU `index_select` takes half the time of `[]`; elsewhere it wants the index there.
        return tuple(
            [
                tensor.index_select(0, index_B) if tensor.is_cpu else tensor[index_B]
                for tensor in self._tensors
            ]
        )


class ItemSource:
    """Micro-batches from a data set that is read item by item, or by its `__getitems__`.

    Where the plan has resolutions and the data set a method `item_at_size(position, height,
    width)`, items come from that method.

    stream: names the use, as in (`train`, seed, epoch): other streams draw other numbers.
    `__getitems__` reads a whole batch at once, so there the generators are seeded by micro-step.
    The global generators are left seeded: in the training process, call it in `kept_generators`.
    """

    def __init__(
        self,
        dataset: Any,
        plan: MicroBatchPlan,
        *,
        sample_ids_N: npt.NDArray[np.int64],
        stream: tuple[int | str, ...],
    ) -> None:
        self._dataset = dataset
        self._plan = plan
        self._sample_ids_N = sample_ids_N
        self._stream = stream
        self._item_at_size = None if plan.sizes_M2 is None else item_at_size(dataset)
        by_batch = self._item_at_size is None and _reads_batches(dataset)
        self._read = self._by_batch if by_batch else self._by_item

    def __call__(self, micro_step: int) -> Any:
        """Raises TrainingFailed, naming sample and cause, if an item cannot be read or collated."""
        positions_B = self._plan.slice(micro_step)
        ids_B = self._sample_ids_N[positions_B]
        process = os.getpid()
        items = self._read(micro_step, positions_B, ids_B)
        end_if_forked(process)
        data = _told(lambda: default_collate(items), "put into one batch", ids_B)
        return tuple(data) if isinstance(items[0], list | tuple) and type(data) is list else data

    def _by_item(
        self, micro_step: int, positions_B: npt.NDArray[np.int64], ids_B: npt.NDArray[np.int64]
    ) -> list[Any]:
        repeats_B, item = self._plan.repeats(micro_step), partial(getitem, self._dataset)
        if self._item_at_size is not None and (size_HW := self._plan.size_HW(micro_step)):
            item = partial(self._item_at_size, height=size_HW[0], width=size_HW[1])
        seeds = hash_repeated(ids_B, repeats_B, "item", *self._stream).tolist()
        items = []
        for row, position in enumerate(positions_B.tolist()):
            seed_generators(seeds[row])
            try:
                items.append(item(position))
            except BaseException as error:  # a user's data set may raise anything
                if passes_through(error):
                    raise
                raise TrainingFailed(_message("read", ids_B[row : row + 1], error)) from error
        return items

    def _by_batch(
        self, micro_step: int, positions_B: npt.NDArray[np.int64], ids_B: npt.NDArray[np.int64]
    ) -> list[Any]:
        seed_generators(seed_64("items", *self._stream, micro_step))
        read = self._dataset.__getitems__
        items: list[Any] = _told(lambda: list(read(positions_B.tolist())), "read", ids_B)
        if len(items) != len(positions_B):
            raise TrainingFailed(
                f"{type(self._dataset).__name__}.__getitems__ gave {len(items)} items for "
                f"{len(positions_B)} positions; expected one for each, in their order"
            )
        return items


def _reads_batches(dataset: Any) -> bool:
    while type(dataset) is Subset:  # its own __getitems__ only passes on what it wraps
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


def item_at_size(dataset: Any) -> Callable[..., Any] | None:
    """The data set's method for an item at a resolution, also through Subsets; None without."""
    if type(dataset) is Subset:
        within = item_at_size(dataset.dataset)
        if within is None:
            return None
        indices = dataset.indices
        return lambda position, **size: within(indices[position], **size)
    method = getattr(dataset, "item_at_size", None)
    return method if callable(method) else None


def _told(work: Callable[[], Any], doing: str, ids_B: npt.NDArray[np.int64]) -> Any:
    try:
        return work()
    except BaseException as error:  # a user's data set may raise anything
        if passes_through(error):
            raise
        raise TrainingFailed(_message(doing, ids_B, error)) from error


def _message(doing: str, ids_B: npt.NDArray[np.int64], error: BaseException) -> str:
    named = ", ".join(map(str, ids_B[:_NAMED].tolist())) + ("…" if len(ids_B) > _NAMED else "")
    return (
        f"sample{'s' if len(ids_B) > 1 else ''} {named} of the data set could not be {doing}: "
        f"{in_one_line(error)}"
    )
