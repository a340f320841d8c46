"""What a data set tells of itself, known without reading an item.

Names of classes, ids, where its samples lie, and whether it may be read after a fork: attributes
that a set has or has not, found through the subsets and chains of torch.utils.data.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError

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
    classes_N = labels_N >= 0
    if targets_N is not None and not np.array_equal(targets_N[classes_N], labels_N[classes_N]):
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


def targets_of(dataset: Any, count: int) -> npt.NDArray[np.int64] | None:
    """The attribute `targets`, through the subsets and chains of torch.utils.data."""
    import numpy as np
    from torch.utils.data import ConcatDataset, Subset

    if type(dataset) is Subset:
        inner: Any = dataset.dataset
        within = targets_of(inner, len(inner))
        return None if within is None else within[np.asarray(dataset.indices, dtype=np.int64)]
    if type(dataset) is ConcatDataset:
        parts = [targets_of(part, len(part)) for part in dataset.datasets]  # type: ignore[arg-type]  # torch's own stub knows no length
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    targets = getattr(dataset, "targets", None)
    if targets is None or isinstance(targets, str | bytes):
        return None
    try:
        labels_N = np.asarray(targets)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors that are elsewhere
        return None
    if labels_N.shape != (count,) or labels_N.dtype.kind not in "iu":
        return None
    return labels_N.astype(np.int64)


def told_ids(dataset: Any, *, count: int, name: str) -> npt.NDArray[np.int64] | list[str] | None:
    """The ids that its attribute `sample_ids` gives: int64 of shape (N,), or texts; None without.

    name: the config's field, for the error. Raises DataError for any other form.
    """
    import numpy as np
    from torch.utils.data import ConcatDataset, Subset

    if type(dataset) is Subset:
        inner: Any = dataset.dataset
        within = told_ids(inner, count=len(inner), name=name)
        if within is None or isinstance(within, list):
            return within and [within[int(position)] for position in dataset.indices]
        return within[np.asarray(dataset.indices, dtype=np.int64)]
    if type(dataset) is ConcatDataset:
        return None  # ids of its parts may meet: those of the items count
    given = getattr(dataset, "sample_ids", None)
    if given is None:
        return None
    ids = np.asarray(given)
    if ids.shape == (count,) and ids.dtype.kind in "iu" and int(ids.min()) >= 0:
        return ids.astype(np.int64)
    if isinstance(given, list | tuple) and all(isinstance(one, str) for one in given):
        texts = [str(one) for one in given]
        if len(texts) == count:
            return texts
    raise DataError(
        f"{name}: its sample_ids are {type(given).__name__} of shape {ids.shape} and type "
        f"{ids.dtype}; expected whole numbers from 0 on, of shape ({count},), or a list of "
        f"{count} texts"
    )


def is_unread(dataset: Any) -> bool:
    """Whether reading items leaves nothing open in it that a fork would share.

    Tensors and lists in memory, and what says so by an attribute `unread`, through subsets.
    """
    from torch.utils.data import ConcatDataset, Subset, TensorDataset

    if type(dataset) is Subset:
        return is_unread(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(map(is_unread, dataset.datasets))
    return type(dataset) in {TensorDataset, list} or getattr(dataset, "unread", False) is True


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
    method = getattr(dataset, "path_of", None)
    if callable(method):
        path = method(position)
        return None if path is None else str(path)
    for attribute in ("samples", "imgs"):
        listed = getattr(dataset, attribute, None)
        if isinstance(listed, list | tuple) and position < len(listed) == len(dataset):
            entry = listed[position]
            path = entry[0] if isinstance(entry, list | tuple) and entry else entry
            if isinstance(path, str | os.PathLike):
                return os.fspath(path)
    return None
