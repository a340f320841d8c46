"""Floor: the least share of all samples and of each class that trains, and who returns for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_u64

# N samples, B of a shard, C classes, R samples that rest in classes below the floor

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

    last_N: samples that come back only after all others of their class. Otherwise `ClassFloor`
    says who comes back.
    """
    if not keep_N.size or keep_N.all():
        return keep_N
    classes = ClassFloor(floor=floor, epoch=epoch, seed=seed)
    classes.count(columns["label"], keep_N)
    if not classes.is_short:
        return keep_N
    classes.offer(0, columns, keep_N, last_B=last_N)
    raised_N = keep_N.copy()
    raised_N[classes.rows_back] = True
    return raised_N


class ClassFloor:
    """Who comes back for the floor, where the table is given shard by shard.

    Of every class at least its size times `floor`, rounded up, is kept. Samples whose label is
    unknown are one more class, so the floor holds overall, too. Those with the highest last loss
    come back first, ties by a hash of (seed, epoch, sample id).

    Call `count` for each shard, then, if `is_short`, `offer` for each; `rows_back` is the result.
    Of each class no more samples are held in memory than have to come back.
    """

    def __init__(self, *, floor: float, epoch: int, seed: int) -> None:
        self._floor, self._epoch, self._seed = floor, epoch, seed
        # Classes by label, rising, from -1 on: how many samples they have, how many are kept.
        self._label_C, self._total_C, self._kept_C = np.zeros((3, 0), dtype=np.int64)
        self._back: dict[str, npt.NDArray[Any]] = {}

    def count(self, label_B: npt.NDArray[np.int64], keep_B: npt.NDArray[np.bool_]) -> None:
        """Counts the samples of a shard, and who of them is kept."""
        counts = _counts(label_B, keep_B)
        if len(self._label_C):
            label_D = np.concatenate([self._label_C, counts[0]])
            label_C, class_D = np.unique(label_D, return_inverse=True)
            sums_2C = np.zeros((2, len(label_C)), dtype=np.int64)
            for sum_C, before_C, more_C in zip(
                sums_2C, (self._total_C, self._kept_C), counts[1:], strict=True
            ):
                np.add.at(sum_C, class_D, np.concatenate([before_C, more_C]))
            counts = (label_C, *sums_2C)
        self._label_C, self._total_C, self._kept_C = counts

    @property
    def is_short(self) -> bool:
        """Whether a class is below the floor."""
        return bool((self._need_C > 0).any())

    @property
    def _need_C(self) -> npt.NDArray[np.int64]:
        # 0.1 of 30 is 3, not the 4 that the last bit of 3.0000000000000004 would ask for
        least_C = np.ceil(self._total_C * self._floor - 1e-9).astype(np.int64)
        need_C: npt.NDArray[np.int64] = np.minimum(self._total_C, least_C) - self._kept_C
        return need_C

    def offer(
        self,
        start: int,
        columns: Mapping[str, npt.NDArray[Any]],
        keep_B: npt.NDArray[np.bool_],
        *,
        last_B: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Takes in a shard's resting samples. start: its first row. last_B: who comes back last."""
        need_C = self._need_C
        rows_R = np.flatnonzero(~keep_B)
        class_R = np.searchsorted(self._label_C, np.maximum(columns["label"][rows_R], -1))
        short_R = need_C[class_R] > 0
        rows_R, class_R = rows_R[short_R], class_R[short_R]
        resting = {
            "row": rows_R + start,
            "class": class_R,
            "last": np.zeros(len(rows_R), dtype=bool) if last_B is None else last_B[rows_R],
            "loss": columns["loss"][rows_R],
            "sample_id": columns["sample_id"][rows_R],
        }
        if self._back:
            resting = {
                name: np.concatenate([self._back[name], array_R])
                for name, array_R in resting.items()
            }
        first_R = self._first_back(resting, need_C)
        self._back = {name: array_R[first_R] for name, array_R in resting.items()}

    def _first_back(
        self, resting: Mapping[str, npt.NDArray[Any]], need_C: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Positions in `resting` of who comes back: of each class as many as it needs."""
        order_R = np.lexsort(
            (
                resting["sample_id"],
                hash_u64(resting["sample_id"], "floor", self._seed, self._epoch),
                -resting["loss"].astype(np.float64),
                resting["last"],
                resting["class"],
            )
        )
        class_R = resting["class"][order_R]
        starts_R = np.searchsorted(class_R, class_R)
        first_R: npt.NDArray[np.int64] = order_R[
            np.arange(len(class_R)) - starts_R < need_C[class_R]
        ]
        return first_R

    @property
    def rows_back(self) -> npt.NDArray[np.int64]:
        """The rows that come back, of all shards that were offered, in no order."""
        rows_R: npt.NDArray[np.int64] = self._back["row"]
        return rows_R


def _counts(
    label_B: npt.NDArray[np.int64], keep_B: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Labels, rising; how many samples each has, and how many are kept: int64 (C,) each."""
    classes = max(int(label_B.max()), -1) + 2
    if classes > _FEW_CLASSES:
        label_C, class_B = np.unique(np.maximum(label_B, -1), return_inverse=True)
        total_C = np.bincount(class_B, minlength=len(label_C))
        return label_C, total_C, np.bincount(class_B[keep_B], minlength=len(label_C))
    total_C, rest_C = np.zeros((2, classes), dtype=np.int64)
    for start in range(0, len(label_B), _BLOCK):
        block = slice(start, start + _BLOCK)
        class_B = np.maximum(label_B[block], -1) + 1
        total_C += np.bincount(class_B, minlength=classes)
        rest_C += np.bincount(class_B[np.flatnonzero(~keep_B[block])], minlength=classes)
    return np.arange(-1, classes - 1), total_C, total_C - rest_C
