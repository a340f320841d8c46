"""A list of operations, applied to the batches of one epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from epochal.data.augment import geometry, values
from epochal.data.augment.pictures import Draws, Pictures, find_pictures
from epochal.data.config.augment import OF_UNIT_VALUES, AugmentConfig, Operation, Part
from epochal.data.errors import DataError

# B samples of a batch

CHUNK_BYTES = 1 << 21
"""Samples that are worked on together on a CPU: all operations on what the cache still holds."""

_APPLY: dict[str, Callable[[Pictures, Any, Draws], None]] = {
    "flip": geometry.flip,
    "crop": geometry.crop,
    "resized_crop": geometry.resized_crop,
    "resize": geometry.resize,
    "center_crop": geometry.center_crop,
    "affine": geometry.affine,
    "color": values.color,
    "grayscale": values.grayscale,
    "erase": values.erase,
    "noise": values.noise,
    "to_float": values.to_float,
    "normalize": values.normalize,
}


class Augmentation:
    """The operations of a config on the batches of an epoch: a pure function of batch and ids.

    checks: whether images are looked at for values that an operation is not meant for. That waits
    for the device, so it is done once, before the start.
    """

    def __init__(
        self, config: AugmentConfig, part: Part, *, seed: int, epoch: int, checks: bool = False
    ) -> None:
        self._config = config
        self._checks = checks
        before: Counter[str] = Counter()
        self._operations = []
        for operation in config.operations(part):
            kind = operation.kind
            # Another operation put in front changes nothing of what this one draws.
            self._operations.append((operation, (seed, epoch, kind, before[kind])))
            before[kind] += 1

    @torch.no_grad()
    def __call__(
        self,
        data: Any,
        sample_ids_B: npt.NDArray[np.int64],
        repeats_B: npt.NDArray[np.int64] | None = None,
    ) -> Any:
        """The batch with its images, masks and boxes changed, on the device where they are.

        data: `(image, …)` or a dict with `input` or `image`. sample_ids_B: int64. repeats_B: how
        often each sample came before in the epoch; None: never. Raises DataError for a batch that
        has no images, or others than an operation takes.
        """
        pictures, put_back = find_pictures(
            data,
            count=len(sample_ids_B),
            keep=self._config.keep,
            mask_fill=self._config.mask_fill,
        )
        count = len(sample_ids_B)
        steps = [
            (operation, Draws(sample_ids_B, repeats_B, stream))
            for operation, stream in self._operations
        ]
        chunk = count
        if pictures.image.is_cpu and count:
            chunk = max(1, CHUNK_BYTES // max(1, pictures.image[0].numel() * 4))
        if chunk >= count:
            return put_back(self._changed(pictures, steps, slice(None)))
        whole: Pictures | None = None
        for start in range(0, count, chunk):
            rows = slice(start, start + chunk)
            part = self._changed(pictures.rows(rows), steps, rows)
            whole = part.empty_for(count) if whole is None else whole
            whole.fill(rows, part)
        assert whole is not None
        return put_back(whole)

    def _changed(
        self, pictures: Pictures, steps: Sequence[tuple[Operation, Draws]], rows: slice
    ) -> Pictures:
        for operation, draws in steps:
            if self._checks and isinstance(operation, OF_UNIT_VALUES):
                _check_unit(pictures, operation.kind)
            _APPLY[operation.kind](pictures, operation, draws.rows(rows))
        return pictures


def _check_unit(pictures: Pictures, kind: str) -> None:
    image = pictures.image
    if not image.is_floating_point():
        return
    low, high = float(image.min()), float(image.max())
    if not 0 <= low <= high <= 1:
        raise DataError(
            f"augment: {kind} is of values from 0 to 1, found values from {low:.3g} to {high:.3g}; "
            "give uint8 images or divide them by 255 in the data set, and normalize them by "
            "`augment`, after it"
        )
