"""The sampler: which rows an epoch has, and the size and resolution of each micro-batch.

Pure functions of (seed, epoch, table): nothing is drawn from a generator and nothing is remembered,
so the micro-batches are the same with any number of workers, and after any interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Subset

from epochal.data.config.batches import BatchesConfig
from epochal.data.errors import DataError
from epochal.data.hashing import hash_repeated, hash_u64
from epochal.data.loading.lazy_order import (
    ByLength,
    LazyOrder,
    Repeated,
    Turns,
    Walk,
    head,
    pass_order,
    token_offsets,
)
from epochal.data.loading.order import (
    Ids,
    Ints,
    MicroBatchPlan,
    Order,
    epoch_order,
    even_offsets,
)

# N samples of the data set, K rows of the epoch, L of them before repetition, M micro-batches,
# C classes, S resolutions


def sampler_order(
    config: BatchesConfig,
    *,
    seed: int,
    epoch: int,
    sample_ids_N: Ids,
    keep_N: npt.NDArray[np.bool_] | None = None,
    labels_N: Ints | None = None,
    blocks_G1: Ints | None = None,
    epoch_samples: int | None = None,
    mixed: Callable[..., Ints] | None = None,
) -> Order:
    """Positions of the epoch's rows in order, each as often as it comes.

    sample_ids_N, keep_N: as `epoch_order` takes them. labels_N: class of each sample by position,
    needed for balanced classes; a negative one is no class. blocks_G1: where each block of the
    storage begins, and the end, where the order goes by them. epoch_samples: rows of an epoch that
    goes on where the one before it ended; None: one pass. mixed: `rows_of_epoch` of a data set that
    has one: from (seed, epoch, count, sample_ids_N, keep_N) to `count` rows in order, some of them
    more than once. Raises DataError where no kept sample has a class.
    """
    if mixed is not None:
        kept = len(sample_ids_N) if keep_N is None else int(keep_N.sum())
        num_rows = config.epoch_length(kept) if epoch_samples is None else epoch_samples
        return _mixed(
            config, mixed, num_rows, seed=seed, epoch=epoch, sample_ids_N=sample_ids_N[:],
            keep_N=keep_N,
        )  # fmt: skip
    if config.class_balanced:
        return _balanced_order(
            config, seed=seed, epoch=epoch, sample_ids_N=sample_ids_N[:], keep_N=keep_N,
            labels_N=labels_N,
        )  # fmt: skip
    one_pass = partial(
        pass_order,
        seed=seed,
        sample_ids_N=sample_ids_N,
        keep_N=keep_N,
        blocks_G1=blocks_G1,
        window_blocks=config.window_blocks,
    )
    if epoch_samples is not None:
        assert keep_N is None, "epochs of a length of their own go through all samples"
        start = epoch * epoch_samples
        return Walk(one_pass, num_samples=len(sample_ids_N), start=start, count=epoch_samples)
    order = one_pass(number=epoch)
    num_rows = config.epoch_length(len(order))
    order = head(order, -(-num_rows // config.repeats))
    return order if config.repeats == 1 else head(_repeated(order, config.repeats), num_rows)


def _repeated(order: Order, repeats: int) -> Order:
    if isinstance(order, LazyOrder):
        return Repeated(order, repeats)
    return np.repeat(order[:], repeats)


def _balanced_order(
    config: BatchesConfig,
    *,
    seed: int,
    epoch: int,
    sample_ids_N: Ints,
    keep_N: npt.NDArray[np.bool_] | None,
    labels_N: Ints | None,
) -> Ints:
    assert labels_N is not None
    order = epoch_order(seed=seed, epoch=epoch, sample_ids_N=sample_ids_N, keep_N=keep_N)
    num_rows = config.epoch_length(len(order))
    num_draws = -(-num_rows // config.repeats)
    order = _balanced(
        order, labels_N, count=num_draws, seed=seed, epoch=epoch, sample_ids_N=sample_ids_N
    )
    return np.repeat(order, config.repeats)[:num_rows]


def mixture_of(dataset: Any) -> Callable[..., Ints] | None:
    """The method `rows_of_epoch` of a data set, also through Subsets; None without."""
    if type(dataset) is not Subset:
        method: Callable[..., Ints] | None = getattr(dataset, "rows_of_epoch", None)
        return method
    within = mixture_of(dataset.dataset)
    if within is None:
        return None
    indices_n = np.asarray(dataset.indices, dtype=np.int64)
    count = len(dataset.dataset)  # type: ignore[arg-type]  # torch's own stub knows no length

    def rows_of_epoch(
        *, sample_ids_N: Ints, keep_N: npt.NDArray[np.bool_] | None = None, **more: Any
    ) -> Ints:
        ids_N, place_N = np.zeros((2, count), dtype=np.int64)
        ids_N[indices_n], place_N[indices_n] = sample_ids_N, np.arange(len(indices_n))
        inside_N = np.zeros(count, dtype=bool)
        inside_N[indices_n] = True if keep_N is None else keep_N
        return place_N[within(sample_ids_N=ids_N, keep_N=inside_N, **more)]

    return rows_of_epoch


def _mixed(
    config: BatchesConfig,
    mixed: Callable[..., Ints],
    num_rows: int,
    *,
    seed: int,
    epoch: int,
    sample_ids_N: Ints,
    keep_N: npt.NDArray[np.bool_] | None,
) -> Ints:
    if config.class_balanced:
        raise DataError(
            "batches.class_balanced: the data set is a mixture, whose weights say how often "
            "samples come; leave one of the two out"
        )
    order_L = mixed(
        seed=seed,
        epoch=epoch,
        count=-(-num_rows // config.repeats),
        sample_ids_N=sample_ids_N,
        keep_N=keep_N,
    )
    return np.repeat(order_L, config.repeats)[:num_rows]


def _balanced(
    order_K: Ints, labels_N: Ints, *, count: int, seed: int, epoch: int, sample_ids_N: Ints
) -> Ints:
    """`count` rows in which the numbers of two classes differ by one at most, shuffled.

    Each class goes through its samples in their order, and again from the first.
    """
    order_K = order_K[labels_N[order_K] >= 0]
    if not len(order_K):
        raise DataError(
            "batches.class_balanced: no sample that is kept has a class, a label from 0 on; leave "
            "it out"
        )
    by_class_K = order_K[np.argsort(labels_N[order_K], kind="stable")]
    classes_C, first_C, size_C = np.unique(
        labels_N[by_class_K], return_index=True, return_counts=True
    )
    each, rest = divmod(count, len(classes_C))
    count_C = np.full(len(classes_C), each, dtype=np.int64)
    luck_C = np.lexsort((classes_C, hash_u64(classes_C, "class", seed, epoch)))
    count_C[luck_C[:rest]] += 1
    class_L = np.repeat(np.arange(len(classes_C)), count_C)
    turn_L = np.arange(count, dtype=np.int64) - np.repeat(np.cumsum(count_C) - count_C, count_C)
    cycle_L, place_L = np.divmod(turn_L, size_C[class_L])
    rows_L = by_class_K[first_C[class_L] + place_L]
    ids_L = np.asarray(sample_ids_N, dtype=np.int64)[rows_L]
    hash_L = hash_repeated(ids_L, cycle_L, "order", seed, epoch)
    return rows_L[np.lexsort((cycle_L, ids_L, hash_L))]


def occurrences(order_K: Ints) -> Ints | None:
    """How often each row's sample came before, int64 of shape (K,); None if each comes once."""
    by_sample_K = np.argsort(order_K, kind="stable")
    sorted_K = order_K[by_sample_K]
    begins_K = np.append(True, sorted_K[1:] != sorted_K[:-1])[: len(order_K)]
    if bool(begins_K.all()):
        return None
    row_K = np.arange(len(order_K), dtype=np.int64)
    first_K = np.maximum.accumulate(np.where(begins_K, row_K, 0))
    earlier_K = np.empty_like(row_K)
    earlier_K[by_sample_K] = row_K - first_K
    return earlier_K


