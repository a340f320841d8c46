"""The sampler: which rows an epoch has, and the size and resolution of each micro-batch.

Pure functions of (seed, epoch, table): nothing is drawn from a generator and nothing is remembered,
so the micro-batches are the same with any number of workers, and after any interruption.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epochal.data.config.batches import BatchesConfig
from epochal.data.errors import DataError
from epochal.data.hashing import hash_repeated, hash_u64
from epochal.data.loading.order import MicroBatchPlan, epoch_order, even_offsets

# N samples of the data set, K rows of the epoch, L of them before repetition, M micro-batches,
# C classes, S resolutions

Ints = npt.NDArray[np.int64]


def sampler_order(
    config: BatchesConfig,
    *,
    seed: int,
    epoch: int,
    sample_ids_N: Ints,
    keep_N: npt.NDArray[np.bool_] | None = None,
    labels_N: Ints | None = None,
) -> Ints:
    """Positions of the epoch's rows in order: int64 of shape (K,), each as often as it comes.

    sample_ids_N, keep_N: as `epoch_order` takes them. labels_N: class of each sample by position,
    needed for balanced classes; a negative one is no class. Raises DataError where no kept sample
    has a class.
    """
    order = epoch_order(seed=seed, epoch=epoch, sample_ids_N=sample_ids_N, keep_N=keep_N)
    kept = len(order)
    num_rows = config.epoch_length(kept)
    num_draws = -(-num_rows // config.repeats)
    if config.class_balanced:
        assert labels_N is not None
        order = _balanced(
            order, labels_N, count=num_draws, seed=seed, epoch=epoch, sample_ids_N=sample_ids_N
        )
    else:
        order = order[:num_draws]
    return order if config.repeats == 1 else np.repeat(order, config.repeats)[:num_rows]


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
    order_K: Ints,
    *,
    batch_size: int,
    accumulate: int,
    drop_last: bool,
    seed: int,
    epoch: int,
) -> MicroBatchPlan:
    """Cuts `order_K`, of `sampler_order`, into micro-batches, each with a resolution of its own.

    The resolution of a micro-step is drawn from a hash of (seed, epoch, micro-step). batch_size,
    accumulate, drop_last: as `micro_batches` takes them; with `variable_batch` the batch size is
    that of the resolution `config.size`.
    """
    offsets_M1, sizes_M2 = sampler_cut(
        config, len(order_K), batch_size=batch_size, drop_last=drop_last, seed=seed, epoch=epoch
    )
    order_K = order_K[: offsets_M1[-1]]
    repeated = config.repeats > 1 or config.class_balanced
    return MicroBatchPlan(
        order_K=order_K,
        offsets_M1=offsets_M1,
        accumulate=accumulate,
        repeats_K=occurrences(order_K) if repeated else None,
        sizes_M2=sizes_M2,
    )


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
