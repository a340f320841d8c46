"""The order of an epoch and its cut into micro-batches, as pure functions.

Nothing is drawn and nothing is remembered, so to resume an epoch is to go on at an index. Which of
two samples comes first depends on the seed, the epoch and their ids alone, not on which others are
kept, nor on workers or ranks.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_u64
from epochal.data.types import Window

Ints: TypeAlias = npt.NDArray[np.int64]


class Order(Protocol):
    """The rows of an epoch in order: positions, int64, a slice at a time. An array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Ints: ...


class Positions:
    """The ids of samples that have none of their own, without an array of them."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice | Ints, /) -> Ints:
        if isinstance(part, slice):
            return np.arange(*part.indices(self._count), dtype=np.int64)
        return part


Ids: TypeAlias = Ints | Positions
"""Ids by position, each once."""

# N ids, K of them to be sorted, B of one block or bucket, G buckets

ONE_BUCKET_ROWS = (
    1 << 21
)  # so many are sorted at once: splitting them would cost more than it saves
BUCKET_ROWS = 1 << 17  # their hashes and rows fit the cache
_MAX_BUCKETS = 1 << 12


def hash_order(
    ids_N: npt.NDArray[np.int64],
    *stream: int | str,
    rows_K: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Rows that sort `ids_N` by their hash of `stream`, ties by id: int64 of shape (K,).

    rows_K: those to be sorted, rising; None: all. The same as
    `np.lexsort((ids_N, hash_u64(ids_N, *stream)))`, for ids that occur once.
    """
    count = len(ids_N) if rows_K is None else len(rows_K)
    if count <= ONE_BUCKET_ROWS:
        ids_K = ids_N if rows_K is None else ids_N[rows_K]
        order_K = _sorted_rows(hash_u64(ids_K, *stream), ids_K)
        return order_K if rows_K is None else rows_K[order_K]

    def block(start: int) -> npt.NDArray[np.int64]:
        end = min(start + BUCKET_ROWS, count)
        return np.arange(start, end) if rows_K is None else rows_K[start:end]

    bits = min((count // BUCKET_ROWS).bit_length() + 1, _MAX_BUCKETS.bit_length() - 1)
    shift = np.uint64(64 - bits)
    size_G = np.zeros(1 << bits, dtype=np.int64)
    for start in range(0, count, BUCKET_ROWS):
        hash_B = hash_u64(ids_N[block(start)], *stream)
        size_G += np.bincount((hash_B >> shift).astype(np.int64), minlength=1 << bits)
    ends_G = np.cumsum(size_G)
    order_K = np.empty(count, dtype=np.int64)
    place_G = ends_G - size_G
    for start in range(0, count, BUCKET_ROWS):
        rows_B = block(start)
        bucket_B = (hash_u64(ids_N[rows_B], *stream) >> shift).astype(np.uint16)
        count_G = np.bincount(bucket_B, minlength=1 << bits)
        # Each bucket's rows go behind those that are there already.
        first_G = place_G - (np.cumsum(count_G) - count_G)
        places_B = np.arange(len(rows_B)) + np.repeat(first_G, count_G)
        order_K[places_B] = rows_B[np.argsort(bucket_B, kind="stable")]
        place_G += count_G
    for begin, end in zip((ends_G - size_G).tolist(), ends_G.tolist(), strict=True):
        rows_B = order_K[begin:end]
        ids_B = ids_N[rows_B]
        order_K[begin:end] = rows_B[_sorted_rows(hash_u64(ids_B, *stream), ids_B)]
    return order_K


def _sorted_rows(
    hash_B: npt.NDArray[np.uint64], ids_B: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Rows that sort by hash, ties by id: int64 of shape (B,)."""
    upper_B = (hash_B >> np.uint64(32)).astype(np.uint32)
    # NumPy sorts 16-bit integers by counting, in linear time.
    rows_B = np.argsort(upper_B.astype(np.uint16), kind="stable")
    rows_B = rows_B[np.argsort((upper_B >> np.uint32(16)).astype(np.uint16)[rows_B], kind="stable")]
    sorted_B = upper_B[rows_B]
    equal_B = np.flatnonzero(sorted_B[1:] == sorted_B[:-1])
    if len(equal_B):  # runs of equal upper halves, which stand together
        tied_T = np.unique(np.concatenate([equal_B, equal_B + 1]))
        rows_T = rows_B[tied_T]
        rows_B[tied_T] = rows_T[np.lexsort((ids_B[rows_T], hash_B[rows_T]))]
    return rows_B


# N samples of the data set, K rows of the epoch, B of a micro-batch, M micro-batches


def epoch_order(
    *,
    seed: int,
    epoch: int,
    sample_ids_N: npt.NDArray[np.int64],
    keep_N: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """Positions of the kept samples in the epoch's order: int64 of shape (K,).

    sample_ids_N: ids by position, each once. keep_N: bool of shape (N,); None: all are kept.
    Sorted by a hash of (seed, epoch, sample id), ties by id.
    """
    ids_N = np.asarray(sample_ids_N, dtype=np.int64)
    if keep_N is None:
        return hash_order(ids_N, "order", seed, epoch)
    assert keep_N.shape == ids_N.shape, (keep_N.shape, ids_N.shape)
    rows_K = np.flatnonzero(keep_N).astype(np.int64, copy=False)
    return hash_order(ids_N, "order", seed, epoch, rows_K=rows_K)


@dataclass(frozen=True, eq=False)
class MicroBatchPlan:
    """An epoch cut into micro-batches, in updates of `accumulate` each; the tail's may be smaller.

    order_K: positions in order, K of them, without what `drop_last` drops.
    offsets_M1: where each micro-batch begins in it, and its end: int64 of shape (M + 1,).
    repeats_K: how often the sample came before in this epoch, int64; None: each comes once.
    sizes_M2: height and width of each micro-batch's images, int64; None: as they are.
    Any micro-step is found in constant time.
    """

    order_K: Order
    offsets_M1: npt.NDArray[np.int64]
    accumulate: int
    repeats_K: Order | None = None
    sizes_M2: npt.NDArray[np.int64] | None = None

    @property
    def num_samples(self) -> int:
        """Rows of the epoch: its samples, each as often as it comes."""
        return len(self.order_K)

    @property
    def num_micro_steps(self) -> int:
        """Micro-batches of the epoch."""
        return len(self.offsets_M1) - 1

    @property
    def num_updates(self) -> int:
        """Optimizer steps of the epoch."""
        return -(-self.num_micro_steps // self.accumulate)

    @cached_property
    def _offsets(self) -> Sequence[int]:
        """`offsets_M1` as Python's integers: each step reads several, and NumPy's are slower."""
        return array("q", self.offsets_M1.astype(np.int64, copy=False).tobytes())

    def slice(self, micro_step: int) -> npt.NDArray[np.int64]:
        """Positions of the samples of that micro-step, from 0: int64 of shape (B,)."""
        self._check(micro_step)
        return self.order_K[self._offsets[micro_step] : self._offsets[micro_step + 1]]

    def repeats(self, micro_step: int) -> npt.NDArray[np.int64] | None:
        """How often each of these samples came before: int64 of shape (B,); None: never."""
        if self.repeats_K is None:
            return None
        self._check(micro_step)
        return self.repeats_K[self._offsets[micro_step] : self._offsets[micro_step + 1]]

    def size_HW(self, micro_step: int) -> tuple[int, int] | None:
        """Height and width of that micro-step's images; None: as they are."""
        if self.sizes_M2 is None:
            return None
        self._check(micro_step)
        height, width = self.sizes_M2[micro_step].tolist()
        return height, width

    def window(self, micro_step: int) -> Window:
        """The update that the micro-step belongs to."""
        self._check(micro_step)
        if self.accumulate == 1:
            return _window(self._offsets[micro_step + 1] - self._offsets[micro_step])
        first = micro_step // self.accumulate * self.accumulate
        end = min(first + self.accumulate, self.num_micro_steps)
        return Window(
            num_samples=self._offsets[end] - self._offsets[first],
            last=micro_step == end - 1,
            position=micro_step - first,
            count=end - first,
        )

    def of_process(
        self, start: int, micro_batches: Callable[[int], range]
    ) -> Iterator[tuple[int, Window, bool]]:
        """Micro-steps of one process of several, from `start` on, where an update begins.

        micro_batches: from the number of an update's micro-batches to those of the process. Each
        with its window, in which the process's own last one is the last, and whether it is empty:
        one that stands for an update of which the process has none.
        """
        for first in range(start, self.num_micro_steps, self.accumulate):
            window = self.window(first)
            own = micro_batches(window.count)
            for position in own or (own.start,):
                last = not own or position == own[-1]
                yield (
                    first + position if own else first,
                    replace(window, position=position, last=last),
                    not own,
                )

    def rows_after(self, micro_steps: int) -> int:
        """Rows of the first `micro_steps` micro-batches, 0 to all of them."""
        return int(self.offsets_M1[micro_steps])

    def _check(self, micro_step: int) -> None:
        if not 0 <= micro_step < len(self._offsets) - 1:
            raise IndexError(f"micro-step {micro_step} of an epoch of {self.num_micro_steps}")


@lru_cache(maxsize=64)
def _window(num_samples: int) -> Window:
    """The window of an update of one micro-batch. Cached: most micro-batches have one size."""
    return Window(num_samples, last=True)


def micro_batches(
    order_K: Order, *, batch_size: int, accumulate: int = 1, drop_last: bool = False
) -> MicroBatchPlan:
    """Cuts `order_K`, positions of shape (K,), into micro-batches of `batch_size` samples.

    drop_last: drop the last micro-batch if it is incomplete, unless it is the only one: an epoch
    that a policy has shrunk below one batch still trains.
    """
    assert batch_size >= 1, batch_size
    assert accumulate >= 1, accumulate
    offsets_M1 = even_offsets(len(order_K), batch_size=batch_size, drop_last=drop_last)
    if offsets_M1[-1] < len(order_K):
        order_K = order_K[: offsets_M1[-1]]
    return MicroBatchPlan(order_K=order_K, offsets_M1=offsets_M1, accumulate=accumulate)


def even_offsets(count: int, *, batch_size: int, drop_last: bool) -> npt.NDArray[np.int64]:
    """Where micro-batches of that size begin in `count` rows, and their end: int64 (M + 1,).

    drop_last: as in `micro_batches`.
    """
    whole = count // batch_size * batch_size
    end = whole if drop_last and whole else count
    return np.append(np.arange(0, end, batch_size, dtype=np.int64), end)
