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
    easy_N = columns["confidence"] >= at_least(confidence)
    easy_N &= columns["correct"]
    easy_N &= columns["epoch_seen"] >= 0
    easy_N &= np.isfinite(columns["loss"])
    return np.flatnonzero(easy_N)


def at_least(value: float) -> np.float32:
    """The lowest float32 from `value` on: comparing with it is comparing in float64, but faster."""
    rounded = np.float32(value)
    return rounded if float(rounded) >= value else np.nextafter(rounded, np.float32(np.inf))
