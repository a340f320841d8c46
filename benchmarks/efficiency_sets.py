"""Data sets, models and recipes of `sample_efficiency.py`; the learning rate fits full training.

The procedural set is drawn from its seed alone: ten shapes on 16×16 grey pixels whose contrast,
noise, clutter and occlusion vary from sample to sample, so that some are learned in an epoch and
some never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from epochal.data.datasets.built_in import digits, idx_images, stratified
from epochal.data.hashing import hash_u64, seed_64

# N samples, H height, W width

SHAPES, SHAPE_SIDE = 10, 16
FASHION_SAMPLES = 20_000
PROCEDURAL_SAMPLES = 20_000
WRONG_SHARE = 0.07


@dataclass(frozen=True)
class TaskSet:
    """What is trained, and how. truth_N: the labels before any were made wrong."""

    images_N1HW: Tensor
    labels_N: Tensor
    test_images: Tensor
    test_labels: Tensor
    truth_N: Tensor
    model: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    rate: float
    shift: int
    flip: bool


def load_set(name: str, folder: Path | None) -> TaskSet:
    """The set of that name; `fashion` is read from the IDX files in `folder`."""
    if name == "digits":
        return _digits()
    if name == "fashion":
        if folder is None:
            raise SystemExit("fashion: expected --data, the folder with its IDX files")
        return _fashion(folder)
    return _procedural(name)


SETS = ("digits", "fashion", "procedural", "procedural_uniform", "procedural_class")
"""procedural: all labels right; _uniform: 7 % wrong at random; _class: 7 % taken for a like one."""


def convolutions(widths: tuple[int, ...], pools: tuple[int, ...], classes: int = 10) -> nn.Module:
    """3×3 convolutions with BatchNorm, halved after those in `pools`, a mean and a linear layer."""
    layers: list[nn.Module] = []
    before = 1
    for number, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers.append(nn.ReLU())
        if number in pools:
            layers.append(nn.MaxPool2d(2))
        before = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    # Half as fast again on a CPU: its convolutions go by channels last.
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _digits() -> TaskSet:
    train, test = digits("train"), digits("validation")
    return TaskSet(
        *train.tensors,
        *test.tensors,
        truth_N=train.tensors[1],
        model=lambda: convolutions((16, 32, 32), (0,)),
        epochs=24,
        batch_size=32,
        rate=0.08,
        shift=0,
        flip=False,
    )


def _fashion(folder: Path) -> TaskSet:
    all_images, all_labels = idx_images(str(folder), "train").tensors
    labels_N = all_labels.numpy()
    chosen_K = stratified(labels_N, count=FASHION_SAMPLES, seed=0)
    rest_N = np.ones(len(labels_N), dtype=bool)
    rest_N[chosen_K] = False
    more = np.flatnonzero(rest_N)
    test_images, test_labels = idx_images(str(folder), "test").tensors
    more = more[stratified(labels_N[more], count=FASHION_SAMPLES - len(test_labels), seed=0)]
    return TaskSet(
        all_images[chosen_K],
        all_labels[chosen_K],
        torch.cat([test_images, all_images[more]]),
        torch.cat([test_labels, all_labels[more]]),
        truth_N=all_labels[chosen_K],
        model=lambda: convolutions((12, 24, 32, 48), (0, 1, 2)),
        epochs=16,
        batch_size=64,
        rate=0.16,
        shift=2,
        flip=True,
    )


def _procedural(name: str) -> TaskSet:
    images, truth = draw_shapes(PROCEDURAL_SAMPLES, seed=1)
    test_images, test_labels = draw_shapes(PROCEDURAL_SAMPLES, seed=2)
    labels = truth
    if name != "procedural":
        labels = wrong_labels(truth, by_class=name == "procedural_class", seed=3)
    return TaskSet(
        torch.from_numpy(images).unsqueeze(1),
        torch.from_numpy(labels),
        torch.from_numpy(test_images).unsqueeze(1),
        torch.from_numpy(test_labels),
        truth_N=torch.from_numpy(truth),
        model=lambda: convolutions((16, 32, 32), (0, 1)),
        epochs=16,
        batch_size=128,
        rate=0.16,
        shift=1,
        flip=True,
    )


def draw_shapes(count: int, *, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images float32 of shape (N, 16, 16) of mean near 0, and their shapes int64 of shape (N,)."""
    random = np.random.default_rng(seed_64("shapes", seed))
    label_N = np.arange(count, dtype=np.int64) % SHAPES
    difficulty = random.beta(1.2, 1.8, count)[:, None, None]
    grid = (np.arange(SHAPE_SIDE) - (SHAPE_SIDE - 1) / 2) / (SHAPE_SIDE / 2)
    angle = random.normal(0, 0.25, (count, 1, 1)) * (0.3 + difficulty)
    scale = random.uniform(0.75, 1.25, (count, 1, 1))
    dx, dy = random.uniform(-0.3, 0.3, (2, count, 1, 1))
    x = (grid[None, None, :] - dx) / scale
    y = (grid[None, :, None] - dy) / scale
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    distance = np.empty((count, SHAPE_SIDE, SHAPE_SIDE))
    for shape in range(SHAPES):
        rows = label_N == shape
        distance[rows] = _distance(shape, u[rows], v[rows])
    image = np.clip(0.5 - distance * 6, 0, 1) * random.uniform(0.6, 1.2, (count, 1, 1))
    image *= 1 - 0.6 * difficulty  # fainter
    cover = random.uniform(-1, 1, (2, count, 1, 1))
    size = 0.15 + 0.35 * difficulty * random.random((count, 1, 1))
    inside = (np.abs(grid[None, None, :] - cover[0]) < size) & (
        np.abs(grid[None, :, None] - cover[1]) < size
    )
    image = np.where(inside, random.uniform(0, 0.6, (count, 1, 1)), image)
    image += random.normal(0, 1, image.shape) * (0.05 + 0.33 * difficulty)
    return (image - 0.2).astype(np.float32), label_N


