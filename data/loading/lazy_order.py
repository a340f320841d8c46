"""Orders that are never made as a whole: each slice is found from its place alone.

Pure functions, as `epoch_order` is: the global order of a hundred million samples, and the order
by blocks, in which rows that lie together in storage are read together; then what is made of an
order: epochs of a length of their own, micro-batches by the lengths of their samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from epochal.data.errors import DataError
from epochal.data.hashing import hash_u64
from epochal.data.loading.order import ONE_BUCKET_ROWS, Ids, Ints, Order, epoch_order, hash_order

# N samples of the data set, K rows of the epoch, W windows of an order, G blocks of the storage,
# B rows of a part, M micro-batches

LAZY_ROWS = 1 << 24
"""Above so many rows an order is found in parts: as a whole it takes 8 bytes for each."""
_MAX_WINDOWS = 64  # of the global order: each is found by a pass over all hashes
_PART_ROWS = 1 << 16
_WALK_ROWS = 1 << 20
_KEPT_WINDOWS = 3  # in memory: a micro-batch may reach into the next, and read-ahead beyond


class LazyOrder(ABC):
    """Rows in windows, one after the other; a window is made when something of it is asked for.

    A slice gives an array of positions, int64. Two processes find the same.
    """

    repeating = False
    """Whether a row may come more than once."""
    _count: int | None = None
    _recent: tuple[tuple[int, Ints], ...] = ()

    @property
    @abstractmethod
    def starts_W1(self) -> Ints:
        """Where each window begins in the order, and its end: int64 of shape (W + 1,)."""

    @abstractmethod
    def rows_of(self, window: int) -> Ints:
        """The positions of that window in order: int64."""

    def __len__(self) -> int:
        return int(self.starts_W1[-1]) if self._count is None else self._count

    def __getitem__(self, part: slice, /) -> Ints:
        start, stop, step = part.indices(len(self))
        assert step == 1, part
        if stop <= start:
            return np.empty(0, dtype=np.int64)
        first = int(np.searchsorted(self.starts_W1, start, side="right")) - 1
        end = int(np.searchsorted(self.starts_W1, stop, side="left"))
        found = []
        for window in range(first, end):
            begin = int(self.starts_W1[window])
            found.append(self._window(window)[max(start - begin, 0) : stop - begin])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _window(self, window: int) -> Ints:
        # Threads may make one twice; none sees half of it.
        for number, rows in self._recent:
            if number == window:
                return rows
        rows_B = self.rows_of(window)
        self._recent = (*self._recent, (window, rows_B))[-_KEPT_WINDOWS:]
        return rows_B

    def head(self, count: int) -> Self:
        """The first `count` rows of it."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _count=min(count, len(self)))
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": ()}


def head(order: Order, count: int) -> Order:
    """The first `count` rows of an order."""
    return order.head(count) if isinstance(order, LazyOrder) else order[:count]


