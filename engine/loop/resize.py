"""Images of a micro-batch at the resolution that the sampler has drawn for it.

Interpolated on the device that trains, bilinear and with antialiasing, as image libraries shrink
pictures; what has the size already, since the data set gave it so, is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.engine.model.batches import described, input_name

_IMAGES = 4  # dimensions: (B, channels, H, W)


def resized(data: Any, size_HW: tuple[int, int]) -> Any:
    """The batch with its input, images of shape (B, channels, H, W), at that height and width.

    data: `(input, …)` or a dict with `input` or `image`; the rest of it stays as it is. Raises
    TargetError where the input is no batch of images.
    """
    if isinstance(data, Mapping):
        name = input_name(data)
        if name is not None:
            return {**data, name: _interpolated(data[name], size_HW)}
    elif isinstance(data, tuple | list) and data and not hasattr(data, "_fields"):
        return type(data)([_interpolated(data[0], size_HW), *data[1:]])
    raise TargetError(
        "batches: it takes items (image, target) or {image: …, target: …}, found batches that are "
        f"{described(data)}; use batches.kind: fixed"
    )


def _interpolated(images: Any, size_HW: tuple[int, int]) -> Tensor:
    if (
        not isinstance(images, Tensor)
        or images.ndim != _IMAGES
        or not images.is_floating_point()
        or not images.shape[1]
    ):
        raise TargetError(
            "batches: resolutions are of images, floating-point inputs of shape (batch, channels, "
            f"height, width), found {described(images)}; convert them in the data set, or use "
            "batches.kind: fixed"
        )
    if images.shape[-2:] == size_HW:
        return images
    with torch.no_grad():
        return torch.nn.functional.interpolate(
            images, size=size_HW, mode="bilinear", antialias=True, align_corners=False
        )
