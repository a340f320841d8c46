"""Reads the items of a micro-batch and collates them, with the same numbers in any process.

A data set in tensors is indexed directly. Of any other, each item is read while the global
generators of torch, NumPy and `random` are seeded from the sample's own id: an item that draws
from them gets the same numbers with any number of workers, in any batch and after any resume.

Those generators are one for the whole process, so several threads may read a data set only where
its items draw nothing from them. It says so by `thread_safe = True`, and is held to it: wherever
nothing else draws meanwhile, their states are compared before and after.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import getitem
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset, get_worker_info
from torch.utils.data._utils.collate import collate as collate_by_type
from torch.utils.data._utils.collate import default_collate_fn_map

from epochal.data.config.loader import COLLATE
from epochal.data.errors import TrainingFailed, passes_through
from epochal.data.forks import end_if_forked
from epochal.data.hashing import hash_repeated, seed_64
from epochal.data.loading.ahead import Telling, telling
from epochal.data.loading.collate import Collate, check_collated
from epochal.data.loading.in_memory import InMemory
from epochal.data.loading.order import Ids, MicroBatchPlan, Order
from epochal.data.traces import in_one_line

_SEED_32 = (1 << 32) - 1  # NumPy's global generator takes 32 bits
_NAMED = 8  # samples that an error names
_READINGS = 3  # of a batch of which something has drawn: another thread of the process may have
_FEW_BYTES = 1 << 14  # of an item, that torch's own `stack` copies as fast
_NO_COLLATE = (
    f"; give items one shape, or a {COLLATE} that makes a batch of them (the built-in "
    "epochal.data.loading.collate:pad pads lengths, and leaves texts and None in lists)"
)


def seed_generators(value: int) -> None:
    """Seeds the global generators of torch (CPU), NumPy and `random`; `value` in [0, 2**64)."""
    torch.default_generator.manual_seed(value >> 1)
    np.random.seed(value & _SEED_32)  # noqa: NPY002 - the global one is meant
    random.seed(value)


def as_it_is(data: Any) -> Any:
    """What it is given."""
    return data


def _states() -> dict[str, Any]:
    """Of each global generator its state, as values that can be compared."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global one is meant
    return {
        "torch": torch.default_generator.get_state().numpy().tobytes(),
        "NumPy": (kind, np.asarray(keys).tobytes(), *rest),
        "random": random.getstate(),
    }


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


def in_tensors(dataset: Any, order_K: Order) -> tuple[TensorDataset, Order] | None:
    """The tensors behind `dataset` and the order as positions in them; None if it is no such thing.

    Only `TensorDataset` and `InMemory` themselves and their `Subset`s: a subclass may give other
    items.
    """
    while type(dataset) is Subset:
        order_K = np.asarray(dataset.indices, dtype=np.int64)[order_K[:]]
        dataset = dataset.dataset
    return (dataset, order_K) if type(dataset) in {TensorDataset, InMemory} else None


