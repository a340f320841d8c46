"""Checks of data against the config and the model, before epoch 0. No torch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from epochal.data.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

logger = logging.getLogger(__name__)


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
    """Raises DataError unless all labels are classes of the model, or ignored by the loss.

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
        wrong_N = ((labels_N < 0) | (labels_N >= num_classes)) & (labels_N != ignore_index)
        rows = wrong_N.nonzero()[0]
        outside = [int(labels_N[row]) for row in rows[:1]]
        if outside:
            where = f" ({len(rows)} of {len(labels_N)} samples, first at position {rows[0]})"
    if outside:
        raise DataError(
            f"{name}: found the label {outside[0]}{where}, but the model gives {num_classes} "
            f"logits per sample; expected labels from 0 to {num_classes - 1}"
            f"{'' if ignore_index is None else f' (or {ignore_index}, which the loss ignores)'}; "
            "count the classes from 0, or give the model as many outputs as there are classes"
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
