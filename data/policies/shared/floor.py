"""Floor: how much is kept at least, overall and of each class, and who comes back for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_u64

# N samples, C classes, R samples that rest in classes below the floor, B of a block

_BLOCK = 1 << 16  # temporaries stay in the cache: 4 ms instead of 9 for 1.28 M samples
_FEW_CLASSES = 4096


def raise_to_floor(
    columns: Mapping[str, npt.NDArray[Any]],
    keep_N: npt.NDArray[np.bool_],
    *,
    floor: float,
    epoch: int,
    seed: int,
    last_N: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.bool_]:
    """`keep_N` with as many more samples as the floor needs: bool of shape (N,).

    Of every class at least its size times `floor`, rounded up, is kept. Samples whose label is
    unknown are one more class, so the floor holds overall, too. Those with the highest last loss
    come back first, ties by a hash of (seed, epoch, sample id); those of `last_N` after all others.
    """
    if not keep_N.size or keep_N.all():
        return keep_N
    total_C, kept_C = _counts(columns["label"], keep_N)
    need_C = needed(total_C, kept_C, floor=floor)
    if not bool((need_C > 0).any()):
        return keep_N
    _, class_N = _classes(columns["label"])
    rows_R = np.flatnonzero(~keep_N & (need_C > 0)[class_N])
    back_R = first_back(
        class_N[rows_R],
        columns["loss"][rows_R],
        columns["sample_id"][rows_R],
        need_C,
        epoch=epoch,
        seed=seed,
        last_R=None if last_N is None else last_N[rows_R],
    )
    raised_N = keep_N.copy()
    raised_N[rows_R[back_R]] = True
    return raised_N


def needed(
    total_C: npt.NDArray[np.int64], kept_C: npt.NDArray[np.int64], *, floor: float
) -> npt.NDArray[np.int64]:
    """How many more of each class, of which so many are kept, the floor needs: int64 (C,)."""
    return np.array([_at_least(int(total), floor) for total in total_C], dtype=np.int64) - kept_C


def first_back(
    class_R: npt.NDArray[np.int64],
    loss_R: npt.NDArray[np.float32],
    ids_R: npt.NDArray[np.int64],
    need_C: npt.NDArray[np.int64],
    *,
    epoch: int,
    seed: int,
    last_R: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """Which of these resting samples come back, rows of R: of each class as many as it needs."""
    order_R = np.lexsort(
        (
            ids_R,
            hash_u64(ids_R, "floor", seed, epoch),
            -loss_R.astype(np.float64),
            np.zeros(len(ids_R), dtype=bool) if last_R is None else last_R,
            class_R,
        )
    )
    class_R = class_R[order_R]
    starts_R = np.searchsorted(class_R, class_R)
    return order_R[np.arange(len(class_R)) - starts_R < need_C[class_R]]


def _at_least(total: int, floor: float) -> int:
    # 0.1 of 30 is 3, not the 4 that the last bit of 3.0000000000000004 would ask for
    return min(total, math.ceil(total * floor - 1e-9))


def _counts(
    label_N: npt.NDArray[np.int64], keep_N: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many samples each class of `_classes` has, and how many are kept: int64 (C,) each."""
    classes = max(int(label_N.max()), -1) + 2
    if classes > _FEW_CLASSES:
        classes, class_N = _classes(label_N)
        total_C = np.bincount(class_N, minlength=classes)
        return total_C, np.bincount(class_N[keep_N], minlength=classes)
    total_C, rest_C = np.zeros((2, classes), dtype=np.int64)
    for start in range(0, len(label_N), _BLOCK):
        block = slice(start, start + _BLOCK)
        class_B = np.maximum(label_N[block], -1) + 1
        total_C += np.bincount(class_B, minlength=classes)
        rest_C += np.bincount(class_B[np.flatnonzero(~keep_N[block])], minlength=classes)
    return total_C, total_C - rest_C


def _classes(label_N: npt.NDArray[np.int64]) -> tuple[int, npt.NDArray[np.int64]]:
    """How many classes there are, and each sample's, from 0 on, in the order of their labels."""
    known_N = np.maximum(label_N, -1)
    highest = int(known_N.max())
    if highest < max(_FEW_CLASSES, len(label_N)):  # the usual labels need no sorting
        known_N += 1
        return highest + 2, known_N
    labels, class_N = np.unique(known_N, return_inverse=True)
    return len(labels), class_N.astype(np.int64)