class GlobalOrder(LazyOrder):
    """What `epoch_order` gives, found in windows of hashes.

    The first slice takes one pass over the hashes of all samples, each further window another:
    about 1 s for 100 M samples.
    """

    def __init__(
        self, *, seed: int, epoch: int, sample_ids_N: Ids, keep_N: npt.NDArray[np.bool_] | None
    ) -> None:
        self._ids_N = sample_ids_N
        self._keep_N = keep_N
        self._stream = ("order", seed, epoch)
        self._rows = len(sample_ids_N) if keep_N is None else int(np.count_nonzero(keep_N))
        self._bits = min(
            (self._rows // ONE_BUCKET_ROWS).bit_length(), _MAX_WINDOWS.bit_length() - 1
        )
        self._guess = 0

    def __len__(self) -> int:
        return self._rows if self._count is None else self._count

    def __getitem__(self, part: slice, /) -> Ints:
        if "starts_W1" not in self.__dict__:
            # The window that probably has it is found in the pass that counts all windows.
            self._guess = (part.indices(len(self))[0] << self._bits) // max(1, self._rows)
        return super().__getitem__(part)

    @cached_property
    def starts_W1(self) -> Ints:
        """Where each window begins in the order, and its end: int64 of shape (W + 1,)."""
        size_W = np.zeros(1 << self._bits, dtype=np.int64)
        found = []
        for rows_B, window_B in self._parts():
            size_W += np.bincount(window_B, minlength=len(size_W))
            found.append(rows_B[window_B == self._guess])
        self._recent = ((self._guess, self._sorted(found)),)
        return np.concatenate([[0], np.cumsum(size_W)])

    def rows_of(self, window: int) -> Ints:
        """The positions whose hashes begin with the window's number."""
        return self._sorted([rows_B[window_B == window] for rows_B, window_B in self._parts()])

    def _sorted(self, found: list[Ints]) -> Ints:
        rows_B = np.concatenate(found)
        return rows_B[hash_order(self._ids_N[rows_B], *self._stream)]

    def _parts(self) -> Iterator[tuple[Ints, Ints]]:
        """Kept positions, in parts, and the window of each."""
        shift = np.uint64(64 - self._bits) if self._bits else None
        for start in range(0, len(self._ids_N), _PART_ROWS):
            rows_B = np.arange(start, min(start + _PART_ROWS, len(self._ids_N)))
            if self._keep_N is not None:
                rows_B = rows_B[self._keep_N[start : start + _PART_ROWS]]
            hash_B = hash_u64(self._ids_N[rows_B], *self._stream)
            yield (
                rows_B,
                np.zeros(len(rows_B), dtype=np.int64)
                if shift is None
                else (hash_B >> shift).astype(np.int64),
            )


class BlockOrder(LazyOrder):
    """Blocks in the order of a hash of (seed, epoch, block); within windows of several, rows.

    A window has the kept rows of `window_blocks` blocks, sorted by a hash of (seed, epoch, sample
    id), ties by id. So to go on anywhere takes no more than one window.
    """

    def __init__(
        self,
        *,
        seed: int,
        epoch: int,
        sample_ids_N: Ids,
        keep_N: npt.NDArray[np.bool_] | None,
        blocks_G1: Ints,
        window_blocks: int,
    ) -> None:
        self._ids_N = sample_ids_N
        self._keep_N = keep_N
        self._stream = ("order", seed, epoch)
        self._begin_G, self._end_G = blocks_G1[:-1], blocks_G1[1:]
        count = len(self._begin_G)
        self._blocks_G = hash_order(np.arange(count), "blocks", seed, epoch)
        self._window_blocks = window_blocks
        size_G = _kept_in_blocks(blocks_G1, keep_N)[self._blocks_G]
        size_W = np.add.reduceat(size_G, np.arange(0, count, window_blocks))
        self._starts_W1 = np.concatenate([[0], np.cumsum(size_W)])

    @property
    def starts_W1(self) -> Ints:
        """Where each window begins in the order, and its end: int64 of shape (W + 1,)."""
        return self._starts_W1

    def rows_of(self, window: int) -> Ints:
        """The positions of the kept rows of the window's blocks, in order."""
        first = window * self._window_blocks
        blocks = np.sort(self._blocks_G[first : first + self._window_blocks])
        rows_B = np.concatenate(
            [np.arange(self._begin_G[one], self._end_G[one], dtype=np.int64) for one in blocks]
        )
        if self._keep_N is not None:
            rows_B = rows_B[self._keep_N[rows_B]]
        return rows_B[hash_order(self._ids_N[rows_B], *self._stream)]


def _kept_in_blocks(blocks_G1: Ints, keep_N: npt.NDArray[np.bool_] | None) -> Ints:
    size_G = np.diff(blocks_G1)
    if keep_N is None:
        return size_G
    kept_G = np.zeros(len(size_G), dtype=np.int64)
    some_G = size_G > 0  # `reduceat` of an empty part gives the element after it
    if some_G.any():
        kept_G[some_G] = np.add.reduceat(
            keep_N.view(np.uint8), blocks_G1[:-1][some_G], dtype=np.int64
        )
    return kept_G


class Repeated(LazyOrder):
    """Each row of an order so many times, one after the other."""

    repeating = True

    def __init__(self, order: LazyOrder, repeats: int) -> None:
        self._order = order
        self._repeats = repeats
        self._starts_W1 = np.append(
            np.arange(0, len(order) * repeats, _PART_ROWS * repeats), len(order) * repeats
        )

    @property
    def starts_W1(self) -> Ints:
        """Where each window begins in the order, and its end: int64 of shape (W + 1,)."""
        return self._starts_W1

    def rows_of(self, window: int) -> Ints:
        """A part of the order, repeated."""
        first = window * _PART_ROWS
        return np.repeat(self._order[first : first + _PART_ROWS], self._repeats)


class Turns:
    """How often the row came before, in an order of `Repeated`."""

    def __init__(self, count: int, repeats: int) -> None:
        self._count = count
        self._repeats = repeats

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice, /) -> Ints:
        return np.arange(*part.indices(self._count), dtype=np.int64) % self._repeats