def sampler_plan(
    config: BatchesConfig,
    order_K: Order,
    *,
    batch_size: int,
    accumulate: int,
    drop_last: bool,
    seed: int,
    epoch: int,
    lengths_N: Ints | None = None,
    batch_tokens: int | None = None,
    repeated: bool = False,
) -> MicroBatchPlan:
    """Cuts `order_K`, of `sampler_order`, into micro-batches, each with a resolution of its own.

    The resolution of a micro-step is drawn from a hash of (seed, epoch, micro-step). batch_size,
    accumulate, drop_last: as `micro_batches` takes them; with `variable_batch` the batch size is
    that of the resolution `config.size`. lengths_N: of each sample by position, needed for
    `by_length` and for batch_tokens, the most that a micro-batch's longest length times its number
    of samples may be. repeated: whether `order_K` may have a sample twice, as that of a mixture
    may. Raises DataError for a sample that is longer.
    """
    if batch_tokens is None:
        offsets_M1, sizes_M2 = sampler_cut(
            config, len(order_K), batch_size=batch_size, drop_last=drop_last, seed=seed, epoch=epoch
        )
        order_K = head(order_K, int(offsets_M1[-1]))
    if config.by_length is not None:
        assert lengths_N is not None
        order_K = ByLength(
            order_K,
            lengths_N,
            batch_size=batch_size,
            batches=config.by_length,
            tokens=batch_tokens,
            seed=seed,
            epoch=epoch,
        )
    if batch_tokens is not None:
        assert lengths_N is not None
        sizes_M2 = None
        offsets_M1 = (
            order_K.offsets()
            if isinstance(order_K, ByLength)
            else token_offsets(order_K, lengths_N, tokens=batch_tokens, batch_size=batch_size)
        )
    repeated = repeated or config.repeats > 1 or config.class_balanced
    return MicroBatchPlan(
        order_K=order_K,
        offsets_M1=offsets_M1,
        accumulate=accumulate,
        repeats_K=_repeats(config, order_K, repeated=repeated),
        sizes_M2=sizes_M2,
    )


