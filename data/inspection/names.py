"""What a data set calls its classes, and where its samples lie, as torchvision's folders have it.

Read of the attributes `classes` and `samples` or `imgs`, through the subsets and chains of
torch.utils.data. A set without them has neither.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from epochal.data.inspection.labels import targets_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

MAX_CHARS = 48_000
"""Of all names in JSON: they are remembered with what else is known of a data set, in 64 KiB."""


def class_names(
    dataset: Any, *, count: int, labels_N: npt.NDArray[np.int64] | None
) -> list[str] | None:
    """The names of the classes by label, or None where there are none, or others than the labels.

    labels_N: of the items, int64 of shape (N,). Where an item is mapped to another class, the names
    are not those of its labels.
    """
    import numpy as np

    names = _classes_of(dataset)
    if names is None or labels_N is None or not len(labels_N):
        return None
    targets_N = targets_of(dataset, count)
    if targets_N is not None and not np.array_equal(targets_N, labels_N):
        return None
    return names if int(labels_N.max()) < len(names) else None


def _classes_of(dataset: Any) -> list[str] | None:
    from torch.utils.data import ConcatDataset, Subset

    if type(dataset) is Subset:
        return _classes_of(dataset.dataset)
    if type(dataset) is ConcatDataset:
        found = [_classes_of(part) for part in dataset.datasets]
        return found[0] if all(names == found[0] for names in found) else None
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not 0 < len(names) <= MAX_CHARS:
        return None
    if not all(isinstance(name, str) for name in names) or len(json.dumps(names)) > MAX_CHARS:
        return None
    return list(names)


def has_paths(dataset: Any) -> bool:
    """Whether `path_of` gives a path for the first sample."""
    return path_of(dataset, 0) is not None


def path_of(dataset: Any, position: int) -> str | None:
    """The file that the sample at `position` comes from, or None where the data set names none."""
    from torch.utils.data import ConcatDataset, Subset

    if type(dataset) is Subset:
        return path_of(dataset.dataset, int(dataset.indices[position]))
    if type(dataset) is ConcatDataset:
        for part, end in zip(dataset.datasets, dataset.cumulative_sizes, strict=True):
            if position < end:
                size: int = len(part)  # type: ignore[arg-type]  # torch's own stub knows no length
                return path_of(part, position - (end - size))
        return None
    for attribute in ("samples", "imgs"):
        listed = getattr(dataset, attribute, None)
        if isinstance(listed, list | tuple) and position < len(listed) == len(dataset):
            entry = listed[position]
            path = entry[0] if isinstance(entry, list | tuple) and entry else entry
            if isinstance(path, str | os.PathLike):
                return os.fspath(path)
    return None