def pass_order(
    *,
    seed: int,
    number: int,
    sample_ids_N: Ids,
    keep_N: npt.NDArray[np.bool_] | None = None,
    blocks_G1: Ints | None = None,
    window_blocks: int,
) -> Order:
    """One pass over the kept samples in a new order: by blocks where they are given, else global.

    number: of the pass; an epoch's, unless epochs have a length of their own.
    """
    if blocks_G1 is not None:
        return BlockOrder(
            seed=seed, epoch=number, sample_ids_N=sample_ids_N, keep_N=keep_N,
            blocks_G1=blocks_G1, window_blocks=window_blocks,
        )  # fmt: skip
    if len(sample_ids_N) > LAZY_ROWS:
        return GlobalOrder(seed=seed, epoch=number, sample_ids_N=sample_ids_N, keep_N=keep_N)
    return epoch_order(seed=seed, epoch=number, sample_ids_N=sample_ids_N[:], keep_N=keep_N)


class Walk(LazyOrder):
    """Rows `start` to `start + count` of an endless sequence of passes.

    pass_of: takes `number`, from 0 on, and gives that pass over `num_samples` rows.
    """

    def __init__(
        self, pass_of: Callable[..., Order], *, num_samples: int, start: int, count: int
    ) -> None:
        self._pass_of = pass_of
        self._num_samples = num_samples
        self._start = start
        self.repeating = start // num_samples != (start + count - 1) // num_samples
        first, end = start // num_samples, -(-(start + count) // num_samples)
        turns = num_samples * np.arange(first + 1, end, dtype=np.int64) - start
        parts = np.arange(0, count, _WALK_ROWS, dtype=np.int64)
        self._starts_W1 = np.append(np.unique(np.concatenate([parts, turns])), count)
        self._passes: tuple[tuple[int, Order], ...] = ()

    @property
    def starts_W1(self) -> Ints:
        """Where each window begins in the order, and its end: int64 of shape (W + 1,)."""
        return self._starts_W1

    def rows_of(self, window: int) -> Ints:
        """A part of one pass."""
        begin, end = (self._start + self._starts_W1[window : window + 2]).tolist()
        number, first = divmod(begin, self._num_samples)
        return self._pass(number)[first : first + end - begin]

    def _pass(self, number: int) -> Order:
        for known, order in self._passes:
            if known == number:
                return order
        order = self._pass_of(number=number)
        self._passes = (*self._passes[-1:], (number, order))
        return order

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_passes": ()}