class TensorSource:
    """Micro-batches out of whole tensors: one gather for each."""

    def __init__(
        self,
        dataset: TensorDataset,
        order_K: Order,
        offsets_M1: npt.NDArray[np.int64],
    ) -> None:
        self._tensors = dataset.tensors
        self._as_batch = dataset.as_item if isinstance(dataset, InMemory) else tuple
        # A lazy order is left as it is: a part of it is found at each step.
        self._lazy_K = None if isinstance(order_K, np.ndarray) else order_K
        order_K = order_K[:1] if self._lazy_K is not None else order_K[:]
        self._order_K = torch.from_numpy(np.array(order_K, dtype=np.int64))
        self._offsets: list[int] = offsets_M1.tolist()
        # Rows in order, as in validation, are a slice: copying it takes a fifth of a gather's time.
        self._first = int(order_K[0]) if len(order_K) else 0
        self._in_order = self._lazy_K is None and bool((np.diff(order_K) == 1).all())

    def __call__(self, micro_step: int) -> Any:
        """`(input, target)`, each of shape (B, …), or a dict of such parts."""
        start, end = self._offsets[micro_step], self._offsets[micro_step + 1]
        if self._in_order:
            low, size = self._first + start, end - start
            return self._as_batch([one.narrow_copy(0, low, size) for one in self._tensors])
        index_B = (
            self._order_K[start:end]
            if self._lazy_K is None
            else torch.from_numpy(np.array(self._lazy_K[start:end]))
        )
        # On the CPU `index_select` takes half the time of `[]`; elsewhere it wants the index there.
        return self._as_batch(
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
    `__getitems__` reads a whole batch at once, so there the generators are seeded by micro-step;
    so they are for `collate`, which makes the batch of the items; None: torch's default.
    The global generators are left seeded: in the training process, call it in `kept_generators`.
    thread_safe: whether the data set says that several threads may read it.
    """

    def __init__(
        self,
        dataset: Any,
        plan: MicroBatchPlan,
        *,
        sample_ids_N: Ids,
        stream: tuple[int | str, ...],
        collate: Collate | None = None,
    ) -> None:
        self._dataset = dataset
        self._collate = collate
        self._plan = plan
        self._sample_ids_N = sample_ids_N
        self._stream = stream
        self._item_at_size = None if plan.sizes_M2 is None else item_at_size(dataset)
        # What is read in whole batches and transformed item by item (`data.augment.wrapper`).
        self._transform = getattr(dataset, "transform_item", None)
        if self._transform is not None:
            if self._item_at_size is None and _reads_batches(dataset.untransformed):
                self._dataset = dataset.untransformed
            else:
                self._transform = None
        by_batch = self._item_at_size is None and _reads_batches(self._dataset)
        self._read = self._by_batch if by_batch else self._by_item
        self.thread_safe = is_thread_safe(dataset)

    def telling(self, micro_steps: Iterable[int]) -> Telling:
        """What tells the data set which of its blocks come next, where these are read."""
        return telling(self._dataset, self._plan, micro_steps)

    @property
    def has_collate(self) -> bool:
        """Whether batches are made by a collate that may draw, so not in a thread."""
        return self._collate is not None

    def __call__(self, micro_step: int) -> Any:
        """Raises TrainingFailed, naming sample and cause, if an item cannot be read or collated.

        Also if a data set that says it is safe to read in threads has drawn from a global
        generator. No other thread may draw meanwhile.
        """
        return self.collated(micro_step, self._checked(micro_step))

    def beside_others(self, micro_step: int) -> Any:
        """Of a thread-safe data set the batch, read while other threads read and draw.

        With a collate, the items: they become a batch by `collated`, in the thread that trains.
        """
        process = os.getpid()
        positions_B = self._plan.slice(micro_step)
        ids_B = self._sample_ids_N[positions_B]
        items = self._read(micro_step, positions_B, ids_B)
        end_if_forked(process)
        if self._collate is not None:
            return items
        data = _told(lambda: _stacked(items), "put into one batch", ids_B, hint=_NO_COLLATE)
        return tuple(data) if isinstance(items[0], list | tuple) and type(data) is list else data

    def collated(self, micro_step: int, data: Any) -> Any:
        """The batch, from what `beside_others` gives; draws only where there is a collate."""
        collate = self._collate
        if collate is None:
            return data
        ids_B = self._sample_ids_N[self._plan.slice(micro_step)]
        count = len(data)  # a collate may change the list that it is given
        seed_generators(seed_64("collate", *self._stream, micro_step))
        doing = f"put into one batch by {COLLATE}"
        batch = _told(lambda: collate(data), doing, ids_B)
        _told(lambda: check_collated(batch, count=count), doing, ids_B)
        return batch

    def _checked(self, micro_step: int) -> Any:
        """As `beside_others`; raises TrainingFailed if a thread-safe data set has drawn."""
        if not self.thread_safe:
            return self.beside_others(micro_step)
        for _ in range(_READINGS):
            before = _states()
            data = self.beside_others(micro_step)
            after = _states()
            if before == after:
                return data
        drawn = ", ".join(name for name, state in before.items() if state != after[name])
        ids_B = self._sample_ids_N[self._plan.slice(micro_step)]
        raise TrainingFailed(
            f"the data set says thread_safe = True, and {_samples(ids_B)} drew from the global "
            f"generator of {drawn}; in threads such numbers come in no certain order: draw from a "
            "generator that is made of the sample's id, as in np.random.default_rng([seed, id]), "
            "or leave thread_safe out"
        )

    def _by_item(
        self, micro_step: int, positions_B: npt.NDArray[np.int64], ids_B: npt.NDArray[np.int64]
    ) -> list[Any]:
        repeats_B, item = self._plan.repeats(micro_step), partial(getitem, self._dataset)
        if self._item_at_size is not None and (size_HW := self._plan.size_HW(micro_step)):
            item = partial(self._item_at_size, height=size_HW[0], width=size_HW[1])
        seeds = hash_repeated(ids_B, repeats_B, "item", *self._stream).tolist()
        items = []
        for row, position in enumerate(positions_B.tolist()):
            if not self.thread_safe:
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
        if not self.thread_safe:
            seed_generators(seed_64("items", *self._stream, micro_step))
        read = self._dataset.__getitems__
        items: list[Any] = _told(lambda: list(read(positions_B.tolist())), "read", ids_B)
        if len(items) != len(positions_B):
            raise TrainingFailed(
                f"{type(self._dataset).__name__}.__getitems__ gave {len(items)} items for "
                f"{len(positions_B)} positions; expected one for each, in their order"
            )
        if self._transform is None:
            return items
        seeds = hash_repeated(ids_B, self._plan.repeats(micro_step), "item", *self._stream)
        made = []
        for row, (item, seed) in enumerate(zip(items, seeds.tolist(), strict=True)):
            seed_generators(seed)
            transform = partial(self._transform, item)
            made.append(_told(transform, "transformed", ids_B[row : row + 1]))
        return made


def _reads_batches(dataset: Any) -> bool:
    while type(dataset) is Subset:  # its own __getitems__ only passes on what it wraps
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


def is_thread_safe(dataset: Any) -> bool:
    """Whether several threads may read items of the data set at once, as it says itself."""
    while type(dataset) is Subset:
        dataset = dataset.dataset
    return type(dataset) is TensorDataset or getattr(dataset, "thread_safe", False) is True


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


def _told(
    work: Callable[[], Any], doing: str, ids_B: npt.NDArray[np.int64], *, hint: str = ""
) -> Any:
    try:
        return work()
    except BaseException as error:  # a user's data set may raise anything
        if passes_through(error):
            raise
        raise TrainingFailed(f"{_message(doing, ids_B, error)}{hint}") from error


def _message(doing: str, ids_B: npt.NDArray[np.int64], error: BaseException) -> str:
    return f"{_samples(ids_B)} of the data set could not be {doing}: {in_one_line(error)}"


def _samples(ids_B: npt.NDArray[np.int64]) -> str:
    named = ", ".join(map(str, ids_B[:_NAMED].tolist())) + ("…" if len(ids_B) > _NAMED else "")
    return f"sample{'s' if len(ids_B) > 1 else ''} {named}"


def _stacked(items: list[Any]) -> Any:
    """As `default_collate`, large tensors stacked by one thread."""
    return collate_by_type(items, collate_fn_map=_COLLATE)


def _stack(batch: list[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    """Tensors of one shape as one, of shape (B, …).

    By NumPy: of a batch of images torch shares the copy out to all of its threads, which wait for
    each other; with other work on the processors that took 2.7 ms of them an image, by NumPy 0.5.
    """
    first = batch[0]
    # In a worker torch stacks into memory that the reader sees, in its one thread.
    if get_worker_info() is not None or not all(_is_plain(item, first) for item in batch):
        stacked: Tensor = default_collate_fn_map[Tensor](batch, collate_fn_map=collate_fn_map)
        return stacked
    whole = torch.empty((len(batch), *first.shape), dtype=first.dtype)
    rows = whole.numpy()
    for row, item in enumerate(batch):
        rows[row] = item.numpy()
    return whole


def _is_plain(item: Tensor, first: Tensor) -> bool:
    return (
        type(item) is Tensor
        and item.is_cpu
        and item.layout is torch.strided
        and not item.requires_grad
        and item.dtype is first.dtype
        and item.dtype is not torch.bfloat16  # NumPy has none
        and item.shape == first.shape
        and item.nbytes > _FEW_BYTES
    )


_COLLATE = {**default_collate_fn_map, Tensor: _stack}
