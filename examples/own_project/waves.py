"""The data: short noisy waves of four shapes, made when they are asked for. No files.

An item is a dict, so that it can hold more than an input and a target; `sample_id` is the name
under which a sample stands in every table, whatever its place in the data set.
"""

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset

# T points of a wave

SHAPES = ("sine", "square", "triangle", "sawtooth")
POINTS = 64
FIRST_ID = {"train": 0, "validation": 1_000_000}


class Waves(Dataset[dict[str, Tensor | float | int]]):
    """Waves with their shape (0 to 3) and frequency (periods in a wave, 2 to 6).

    mislabelled: share of samples whose label is wrong, as in data that people have labelled.
    """

    def __init__(self, split: str, size: int = 1200, mislabelled: float = 0.0) -> None:
        self._split = split
        self._size = size
        self._mislabelled = mislabelled

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, position: int) -> dict[str, Tensor | float | int]:
        if not 0 <= position < self._size:
            raise IndexError(position)
        sample_id = FIRST_ID[self._split] + position
        # What a sample is depends on its id alone: a generator of its own, seeded by it.
        own = torch.Generator().manual_seed(sample_id)
        shape = position % len(SHAPES)
        frequency, phase, chance = torch.rand(3, generator=own).tolist()
        frequency = 2 + 4 * frequency
        wave_T = _wave(SHAPES[shape], frequency=frequency, phase=phase)
        if self._split == "train":
            # Augmentation draws from the global generator. Epochal seeds it from (seed, epoch,
            # sample id): other noise in each epoch, and the same in each repetition of it.
            noise_T = torch.randn(POINTS)
        else:
            noise_T = torch.randn(POINTS, generator=own)
        is_wrong = chance < self._mislabelled
        return {
            "sample_id": sample_id,
            "signal": wave_T + 0.3 * noise_T,
            "frequency": frequency,
            "label": (shape + 1) % len(SHAPES) if is_wrong else shape,
        }


def _wave(shape: str, *, frequency: float, phase: float) -> Tensor:
    """A wave between -1 and 1, float32 of shape (T,)."""
    turn_T = torch.linspace(0, frequency, POINTS) + phase
    sine_T = torch.sin(2 * math.pi * turn_T)
    match shape:
        case "sine":
            return sine_T
        case "square":
            return torch.sign(sine_T)
        case "triangle":
            return 2 / math.pi * torch.asin(sine_T)
        case _:
            return 2 * (turn_T % 1) - 1