def _repeats(config: BatchesConfig, order_K: Order, *, repeated: bool) -> Order | None:
    if isinstance(order_K, Repeated):
        return Turns(len(order_K), config.repeats)
    repeated = repeated or getattr(order_K, "repeating", False)
    return occurrences(order_K[:]) if repeated else None


def sampler_cut(
    config: BatchesConfig, count: int, *, batch_size: int, drop_last: bool, seed: int, epoch: int
) -> tuple[Ints, Ints | None]:
    """Offsets (M + 1,) and resolutions (M, 2) of the micro-batches that `count` rows are cut into.

    The last offset is below `count` where `drop_last` drops rows.
    """
    if config.kind == "fixed":
        return even_offsets(count, batch_size=batch_size, drop_last=drop_last), None
    sizes_S2 = np.array(config.sizes_in(epoch), dtype=np.int64)
    batch_S = np.array(config.batch_sizes_in(epoch, batch_size=batch_size), dtype=np.int64)
    most = -(-count // int(batch_S.min()))  # micro-batches, if all were the smallest
    hash_M = hash_u64(np.arange(most, dtype=np.int64), "sampler", seed, epoch)
    draw_M = (hash_M % np.uint64(len(batch_S))).astype(np.int64)
    offsets_M1 = _offsets(batch_S[draw_M], count, drop_last=drop_last)
    return offsets_M1, sizes_S2[draw_M[: len(offsets_M1) - 1]]


def _offsets(batch_M: Ints, count: int, *, drop_last: bool) -> Ints:
    """Where micro-batches of these sizes begin and end, until `count` rows are used up."""
    if not count:
        return np.zeros(1, dtype=np.int64)
    ends_M = np.cumsum(batch_M)
    last = int(np.searchsorted(ends_M, count))
    offsets_M1 = np.concatenate([[0], ends_M[:last], [count]])
    return offsets_M1[:-1] if drop_last and last and ends_M[last] > count else offsets_M1
