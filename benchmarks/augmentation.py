"""Augmentation of whole batches against transforms item by item: processor time of an image.

    python benchmarks/augmentation.py [--rounds 7] [--images 64] [--threads 1] [--device cpu]

All ways do the same to the same uint8 images, in turns within each round: a crop with padding, a
flip and normalisation at 32 x 32, and a resized crop to 224 x 224 of images of 256 x 256, a flip,
brightness, contrast, saturation and normalisation. Item by item is what one process of a loader
does; the items are stacked at the end, as a loader has to. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance

from epochal.data.augment import Augmentation
from epochal.data.config.augment import AugmentConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = {"kind": "normalize", "mean": MEAN, "std": STD}
STRENGTH = 0.4
SMALL = ({"kind": "flip"}, {"kind": "crop", "padding": 4}, NORMALIZE)
LARGE = (
    {"kind": "flip"},
    {"kind": "resized_crop", "size": 224},
    {"kind": "color", "brightness": STRENGTH, "contrast": STRENGTH, "saturation": STRENGTH},
    NORMALIZE,
)
DRAWN = Random(0)  # noqa: S311 - of a benchmark
Way = Callable[[], torch.Tensor]


def batched(images: torch.Tensor, operations: tuple[dict[str, Any], ...]) -> Way:
    config = AugmentConfig.model_validate({"train": operations, "validation": []})
    change = Augmentation(config, "train", seed=0, epoch=0)
    ids = np.arange(len(images))
    return lambda: change((images, None), ids)[0]


def pillow(images: torch.Tensor, *, large: bool) -> Way:
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    mean, std = (torch.tensor(one).reshape(3, 1, 1) for one in (MEAN, STD))

    def one(picture: Image.Image) -> torch.Tensor:
        if DRAWN.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if large:
            side = int((DRAWN.uniform(0.08, 1) * picture.width * picture.height) ** 0.5)
            left, top = (DRAWN.randint(0, size - side) for size in picture.size)
            box = (left, top, left + side, top + side)
            picture = picture.resize((224, 224), Image.Resampling.BILINEAR, box=box)
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                picture = enhance(picture).enhance(DRAWN.uniform(1 - STRENGTH, 1 + STRENGTH))
        else:
            left, top = (DRAWN.randint(-4, 4) for _ in range(2))
            picture = picture.crop((left, top, left + 32, top + 32))
        array = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return (array.float() / 255 - mean) / std

    return lambda: torch.stack([one(picture) for picture in pictures])


def albumentations(images: torch.Tensor, *, large: bool) -> Way:
    import albumentations as library

    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images]
    moved = (
        [
            library.RandomResizedCrop((224, 224)),
            library.ColorJitter(STRENGTH, STRENGTH, STRENGTH, 0, p=1),
        ]
        if large
        else [library.Pad(4), library.RandomCrop(32, 32)]
    )
    compose = library.Compose([library.HorizontalFlip(), *moved, library.Normalize(MEAN, STD)])

    def one(array: Any) -> torch.Tensor:
        compose.set_random_seed(DRAWN.getrandbits(32))
        made = compose(image=array)["image"]
        return torch.from_numpy(np.ascontiguousarray(made.transpose(2, 0, 1)))

    return lambda: torch.stack([one(array) for array in arrays])


def torchvision(images: torch.Tensor, *, large: bool) -> Way:
    from torchvision.transforms import v2

    moved = (
        [v2.RandomResizedCrop(224), v2.ColorJitter(STRENGTH, STRENGTH, STRENGTH)]
        if large
        else [v2.RandomCrop(32, padding=4)]
    )
    scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    compose = v2.Compose([v2.RandomHorizontalFlip(), *moved, *scaled])
    return lambda: torch.stack([compose(image) for image in images])


def measured(way: Way, *, images: int, on_cuda: bool) -> float:
    """Microseconds for each image: of the processor, of CUDA until the device is done."""
    now = time.perf_counter if on_cuda else time.process_time
    started = now()
    way()
    if on_cuda:
        torch.cuda.synchronize()
    return (now() - started) / images * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    on_cuda = asked.device != "cpu"
    for side, operations, large in ((32, SMALL, False), (256, LARGE, True)):
        generator = torch.Generator().manual_seed(0)
        shape = (asked.images, 3, side, side)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        ways: dict[str, Way] = {"augment": batched(images.to(asked.device), operations)}
        if not on_cuda:
            for make in (pillow, albumentations, torchvision):
                try:
                    ways[make.__name__] = make(images, large=large)
                except (ImportError, RuntimeError) as error:
                    print(f"without {make.__name__}: {error}")
            if "albumentations" in ways:
                import cv2

                cv2.setNumThreads(asked.threads)
        for way in ways.values():
            way()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, way in ways.items():
                times[name].append(measured(way, images=asked.images, on_cuda=on_cuda))
        print(f"{side} x {side}, {asked.images} images, {asked.threads} threads, {asked.device}")
        for name, found in times.items():
            ratios = [one / own for one, own in zip(found, times["augment"], strict=True)]
            low, high = min(found), max(found)
            print(
                f"  {name:15} {statistics.median(found):8.1f} us ({low:.1f} to {high:.1f}), "
                f"{statistics.median(ratios):.2f} x augment"
            )


if __name__ == "__main__":
    main()
