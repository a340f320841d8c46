"""The class of each sample of a data set, for epochs in which classes are balanced."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

SLOW_S = 10.0
logger = logging.getLogger(__name__)


def class_labels(
    dataset: Any, *, count: int, read_N: npt.NDArray[np.int64] | None, name: str
) -> npt.NDArray[np.int64]:
    """The label of each sample by position: int64 of shape (N,).

    Taken from the data set's attribute `targets`, as torchvision's data sets have it, where it is
    one whole number for each sample; else from the items: read_N, if they were just read. They are
    read otherwise. name: the config's field, for errors. Raises DataError where some item's target
    is no whole number, or none is a class.
    """
    labels_N = _targets_of(dataset, count)
    if labels_N is None:
        labels_N = _read(dataset, count, name) if read_N is None else read_N
    if labels_N is None or not bool((labels_N >= 0).any()):
        found = "not every item has a whole number" if labels_N is None else "no item has a class"
        raise DataError(
            f"sampler.class_balanced: it goes by classes, whole numbers from 0 on as targets, and "
            f"{found} in {name}; give the data set an attribute `targets`, or leave it out"
        )
    return labels_N


def _targets_of(dataset: Any, count: int) -> npt.NDArray[np.int64] | None:
    import numpy as np
    from torch.utils.data import Subset

    if type(dataset) is Subset:
        inner: Any = dataset.dataset
        within = _targets_of(inner, len(inner))
        return None if within is None else within[np.asarray(dataset.indices, dtype=np.int64)]
    found = getattr(dataset, "targets", None)
    if found is None or isinstance(found, str | bytes):
        return None
    try:
        labels_N = np.asarray(found)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors that are elsewhere
        return None
    if labels_N.shape != (count,) or labels_N.dtype.kind not in "iu":
        return None
    return labels_N.astype(np.int64)


def _read(dataset: Any, count: int, name: str) -> npt.NDArray[np.int64] | None:
    from epochal.data.inspection.item_reader import ItemReader
    from epochal.data.loading.items import kept_generators

    started = time.monotonic()
    with kept_generators():
        labels_N = ItemReader(dataset, count, name).read("labels only").labels
    seconds = time.monotonic() - started
    if seconds > SLOW_S:
        logger.warning(
            "%s: reading the labels took %.0f s, and will at each start; give the data set an "
            "attribute `targets`",
            name,
            seconds,
        )
    return labels_N
