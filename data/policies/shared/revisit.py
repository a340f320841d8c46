"""Revisit: for how many epochs in a row a sample may be left out, so that no score gets too old.

Returns are staggered: each sample has a phase of its own, a hash of (seed, sample id), so in every
epoch about one in `revisit + 1` of the easy ones comes back. Without phases many would return in
the same epoch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_u64

# E easy samples

_BLOCK = 1 << 15  # temporaries stay in the cache: 21 ms instead of 41 for the first 1.28 M ids


def may_rest(
    ids_E: npt.NDArray[np.int64],
    epoch_seen_E: npt.NDArray[np.int32],
    *,
    epoch: int,
    revisit: int,
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Whether each of these samples may be left out of `epoch`: bool of shape (E,).

    It may not if it was left out for `revisit` epochs already, or if `epoch` is the one of its
    phase, which comes every `revisit + 1` epochs. So no sample is left out for more than `revisit`
    epochs in a row.
    """
    period = np.uint64(revisit + 1)
    due = np.uint64(epoch % (revisit + 1))
    rests_E = epoch - 1 - epoch_seen_E.astype(np.int64) < revisit
    for start in range(0, len(ids_E), _BLOCK):
        block = slice(start, start + _BLOCK)
        rests_E[block] &= hash_u64(ids_E[block], "revisit", seed) % period != due
    return rests_E


def is_due(
    ids_N: npt.NDArray[np.int64],
    epoch_seen_N: npt.NDArray[np.int32],
    *,
    epoch: int,
    revisit: int,
    seed: int,
    phases: bool,
) -> npt.NDArray[np.bool_]:
    """Whether these samples have to train in `epoch`: bool of shape (N,).

    phases: whether returns are staggered as in `may_rest`. Without, only samples that were left out
    for `revisit` epochs are due: enough for policies that choose by lot.
    """
    if phases:
        return ~may_rest(ids_N, epoch_seen_N, epoch=epoch, revisit=revisit, seed=seed)
    return epoch - 1 - epoch_seen_N.astype(np.int64) >= revisit
