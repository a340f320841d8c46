"""Labels: the class of each sample, for balanced classes, and checks before the first epoch."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from epochal.data.errors import ConfigError, DataError
from epochal.data.inspection.item_reader import ItemReader
from epochal.data.inspection.told import targets_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


# N samples

SLOW_S = 10.0
MAX_CHECKED, FEW = 48, 16  # items that are compared with `targets`: by class, and at even steps
logger = logging.getLogger(__name__)


class LabelsOutside(DataError):
    """Labels that are no classes of the model. num_classes, ignore_index: as `check_labels` has."""

    def __init__(self, message: str, *, num_classes: int, ignore_index: int | None) -> None:
        super().__init__(message)
        self.num_classes = num_classes
        self.ignore_index = ignore_index


def class_labels(
    dataset: Any, *, count: int, read_N: npt.NDArray[np.int64] | None, name: str
) -> npt.NDArray[np.int64]:
    """The label of each sample by position, as its item has it: int64 of shape (N,).

    read_N: of the items, where they were read already. Else the data set's attribute `targets`, as
    torchvision's data sets have it, stands for them where it is one whole number for each sample
    and some items of each class agree: an item may be mapped to another class. Else all are read.
    name: the config's field, for errors. Raises DataError where some item's target is no whole
    number, or none is a class.
    """
    labels_N = read_N
    if labels_N is None:
        targets_N = targets_of(dataset, count)
        agree = targets_N is not None and _items_agree(dataset, targets_N, name)
        labels_N = targets_N if agree else _read(dataset, count, name)
    if labels_N is None or not bool((labels_N >= 0).any()):
        reason = "not every item has a whole number" if labels_N is None else "no item has a class"
        raise DataError(
            f"batches.class_balanced: it goes by classes, whole numbers from 0 on as targets, and "
            f"{reason} in {name}; give the data set an attribute `targets`, or leave it out"
        )
    return labels_N


def _items_agree(dataset: Any, targets_N: npt.NDArray[np.int64], name: str) -> bool:
    """Whether the first item of each class, and some between, have the label that `targets` says.

    Up to 64 items are read, whatever the size of the data set.
    """
    import numpy as np

    from epochal.data.loading.items import kept_generators

    count = len(targets_N)
    first_C = np.unique(targets_N, return_index=True)[1][:MAX_CHECKED]
    spread = np.linspace(0, count - 1, min(count, FEW)).astype(np.int64)
    reader = ItemReader(dataset, count, name)
    with kept_generators():
        return all(
            reader.label(position) == targets_N[position]
            for position in np.union1d(first_C, spread).tolist()
        )


def _read(dataset: Any, count: int, name: str) -> npt.NDArray[np.int64] | None:
    from epochal.data.loading.items import kept_generators

    started = time.monotonic()
    with kept_generators():
        labels_N = ItemReader(dataset, count, name).read("labels only").labels
    seconds = time.monotonic() - started
    if seconds > SLOW_S:
        logger.warning(
            "%s: reading the labels took %.0f s, and will at each start; give the data set an "
            "attribute `targets` that holds the labels of its items",
            name,
            seconds,
        )
    return labels_N


def check_batch_size(num_samples: int, batch_size: int, *, drop_last: bool) -> None:
    """Raises ConfigError if `drop_last` would leave no whole micro-batch of the training data."""
    if drop_last and batch_size > num_samples:
        raise ConfigError(
            f"loader.batch_size: found {batch_size}, but train_data has {num_samples} samples and "
            f"loader.drop_last drops incomplete batches: none would be whole; expected at most "
            f"{num_samples}, or drop_last: false"
        )


def check_labels(
    label_min: int | None,
    label_max: int | None,
    *,
    labels_N: npt.NDArray[np.int64] | None,
    num_classes: int,
    ignore_index: int | None,
    name: str,
) -> None:
    """Raises LabelsOutside unless all labels are classes of the model, or ignored by the loss.

    On a GPU a label outside ends the process, on the CPU it is an IndexError in some epoch.
    label_min, label_max: of all labels, None where unknown; labels_N: the labels by position, int64
    of shape (N,), where they are at hand. num_classes: logits per sample. ignore_index: the label
    that the loss leaves out. name: the config's field.
    """
    if label_min is None or label_max is None:
        return
    outside = [
        label
        for label in (label_min, label_max)
        if not 0 <= label < num_classes and label != ignore_index
    ]
    where = ""
    if labels_N is not None:
        rows = rows_outside(labels_N, num_classes=num_classes, ignore_index=ignore_index)
        outside = [int(labels_N[row]) for row in rows[:1]]
        if outside:
            where = f" ({len(rows)} of {len(labels_N)} samples, first at position {rows[0]})"
    if outside:
        raise LabelsOutside(
            f"{name}: found the label {outside[0]}{where}, but the model gives {num_classes} "
            f"logits per sample; expected labels from 0 to {num_classes - 1}"
            f"{'' if ignore_index is None else f' (or {ignore_index}, which the loss ignores)'}; "
            "count the classes from 0, or give the model as many outputs as there are classes",
            num_classes=num_classes,
            ignore_index=ignore_index,
        )
    if labels_N is not None and ignore_index is not None:
        ignored = int((labels_N == ignore_index).sum())
        if 0 < ignored < len(labels_N):
            logger.warning(
                "%s: %d of %d labels are %d, which the loss ignores: nothing is learned from "
                "these samples",
                name,
                ignored,
                len(labels_N),
                ignore_index,
            )
    if label_min == label_max == ignore_index:
        raise DataError(
            f"{name}: every label is {ignore_index}, which the loss ignores; nothing could be "
            "learned or measured; expected labels that are classes"
        )


def rows_outside(
    labels_N: npt.NDArray[np.int64], *, num_classes: int, ignore_index: int | None
) -> npt.NDArray[np.int64]:
    """Rows whose label is no class and is not ignored, rising."""
    import numpy as np

    wrong_N = ((labels_N < 0) | (labels_N >= num_classes)) & (labels_N != ignore_index)
    return np.flatnonzero(wrong_N)