def _distance(shape: int, u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> (
    npt.NDArray[np.float64]
):  # fmt: skip
    """Below 0 inside the shape, which a left-right mirror does not change."""

    def box(a: float, b: float, width: float, height: float) -> npt.NDArray[np.float64]:
        return np.maximum(np.abs(u - a) - width, np.abs(v - b) - height)

    radius = np.hypot(u, v)
    p, q = (u + v) / 2**0.5, (u - v) / 2**0.5
    shapes: tuple[Callable[[], npt.NDArray[np.float64]], ...] = (
        lambda: radius - 0.52,
        lambda: np.abs(radius - 0.45) - 0.12,
        lambda: box(0, 0, 0.46, 0.46),
        lambda: np.abs(np.maximum(np.abs(u), np.abs(v)) - 0.42) - 0.12,
        lambda: np.minimum(box(0, 0, 0.12, 0.55), box(0, 0, 0.55, 0.12)),
        lambda: np.minimum(
            np.maximum(np.abs(p) - 0.12, np.abs(q) - 0.6),
            np.maximum(np.abs(q) - 0.12, np.abs(p) - 0.6),
        ),
        lambda: np.maximum(v - 0.45, (2 * np.abs(u) - v - 0.55) / 2),
        lambda: np.minimum(box(0, -0.4, 0.5, 0.13), box(0, 0.05, 0.13, 0.5)),
        lambda: np.minimum(box(0, -0.28, 0.5, 0.13), box(0, 0.28, 0.5, 0.13)),
        lambda: np.minimum(box(-0.28, 0, 0.13, 0.5), box(0.28, 0, 0.13, 0.5)),
    )
    return shapes[shape]()


def wrong_labels(
    truth_N: npt.NDArray[np.int64], *, by_class: bool, seed: int
) -> npt.NDArray[np.int64]:
    """Labels of which 7 % are wrong: int64 of shape (N,).

    by_class: of every second class 14 % are taken for the one after it, which looks alike.
    """
    ids_N = np.arange(len(truth_N), dtype=np.int64)
    lot_N = hash_u64(ids_N, "wrong", seed)
    may_N = (truth_N % 2 == 0) if by_class else np.ones(len(truth_N), dtype=bool)
    rows = np.flatnonzero(may_N)[np.argsort(lot_N[may_N])][: round(WRONG_SHARE * len(truth_N))]
    labels_N = truth_N.copy()
    step = 1 if by_class else 1 + hash_u64(rows, "wrong/which", seed) % np.uint64(SHAPES - 1)
    labels_N[rows] = (truth_N[rows] + np.asarray(step, dtype=np.int64)) % SHAPES
    return labels_N
