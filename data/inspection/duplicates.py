"""Samples whose input another sample has too, in one data set and in two. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# N samples, M of another data set

NOTED_SHARE = 0.01
"""From this share of the samples on a note is given; fewer are common and do no harm."""

Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Repeats:
    """Samples whose input came before: positions_K, and first_K, where it came first.

    other_labels: how many of them have another label than there, None where labels are unknown.
    """

    positions_K: npt.NDArray[np.int64]
    first_K: npt.NDArray[np.int64]
    num_samples: int
    other_labels: int | None = None

    @property
    def is_noted(self) -> bool:
        """Whether there are enough of them to be told."""
        return len(self.positions_K) >= max(1, NOTED_SHARE * self.num_samples)


def repeats_within(inputs_N: Digests, labels_N: npt.NDArray[np.int64] | None) -> Repeats:
    """Samples whose input an earlier sample of the same data set has. inputs_N: by position."""
    _, first_U, of_N = np.unique(inputs_N, return_index=True, return_inverse=True)
    first_N = first_U[of_N]
    positions_K = np.flatnonzero(first_N != np.arange(len(inputs_N)))
    first_K = first_N[positions_K]
    other = None
    if labels_N is not None:
        other = int((labels_N[positions_K] != labels_N[first_K]).sum())
    return Repeats(positions_K, first_K, len(inputs_N), other)


def repeats_between(inputs_N: Digests, others_M: Digests) -> Repeats:
    """Samples of a data set, by position in it, whose input is in others_M, and where."""
    order_M = np.argsort(others_M, kind="stable")
    sorted_M = others_M[order_M]
    place_N = np.searchsorted(sorted_M, inputs_N).clip(max=len(sorted_M) - 1)
    positions_K = np.flatnonzero(sorted_M[place_N] == inputs_N)
    return Repeats(positions_K, order_M[place_N[positions_K]], len(inputs_N))


def note_within(field: str, found: Repeats) -> str:
    """What a person is told of a data set's own repeats."""
    conflict = ""
    if found.other_labels:
        conflict = f"; {found.other_labels} of them have another label than it"
    return (
        f"{field}: {_share(found)} have an input that an earlier sample has too (position "
        f"{found.positions_K[0]} that of {found.first_K[0]}){conflict}; each counts as a sample of "
        "its own"
    )


def note_between(field: str, other: str, found: Repeats) -> str:
    """What a person is told of samples that two data sets share."""
    return (
        f"{field}: {_share(found)} have an input that {other} has too (position "
        f"{found.positions_K[0]} that of {found.first_K[0]} there): what is measured on them was "
        "seen in training"
    )


def _share(found: Repeats) -> str:
    count = len(found.positions_K)
    return f"{count:,} of {found.num_samples:,} samples ({100 * count / found.num_samples:.0f} %)"
