"""Data sets that another process has read, by what it tells of them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from epochal.data.inspection.dataset import DatasetInfo, OpenDataset
from epochal.tasks.runs.run_sources import DataField


def told_data(
    told: Mapping[str, Any], ids: bytes, *, make: Callable[[DataField, Sequence[int]], Any]
) -> dict[str, OpenDataset]:
    """Field of the config → the data set.

    told: field → its `info`, its `fingerprint` and the positions of its `bad` samples. ids: of
    those that have ids of their own, int64.
    make: gives the data set itself without the bad samples, or None where nobody reads it here.
    """
    data, start = {}, 0
    for name, one in told.items():
        info = DatasetInfo.model_validate(one["info"])
        read_ids_N = None
        if not info.index_ids:
            read_ids_N = np.frombuffer(ids, np.int64, info.num_samples, start)
            start += read_ids_N.nbytes
        data[name] = OpenDataset(
            field=name,
            make=partial(make, cast("DataField", name), one["bad"]),
            info=info,
            fingerprint=one["fingerprint"],
            read_ids_N=read_ids_N,
            labels_N=None,
        )
    return data
