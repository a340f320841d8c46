"""Wrong labels: an estimate of how many there are, and which samples are suspected.

The estimate counts labels that are wrong at random. It misses systematic ones, where one class is
often labelled as another: the model learns that mistake like everything else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epochal.data.hashing import hash_u64
from epochal.data.policies.shared.pool import Columns, highest
from epochal.data.samples.table import FLAG_SUSPECT

# N samples, S of them seen


CONFIDENT = 0.3
"""Share of the samples, the most confident ones, whose disagreement with the label is measured."""

MAX_RATE = 0.5
"""At most this share is left out: with a higher estimate it is the model that is wrong."""


def noise_rate(columns: Columns) -> float | None:
    """Share of wrong labels, from 0 to 1, or None where nothing with classes was seen.

    The share of wrong predictions among the 30 % most confident of the samples seen.
    """
    return rate_of(*verdicts(columns))


def verdicts(
    columns: Columns,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Confidence, and whether the prediction was wrong, of the samples seen that have a label.

    float32 and bool, each of shape (S,).
    """
    seen_N = (columns["epoch_seen"] >= 0) & np.isfinite(columns["confidence"])
    seen_N &= columns["label"] >= 0
    return columns["confidence"][seen_N], ~columns["correct"][seen_N]


def rate_of(confidence_S: npt.NDArray[np.float32], wrong_S: npt.NDArray[np.bool_]) -> float | None:
    """`noise_rate` of these verdicts."""
    count = round(CONFIDENT * len(confidence_S))
    if not count:
        return None
    limit = np.partition(confidence_S, len(confidence_S) - count)[len(confidence_S) - count]
    # Includes all that tie with the last one, so that the rows' order does not matter.
    chosen_S = confidence_S >= limit
    return float(np.count_nonzero(wrong_S & chosen_S) / np.count_nonzero(chosen_S))


def num_suspects(columns: Columns) -> int:
    """How many samples the table has flagged."""
    return int(np.count_nonzero(columns["flags"] & FLAG_SUSPECT))


def suspects(columns: Columns, *, noise: str, seed: int) -> npt.NDArray[np.bool_]:
    """The samples of lowest mean margin (AUM, Pleiss et al. 2020): bool of shape (N,).

    noise: `estimate` takes as many as `noise_rate` says, `frozen` as many as the table has flagged.
    """
    total = len(columns["sample_id"])
    if noise == "frozen":
        count = num_suspects(columns)
    else:
        count = round(min(noise_rate(columns) or 0.0, MAX_RATE) * total)
    suspect_N = np.zeros(total, dtype=bool)
    rows_S = np.flatnonzero((columns["n_seen"] > 0) & np.isfinite(columns["margin_sum"]))
    mean_S = columns["margin_sum"][rows_S].astype(np.float64) / columns["n_seen"][rows_S]
    lot_S = hash_u64(columns["sample_id"][rows_S], "suspects", seed)
    suspect_N[rows_S[highest(-mean_S, lot_S, count=count)]] = True
    return suspect_N
