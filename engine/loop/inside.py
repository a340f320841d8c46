"""Validation inside an epoch: every k updates, recorded among the step metrics.

It changes nothing of the training: the model is put into evaluation mode and back, and every
micro-step reseeds the generators. What was measured is kept by update in `Progress.inside`, so that
a resume neither loses nor repeats it; the end of the epoch is the validate stage's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from epochal.engine.config.mid_epoch import INSIDE

if TYPE_CHECKING:
    from epochal.engine.loop.progress import Progress

# U updates of the epoch so far

Column = npt.NDArray[np.float64]


@dataclass(frozen=True)
class InsideValidation:
    """every_updates: of the epoch. measure: metric → value of the model as it is now."""

    every_updates: int
    measure: Callable[[Progress], Mapping[str, float]]

    def when_due(self, progress: Progress) -> None:
        """Measures between two updates, once each; what `measure` raises goes through."""
        updates = progress.updates
        due = 0 < updates < progress.num_updates and updates % self.every_updates == 0
        if due and updates not in progress.inside and progress.recorder.partial_loss() is None:
            progress.inside[updates] = dict(self.measure(progress))


def inside_columns(
    inside: Mapping[int, Mapping[str, float]], *, num_updates: int
) -> dict[str, Column]:
    """`validation_inside/<metric>` → float64 of shape (U,), NaN where nothing was measured."""
    names = sorted({name for values in inside.values() for name in values})
    columns: dict[str, Column] = {INSIDE + name: np.full(num_updates, math.nan) for name in names}
    for update, values in inside.items():
        for name, value in values.items():
            columns[INSIDE + name][update - 1] = value
    return columns


def inside_of(columns: Mapping[str, Column]) -> dict[int, dict[str, float]]:
    """What `inside_columns` was made of, but for values that are NaN."""
    found: dict[int, dict[str, float]] = {}
    for name, column in columns.items():
        if name.startswith(INSIDE):
            for row in np.flatnonzero(~np.isnan(column)).tolist():
                found.setdefault(row + 1, {})[name.removeprefix(INSIDE)] = float(column[row])
    return found


def without_inside(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns that every update has."""
    return {name: column for name, column in columns.items() if not name.startswith(INSIDE)}
