"""Select: which samples the last training verdict calls easy. Costs no pass of its own.

Verdicts come from the training pass, with its augmentation and dropout: they are conservative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

# N samples, E of them easy


def easy_rows(
    columns: Mapping[str, npt.NDArray[Any]], *, confidence: float
) -> npt.NDArray[np.int64]:
    """Rows of the easy samples: int64 of shape (E,), rising.

    Easy: seen, last predicted right with at least `confidence`, at a finite loss. Never easy are
    samples that were not seen, and models without classes (confidence NaN, `correct` false).
    """
    # Cheapest test first: the comparison in float64 then runs over the correct rows only.
    rows = np.flatnonzero(columns["correct"] & (columns["epoch_seen"] >= 0))
    sure = columns["confidence"][rows].astype(np.float64) >= confidence
    sure &= np.isfinite(columns["loss"][rows])
    return rows[sure]
