"""The floor of a table that comes in shards: as `policies.floor`, over several passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from epochal.data.policies.shared.floor import first_back, needed

if TYPE_CHECKING:
    from epochal.data.config.sampling import SamplingConfig
    from epochal.data.policies.shared.pool import PlanContext
    from epochal.data.samples.table import SampleTable

# N samples of the data set, B of a shard, C classes, R that may come back


class ClassCounts:
    """How many samples each class has; unknown labels are the class -1."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}

    def add(self, label_B: npt.NDArray[np.int64]) -> None:
        """Counts these."""
        classes, counts = np.unique(np.maximum(label_B, -1), return_counts=True)
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
            self.of[label] = self.of.get(label, 0) + count


def raise_in_shards(
    shards: Iterable[tuple[int, SampleTable]],
    keep_N: npt.NDArray[np.bool_],
    totals: ClassCounts,
    kept: ClassCounts,
    context: PlanContext,
    config: SamplingConfig,
) -> None:
    """As `policies.floor.raise_to_floor`; holds, of each class, no more than have to come back."""
    label_C = np.array(sorted(totals.of), dtype=np.int64)
    total_C = np.array([totals.of[one] for one in label_C.tolist()], dtype=np.int64)
    kept_C = np.array([kept.of.get(one, 0) for one in label_C.tolist()], dtype=np.int64)
    need_C = needed(total_C, kept_C, floor=config.floor)
    if not bool((need_C > 0).any()):
        return
    back: dict[str, npt.NDArray[Any]] = {}
    for start, table in shards:
        class_B = np.searchsorted(label_C, np.maximum(table["label"], -1))
        rows_R = np.flatnonzero(~keep_N[start : start + len(table)] & (need_C > 0)[class_B])
        found = {
            "class": class_B[rows_R],
            "row": rows_R + start,
            "loss": table["loss"][rows_R],
            "sample_id": table["sample_id"][rows_R],
        }
        if back:
            found = {name: np.concatenate([back[name], found[name]]) for name in found}
        first_Q = first_back(
            found["class"],
            found["loss"],
            found["sample_id"],
            need_C,
            epoch=context.epoch,
            seed=context.seed,
        )
        back = {name: array_R[first_Q] for name, array_R in found.items()}
    keep_N[back["row"]] = True
