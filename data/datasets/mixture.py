"""Mixtures of data sets with weights: which rows an epoch has is a pure function, nothing is saved.

A set's samples form an endless row: all in an order of their own, then all again in another one,
and so on. An epoch takes as many as its weight says, and goes on where the one before it ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.datasets.hugging_face import adapted
from epochal.data.errors import DataError
from epochal.data.hashing import digest, hash_u64
from epochal.data.loading.order import hash_order

# S sets, N samples of all, n of one set, K rows of an epoch, k of one set

GROUP_ROWS = 1 << 22  # so many are sorted at once
FEW = 4  # passes through a set that are sorted one by one

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def mixture(
    sets: Sequence[Any],
    weights: Sequence[float] | Mapping[str | int, Sequence[float]] | None = None,
) -> Mixture:
    """The samples of all sets, one set after another; an epoch has of each as its weight says.

    sets: data sets, in the config targets. weights: a number from 0 on for each, their shares of
    an epoch's samples; or such by the epoch from which on they count, `{0: [3, 1], 10: [1, 1]}`;
    none: each sample once in an epoch. An epoch is as long as all sets together, or
    `loader.epoch_samples`. A set whose share is larger than it is comes more than once; of one
    whose share is smaller every sample comes before one comes again, in epochs of one length.

    Items are those of the sets, which must be of one form. Labels, names of classes, lengths and
    the like are passed on where all sets have them. Raises DataError for weights that do not fit,
    and for sets whose classes differ.
    """
    if isinstance(sets, str | Mapping) or not sets:
        raise DataError(f"mixture: sets: found {sets!r:.80}; expected a list of data sets")
    made = [adapted(one, name=f"mixture: sets[{place}]") for place, one in enumerate(sets)]
    return Mixture(made, None if weights is None else _by_epoch(weights, len(made)))


def _by_epoch(given: Any, count: int) -> list[tuple[int, list[float]]]:
    """(first epoch, weights), rising, from epoch 0 on. Raises DataError."""
    phases: list[tuple[int, list[float]]] = []
    for name, weights in (given if isinstance(given, Mapping) else {0: given}).items():
        if not str(name).isdecimal():
            raise DataError(f"mixture: weights: found {name!r}; expected epochs from 0 on")
        fits = isinstance(weights, Sequence) and len(weights) == count
        if not fits or not all(_is_weight(one) for one in weights) or not sum(weights) > 0:
            raise DataError(
                f"mixture: weights: found {weights!r:.80}; expected {count} numbers from 0 on, one "
                "for each set, not all 0"
            )
        phases.append((int(name), [float(one) for one in weights]))
    phases.sort()
    epochs = [epoch for epoch, _ in phases]
    if epochs[:1] != [0] or len(set(epochs)) != len(epochs):
        raise DataError(
            f"mixture: weights: found epochs {epochs}; expected 0 and others, each once"
        )
    return phases


def _is_weight(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(np.isfinite(value)) and value >= 0


class Mixture:
    """All sets one after another; made by `mixture`."""

    def __init__(self, sets: Sequence[Any], phases: list[tuple[int, list[float]]] | None) -> None:
        self._sets = list(sets)
        self._phases = phases
        self._first_S1 = np.append(0, np.cumsum([len(one) for one in sets])).astype(np.int64)
        parts = self._of_all("targets")
        if parts is not None:
            self.targets = np.concatenate([np.asarray(one, dtype=np.int64) for one in parts])
        classes = self._of_all("classes")
        if classes is not None:
            for place, one in enumerate(classes):
                if list(one) != list(classes[0]):
                    raise DataError(
                        f"mixture: sets[{place}] has the classes {list(one)[:12]}, sets[0] has "
                        f"{list(classes[0])[:12]}; expected one list, so that a label means one "
                        "thing: state `classes` of both"
                    )
            self.classes = list(classes[0])
        lengths = self._of_all("lengths")
        if lengths is not None:
            self.lengths = np.concatenate([np.asarray(one, dtype=np.int64) for one in lengths])
        self.thread_safe = all(getattr(one, "thread_safe", False) for one in sets)
        self.unread = all(getattr(one, "unread", False) for one in sets)

    def _of_all(self, name: str) -> list[Any] | None:
        found = [getattr(one, name, None) for one in self._sets]
        return None if any(one is None for one in found) else found

    def __len__(self) -> int:
        return int(self._first_S1[-1])

    def __getitem__(self, position: int) -> Any:
        number, row = self._place(range(len(self))[position])
        return self._sets[number][row]

    def __getattr__(self, name: str) -> Any:
        """What is there only where it is there in all sets, and `rows_of_epoch` with weights."""
        if name.startswith("_") and name != "__getitems__":
            raise AttributeError(name)
        found = {
            "__getitems__": self._read,
            "stamp": self._stamp,
            "rows_of_epoch": self._rows_of_epoch,
        }.get(name)
        if found is None or not self._has(name):
            raise AttributeError(name)
        return found

    def _has(self, name: str) -> bool:
        if name == "rows_of_epoch":
            return self._phases is not None
        return all(callable(getattr(one, name, None)) for one in self._sets)

    def _place(self, position: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._first_S1, position, side="right")) - 1
        return number, position - int(self._first_S1[number])

    def _read(self, positions: Sequence[int]) -> list[Any]:
        positions_B = np.asarray(positions, dtype=np.int64)
        number_B = np.searchsorted(self._first_S1, positions_B, side="right") - 1
        items: list[Any] = [None] * len(positions_B)
        for number in np.unique(number_B).tolist():
            places = np.flatnonzero(number_B == number).tolist()
            rows = (positions_B[places] - self._first_S1[number]).tolist()
            for place, item in zip(places, self._sets[number].__getitems__(rows), strict=True):
                items[place] = item
        return items

    def path_of(self, position: int) -> str:
        """Where the sample lies, as its set tells."""
        number, row = self._place(position)
        of = getattr(self._sets[number], "path_of", None)
        return str(of(row)) if callable(of) else f"set {number} sample {row}"

    def fingerprint(self) -> str:
        """Names the content of all sets and the weights; a set that names none is read for it."""
        from epochal.data.inspection.describe import describe

        names = []
        for number, one in enumerate(self._sets):
            own = getattr(one, "fingerprint", None)
            field = f"mixture: sets[{number}]"
            names.append(own() if callable(own) else describe(one, name=field).fingerprint)
        return digest("mixture", [names, self._phases])

    def _stamp(self) -> str:
        return digest("mixture-stamp", [one.stamp() for one in self._sets])

    def _rows_of_epoch(
        self,
        *,
        seed: int,
        epoch: int,
        count: int,
        sample_ids_N: Ints,
        keep_N: npt.NDArray[np.bool_] | None = None,
    ) -> Ints:
        assert self._phases is not None
        rows_S = []
        for first, end in pairwise(self._first_S1.tolist()):
            kept = slice(None) if keep_N is None else keep_N[first:end]
            rows_S.append(np.arange(first, end, dtype=np.int64)[kept])
        return mixed_rows(
            rows_S, self._phases, seed=seed, epoch=epoch, count=count, sample_ids_N=sample_ids_N
        )


def mixed_rows(
    rows_S: Sequence[Ints],
    phases: Sequence[tuple[int, Sequence[float]]],
    *,
    seed: int,
    epoch: int,
    count: int,
    sample_ids_N: Ints,
) -> Ints:
    """The epoch's rows in order: int64 of shape (K,), with K = `count`.

    rows_S: of each set, the positions that may come. phases: (first epoch, weights), rising from 0
    on. Epochs before are taken to have had as many rows. Raises DataError where no set with a
    weight has a row.
    """
    size_S = np.array([len(rows) for rows in rows_S], dtype=np.int64)
    start_S = np.zeros(len(rows_S), dtype=np.int64)
    share_S = start_S
    ends = [first for first, _ in phases[1:]] + [epoch + 1]
    for (first, weights), end in zip(phases, ends, strict=True):
        if first > epoch:
            break
        share_S = shares(np.where(size_S > 0, weights, 0.0), count)
        start_S = start_S + share_S * (min(end, epoch) - first)
    taken = [
        _of_set(rows, sample_ids_N, seed=seed, start=start, count=share)
        for rows, start, share in zip(rows_S, start_S.tolist(), share_S.tolist(), strict=True)
    ]
    by_set_K = np.concatenate(taken)
    places_K = hash_order(np.arange(count, dtype=np.int64), "mixture", seed, epoch)
    order_K = np.empty_like(by_set_K)
    order_K[places_K] = by_set_K
    return order_K


def shares(weights_S: Floats, count: int) -> Ints:
    """How many of `count` rows each set has: the largest remainders are rounded up, ties first."""
    total = float(weights_S.sum())
    if not total > 0:
        raise DataError(
            "mixture: no set whose weight is above 0 has a sample that is kept; give it weight, or "
            "keep some"
        )
    exact_S = weights_S / total * count
    share_S = np.floor(exact_S + 1e-9).astype(np.int64)
    by_rest_S = np.lexsort((np.arange(len(exact_S)), -(exact_S - share_S)))
    share_S[by_rest_S[: count - int(share_S.sum())]] += 1
    return share_S


def _of_set(rows_n: Ints, sample_ids_N: Ints, *, seed: int, start: int, count: int) -> Ints:
    """Rows `start` to `start + count` of a set's endless row: int64 of shape (k,)."""
    if not count:
        return np.empty(0, dtype=np.int64)
    size = len(rows_n)
    first, last = start // size, (start + count - 1) // size
    hash_n = hash_u64(sample_ids_N[rows_n], "mixture", seed)
    stream = ("mixture", seed, "cycle")
    at_once = max(1, GROUP_ROWS // size)
    parts = []
    for cycle in range(first, last + 1, at_once):
        cycles_C = np.arange(cycle, min(cycle + at_once, last + 1), dtype=np.uint64)
        with np.errstate(over="ignore"):
            counted_Cn = (hash_n[None] + cycles_C[:, None]).view(np.int64)
        if len(cycles_C) <= FEW:
            parts += [rows_n[hash_order(counted_n, *stream)] for counted_n in counted_Cn]
            continue
        # The same for many short ones at once: by hash, ties by what was hashed.
        hash_Cn = hash_u64(counted_Cn.reshape(-1), *stream).reshape(counted_Cn.shape)
        parts.append(rows_n[np.lexsort((counted_Cn, hash_Cn))].reshape(-1))
    begin = start - first * size
    return np.concatenate(parts)[begin : begin + count]
