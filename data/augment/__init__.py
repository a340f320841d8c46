"""Augmentation: batched operations on images, and adapters that seed people's own transforms.

    transform: {target: "epochal.data.augment:albumentations", args: …}

These are looked up when they are asked for: a plan needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.lazy import lazy_names

__all__ = ["Augmentation", "albumentations", "timm", "torchvision", "transformed"]

if TYPE_CHECKING:
    from epochal.data.augment.adapters import albumentations, timm, torchvision
    from epochal.data.augment.pipeline import Augmentation
    from epochal.data.augment.wrapper import transformed

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "epochal.data.augment.adapters": ("albumentations", "timm", "torchvision"),
        "epochal.data.augment.pipeline": ("Augmentation",),
        "epochal.data.augment.wrapper": ("transformed",),
    },
)