class ByLength(LazyOrder):
    """An order in whose windows samples of like length stand together.

    Of each window of `batches` times `batch_size` rows these are sorted by length, ties as they
    were, and cut into micro-batches, which are then sorted by a hash of (seed, epoch, window,
    number). tokens: cut as `token_offsets` cuts; None: of `batch_size`, where a smaller one at the
    end of the epoch stays there.
    """

    def __init__(
        self,
        order: Order,
        lengths_N: Ints,
        *,
        batch_size: int,
        batches: int,
        tokens: int | None,
        seed: int,
        epoch: int,
    ) -> None:
        self.repeating = getattr(order, "repeating", False)
        self._order = order
        self._lengths_N = lengths_N
        self._batch_size = batch_size
        self._tokens = tokens
        self._stream = ("lengths", seed, epoch)
        count = len(order)
        self._starts_W1 = np.append(
            np.arange(0, count, batches * batch_size, dtype=np.int64), count
        )

    @property
    def starts_W1(self) -> Ints:
        """Where each window begins in the order, and its end: int64 of shape (W + 1,)."""
        return self._starts_W1

    def rows_of(self, window: int) -> Ints:
        """The rows of the window's micro-batches."""
        rows_B, size_M, turn_M = self._cut(window)
        end_M = np.cumsum(size_M)
        parts = [rows_B[end_M[one] - size_M[one] : end_M[one]] for one in turn_M.tolist()]
        return np.concatenate(parts)

    def offsets(self) -> Ints:
        """Where its micro-batches begin, and its end: int64 of shape (M + 1,). Makes all windows.

        Raises DataError, as `token_offsets`.
        """
        cuts = (self._cut(window) for window in range(len(self._starts_W1) - 1))
        sizes = [size_M[turn_M] for _, size_M, turn_M in cuts]
        return np.concatenate([[0], *sizes]).astype(np.int64).cumsum()

    def _cut(self, window: int) -> tuple[Ints, Ints, Ints]:
        """Sorted rows, the sizes of their micro-batches, and the order of these."""
        start, end = self._starts_W1[window : window + 2].tolist()
        rows_B = self._order[start:end]
        rows_B = rows_B[np.argsort(self._lengths_N[rows_B], kind="stable")]
        if self._tokens is None:
            size_M = np.full(-(-len(rows_B) // self._batch_size), self._batch_size, dtype=np.int64)
            size_M[-1] = len(rows_B) - self._batch_size * (len(size_M) - 1)
            moved = len(size_M) - (size_M[-1] < self._batch_size)
        else:
            lengths_B = self._lengths_N[rows_B]
            _check_room(rows_B, lengths_B, self._tokens)
            sizes = _token_sizes(lengths_B.tolist(), tokens=self._tokens, most=self._batch_size)
            size_M = np.fromiter(sizes, dtype=np.int64)
            moved = len(size_M)
        hash_M = hash_u64(np.arange(moved, dtype=np.int64), *self._stream, window)
        turn_M = np.concatenate([np.argsort(hash_M, kind="stable"), np.arange(moved, len(size_M))])
        return rows_B, size_M, turn_M


def token_offsets(order: Order, lengths_N: Ints, *, tokens: int, batch_size: int) -> Ints:
    """Where micro-batches begin in an order, and its end: int64 of shape (M + 1,).

    Each takes the rows that follow as long as its longest length times their number is at most
    `tokens`, and their number at most `batch_size`. Raises DataError for a sample that is longer.
    """
    lengths = chain.from_iterable(_lengths(order, lengths_N, tokens))
    sizes = np.fromiter(_token_sizes(lengths, tokens=tokens, most=batch_size), dtype=np.int64)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _token_sizes(lengths: Iterable[int], *, tokens: int, most: int) -> Iterator[int]:
    count = longest = 0
    for length in lengths:
        longest = max(longest, length)
        if count and (count == most or longest * (count + 1) > tokens):
            yield count
            count, longest = 0, length
        count += 1
    if count:
        yield count


def _lengths(order: Order, lengths_N: Ints, tokens: int) -> Iterator[list[int]]:
    for start in range(0, len(order), _PART_ROWS):
        rows_B = order[start : start + _PART_ROWS]
        lengths_B = lengths_N[rows_B]
        _check_room(rows_B, lengths_B, tokens)
        yield lengths_B.tolist()


def _check_room(rows_B: Ints, lengths_B: Ints, tokens: int) -> None:
    """Raises DataError for a sample that no micro-batch has room for."""
    if len(lengths_B) and int(lengths_B.max()) > tokens:
        at = int(np.argmax(lengths_B))
        raise DataError(
            f"loader.batch_tokens: found {tokens}, but the item at position {rows_B[at]} of "
            f"train_data has a length of {lengths_B[at]}; expected room for each: raise it, or cut "
            "long items in the data set"
        )


def check_room(lengths_N: Ints, *, tokens: int) -> None:
    """Raises DataError if a sample is longer than `loader.batch_tokens`."""
    for start in range(0, len(lengths_N), _PART_ROWS):
        lengths_B = lengths_N[start : start + _PART_ROWS]
        _check_room(np.arange(start, start + len(lengths_B)), lengths_B, tokens)
